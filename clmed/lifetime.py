"""How a run begins and ends in its directory: what it ran on, what stops it, what is written of its end."""

import hashlib
import inspect
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from clmed.config import ExperimentConfig, dump
from clmed.errors import LostRankError, StoppedError, UserError
from clmed.results.rundir import RunDirectory
from clmed.strategy import Strategy
from clmed.training.checkpoint import Found
from clmed.training.sharding import World
from clmed.training.step import StepTrainer
from clmed.voice import Voice

PACKAGES = ("clmed", "torch", "transformers", "datasets", "avalanche-lib", "numpy")


@contextmanager
def asked_to_stop(trainer: StepTrainer) -> Iterator[None]:
    """SIGTERM and SIGUSR1 (a cluster's time limit) make the run save after the step in progress and stop.

    On several ranks the first Ctrl-C is the last signal that counts: torchrun passes it on once more, and then SIGTERM,
    which would cut short what the ranks still have to write. A Ctrl-C whose exception Python drops (in a finaliser, or
    in a callback of its garbage collector, of which jax has one) is raised once more. Beside the main thread, which is
    the one that may take signals, everything is left to that one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(*_: object) -> None:
        trainer.stop_asked = True

    def interrupt(*_: object) -> None:
        for which in (signal.SIGINT, signal.SIGTERM):
            signal.signal(which, signal.SIG_IGN)
        raise KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            hook_before(unraisable)
            return
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)  # seconds: outside of what drops it, by then or at the next try

    handlers: dict[signal.Signals, Any] = {signal.SIGTERM: ask, signal.SIGUSR1: ask}
    if trainer.world.ranks > 1:
        handlers[signal.SIGINT] = interrupt
    before = {which: signal.signal(which, handler) for which, handler in handlers.items()}
    hook_before, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield
    finally:
        sys.unraisablehook = hook_before
        signal.setitimer(signal.ITIMER_REAL, 0)
        for which, handler in before.items():
            if signal.getsignal(which) is not signal.SIG_IGN:
                signal.signal(which, handler)


@contextmanager
def recorded(
    config: ExperimentConfig,
    world: World,
    directory: RunDirectory,
    overwrite: bool,
    found: Found | None,
    voice: Voice,
    strategies: Sequence[Strategy],
) -> Iterator[None]:
    """Make the run directory, or take it up at a checkpoint, and write there how the work inside ends."""
    if not world.main:
        yield
        return
    if found is None:
        around = environment(world) | {"strategies": own_files(strategies)}
        RunDirectory.create(directory.path, dump(config), around, overwrite)
        voice.write_to(directory.log)
    else:
        place, steps = found.values["place"], found.values["clock"]["train_iterations"]
        directory.go_on(points=place["point"], steps=steps)
        voice.write_to(directory.log)
        voice.say(f"going on from {found.path}: step {steps}, {place['tokens']:,} domain tokens")
    try:
        yield
    except BaseException as error:
        reason = str(error) if isinstance(error, UserError | LostRankError) else f"{type(error).__name__}: {error}"
        with suppress(UserError):  # of a full disk, which must not hide what came first
            if isinstance(error, StoppedError):
                reason = str(error)
                voice.say(f"{reason}; the same command goes on from there")
            elif isinstance(error, KeyboardInterrupt):
                reason = "interrupted"
                voice.say(f"interrupted; what was trained and measured so far is in {directory.path}")
            else:
                voice.note(reason)
            directory.set_status("stopped", reason)
        raise
    directory.set_status("complete")


def own_files(strategies: Sequence[Strategy]) -> dict[str, str]:
    """The files of strategies that are not clmed's own, and of their base classes, each with its SHA-256."""
    kinds = {kind for strategy in strategies for kind in type(strategy).mro()} - set(Strategy.mro())
    found = {}
    for kind in kinds:
        if not kind.__module__.startswith("clmed.strategies."):
            with suppress(TypeError, OSError):  # made without a file
                file = Path(inspect.getfile(kind))
                found[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return dict(sorted(found.items()))


def refuse_changed(directory: RunDirectory, strategies: Sequence[Strategy]) -> None:
    """Raise UserError where a run would go on with a strategy whose file is another than when the run began."""
    began = directory.environment().get("strategies", {})
    if changed := [name for name, digest in own_files(strategies).items() if began.get(name, digest) != digest]:
        raise UserError(
            f"{directory.path} was begun with another {changed[0]}, and would end as neither the old nor the new one "
            "does: put the file back to go on, or start anew with --overwrite."
        )


def environment(world: World) -> dict[str, object]:
    """What a result may depend on besides the configuration."""
    return {
        "versions": versions(),
        "machine": platform.platform(),
        "device": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.processor(),
        "ranks": world.ranks,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "command": sys.argv,
    }


def versions() -> dict[str, str]:
    """Of the packages that a result may depend on, and of Python."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
