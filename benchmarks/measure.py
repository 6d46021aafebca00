"""What the speed benchmarks share: variants that take turns, each in a process of its own, and a Markdown table."""

import multiprocessing
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one variant did in one round: things done (positions, tokens, examples), by name; their time; memory.

    seconds: of the work alone, without what comes before it; peak: bytes of memory above those at the start.
    """

    done: Mapping[str, float]
    seconds: float
    peak: int = 0


Variants = Mapping[str, Callable[[], Pass]]


def take_turns(variants: Variants, rounds: int) -> dict[str, list[Pass]]:
    """Every variant once a round, so that what else the machine does hits all alike."""
    found: dict[str, list[Pass]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            found[name].append(in_child(run))
    return found


def in_child(run: Callable[[], Pass]) -> Pass:
    """`run` in a forked process, which starts with what is imported here and knows its own peak of memory."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(run, sender))
    process.start()
    sender.close()
    try:
        result: Pass = receiver.recv()
    except EOFError:
        raise SystemExit("a variant failed; see its traceback above") from None
    process.join()
    return result


def _child(run: Callable[[], Pass], sender: "multiprocessing.connection.Connection") -> None:  # type: ignore[name-defined]
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    before = _memory("VmRSS")
    result = run()
    sender.send(Pass(done=result.done, seconds=result.seconds, peak=_memory("VmHWM") - before))


def _memory(field: str) -> int:
    """Bytes, from what Linux tells of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


def speed(passes: Sequence[Pass], of: str) -> float:
    """The median number of things done in a second."""
    return statistics.median(each.done[of] / each.seconds for each in passes)


def ratio(passes: Sequence[Pass], peer: Sequence[Pass], of: str) -> float:
    """The median over the rounds of one variant's speed to another's in the same round."""
    pairs = zip(passes, peer, strict=True)
    return statistics.median((one.done[of] / one.seconds) / (other.done[of] / other.seconds) for one, other in pairs)


def megabytes(passes: Sequence[Pass]) -> float:
    """The median peak of memory, MB."""
    return statistics.median(each.peak for each in passes) / 1e6


def conditions(rounds: int) -> str:
    """Under what the figures were taken."""
    return (
        f"{rounds} rounds, {torch.get_num_threads()} thread(s), {os.cpu_count()} cores, no GPU, "
        f"torch {torch.__version__.partition('+')[0]}. Medians of the rounds."
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and all others numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_part(page: Path, name: str, made: str) -> None:
    """Replace what stands in a page between `<!-- name -->` and `<!-- end of name -->`."""
    text = page.read_text(encoding="utf-8")
    part = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end of {re.escape(name)} -->)", re.DOTALL)
    if not part.search(text):
        raise SystemExit(f"{page} has no marks for {name}")
    page.write_text(part.sub(lambda found: f"{found[1]}\n{made}\n\n{found[2]}", text), encoding="utf-8")
