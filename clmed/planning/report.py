"""The estimate for people: one table, and what to change when it does not fit."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clmed.config import ExperimentConfig
from clmed.planning.estimate import BYTES_PER_TOKEN, RESERVE, Estimate
from clmed.planning.outline import duration

GIB = 2**30


def report(plan: Estimate, host_memory: float | None = None) -> RenderableType:
    """All of it; host_memory: bytes of a node, where they are known."""
    return Group(_work(plan), Text(), _memory(plan), Text(), _verdict(plan, host_memory), *_suggestions(plan))


def _pairs() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    return table


def _work(plan: Estimate) -> Table:
    training, shape, table = plan.config.training, plan.shape, _pairs()
    table.add_row("model", f"{shape.name}: {shape.parameters:,} parameters")
    if plan.trained < shape.parameters or plan.cost.added:
        added = f" ({plan.cost.added:,.0f} weights are added)" if plan.cost.added else ""
        table.add_row("trained", f"{plan.trained:,.0f}, {plan.trained / plan.parameters:.2%} of all{added}")
    for index, phase in enumerate(plan.phases):
        about = "about " if phase.guessed else ""
        table.add_row("" if index else "experiences", f"{phase.name}: {about}{phase.domain_tokens:,.0f} domain tokens")
    if any(phase.guessed for phase in plan.phases):
        table.add_row(
            "", f"(from the sizes of files, {BYTES_PER_TOKEN:g} bytes a token; --tokens SOURCE=N says better)"
        )
    table.add_row("strategy", ", ".join(plan.config.strategy) or "naive")
    added = f", {plan.cost.tokens:,.0f} of them added by strategies" if plan.cost.tokens else ""
    table.add_row("tokens", f"{plan.tokens:,.0f}{added}")
    row_text = f"{plan.rows:,} rows of {training.sequence_length:,}"
    table.add_row(
        "steps",
        f"{plan.steps:,} of {training.tokens_per_step:,} tokens ({row_text}: {plan.ranks} GPUs x {plan.micro} rows x "
        f"{plan.accumulation} micro-batches)",
    )
    filled = plan.rows / (plan.ranks * plan.micro * plan.accumulation)
    if filled < 1:
        table.add_row("", f"({1 - filled:.0%} of these places stay empty: time that is lost, not counted below)")
    each = "6 x weights" if plan.trained == plan.parameters else "6 x trained weights, 4 x others,"
    table.add_row(
        "compute",
        f"{plan.flops:.3g} FLOPs: {plan.flops_per_token:.3g} a token ({each} in products + attention, whole rows)",
    )
    if plan.supported:
        peak = plan.gpu.peaks[training.precision]
        again = ", each forward twice (checkpointing)" if training.activation_checkpointing else ""
        table.add_row(
            "time",
            f"{_time(plan.seconds)} on {plan.ranks} {plan.gpu.name} at {plan.utilisation:.0%} of {peak / 1e12:g} "
            f"TFLOP/s ({training.precision}){again}; measurements come on top",
        )
        table.add_row("energy", f"{plan.energy:,.0f} kWh of the GPUs at {plan.gpu.watts:g} W; nodes and cooling on top")
    return table


def _memory(plan: Estimate) -> Table:
    table = Table("memory of one GPU", "GiB", "", box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.columns[1].justify = "right"
    where = "in the host's memory" if plan.config.training.cpu_offload else "always"
    for name, value in plan.state.items():
        table.add_row(name, _gib(value), where)
    other = plan.activations(not plan.config.training.activation_checkpointing)
    without = "without" if plan.config.training.activation_checkpointing else "with"
    for name, value in plan.training.items():
        note = f" ({_gib(other)} {without} checkpointing)" if name == "activations" else ""
        table.add_row(name, _gib(value), "in a step" + note)
    for name, value in plan.evaluation.items():
        table.add_row(name, _gib(value), "in a measurement")
    table.add_row("peak", _gib(plan.peak), f"of {_gib(plan.room)} ({plan.gpu.memory:g} less {RESERVE:.0%} in reserve)")
    return table


def _verdict(plan: Estimate, host_memory: float | None) -> Table:
    table = _pairs()
    precision = plan.config.training.precision
    unsupported = f"no: it does not compute in {precision}, only in {', '.join(plan.gpu.peaks)}"
    table.add_row("fits the GPU", unsupported if not plan.supported else _yes(plan.fits))
    if plan.gpu.note:
        table.add_row("", f"({plan.gpu.name} {plan.gpu.note})")
    need = f"{_gib(plan.host)} GiB of a node of {min(plan.per_node, plan.ranks)} while a checkpoint is written"
    if host_memory is None:
        table.add_row("host memory", f"{need} (--host-memory says what there is)")
    else:
        table.add_row("fits the host", f"{_yes(plan.host <= host_memory)}: {need}, of {_gib(host_memory)}")
    cached = f", {_gib(plan.cached)} of it kept for strategies" if plan.cached else ""
    disk = f"{_gib(plan.disk)} GiB for at most {plan.checkpoints} checkpoints, model and rows{cached}"
    table.add_row("fits the disk", f"{_yes(plan.disk <= plan.free_disk)}: {disk}, of {_gib(plan.free_disk)} free here")
    if plan.supported:
        often = f"training.save_every={plan.save_every}"
        if plan.save_every >= plan.steps:
            often = "longer than the run, and after each experience one is saved anyway"
        table.add_row(
            "checkpoints",
            f"{_gib(plan.checkpoint)} GiB, {duration(plan.writing)} to write at {plan.write_speed / 1e9:g} GB/s; best "
            f"every {duration(plan.interval)} (Daly): {often}",
        )
    return table


def _yes(fits: bool) -> str:
    return "yes" if fits else "no"


def _suggestions(plan: Estimate) -> Iterator[RenderableType]:
    if plan.fits:
        return
    table, found = _pairs(), list(_ways_out(plan))
    for what, better in found:
        outcome = "fits" if better.fits else "still too much"
        table.add_row("try", f"{_gib(better.peak)} GiB, {outcome}: {what}")
    if not any(better.fits for _, better in found):
        table.add_row("", "None of these fits: a smaller model, shorter rows, or a GPU with more memory is needed.")
    yield Text()
    yield table


def _ways_out(plan: Estimate) -> Iterator[tuple[str, Estimate]]:
    """Changes, each on top of those before, until it fits."""
    changes: dict[str, object] = {}
    for key, value in _changes(plan):
        if getattr(plan.config.training, key) == value or (key == "precision" and plan.supported):
            continue
        changes[key] = value
        better = _changed(plan, changes, plan.ranks)
        yield " ".join(f"training.{name}={str(now).lower()}" for name, now in changes.items()), better
        if better.fits:
            return
    for factor in (2, 4, 8, 16):
        better = _changed(plan, changes, plan.ranks * factor)
        if better.fits or factor == 16:
            yield f"the same with --gpus {plan.ranks * factor}", better
            return


def _changes(plan: Estimate) -> Iterator[tuple[str, object]]:
    yield "precision", "bf16" if "bf16" in plan.gpu.peaks else "fp16"
    yield "activation_checkpointing", True
    yield "reduce_gradients", "micro_batch"
    yield "micro_batch_size", 1
    yield "cpu_offload", True


def _changed(plan: Estimate, changes: dict[str, object], ranks: int) -> Estimate:
    config: ExperimentConfig = plan.config.model_copy(
        update={"training": plan.config.training.model_copy(update=changes)}
    )
    return Estimate(
        config=config,
        gpu=plan.gpu,
        ranks=ranks,
        utilisation=plan.utilisation,
        per_node=plan.per_node,
        write_speed=plan.write_speed,
        given=plan.given,
    )


def _gib(value: float) -> str:
    amount = value / GIB
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.2f}" if amount >= 0.01 else f"{amount:.1g}"


def _time(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds > 2 * 86400 else duration(seconds)
