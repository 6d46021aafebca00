"""Compare runs, or strategies over their seeds, with intervals, corrected tests and the front."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from clmed.errors import UserError
from clmed.results import groups as grouping
from clmed.results.comparison.averages import means
from clmed.results.comparison.basis import Benchmark, basis
from clmed.results.comparison.judge import claimed, judged
from clmed.results.comparison.measure import Measure, Part
from clmed.results.comparison.mismatches import mismatches
from clmed.results.comparison.rows import Cell, Comparison, Row
from clmed.results.differences import differences
from clmed.results.fronts import is_trivial, pareto
from clmed.results.groups import Group
from clmed.results.runs import Run, open_runs
from clmed.results.statistics.verdicts import MARGIN

DRAWS = 4_000
T = TypeVar("T")


class Follow(Protocol):
    """Passes items on, and shows how many are left."""

    def __call__(self, items: Sequence[T], what: str) -> Iterable[T]: ...


def unseen(items: Sequence[T], what: str) -> Iterable[T]:
    """Nobody watches."""
    return items


def compare(
    paths: Sequence[Path | str],
    *,
    by: Literal["run", "strategy"] = "run",
    margin: float = MARGIN,
    allow_mismatch: bool = False,
    follow: Follow = unseen,
) -> Comparison:
    """Put runs side by side; folders of runs stand for what is in them. Raises UserError where there is none, and as
    `compare_runs` does.
    """
    return compare_runs(open_runs(paths), by=by, margin=margin, allow_mismatch=allow_mismatch, follow=follow)


def compare_runs(
    runs: Sequence[Run],
    *,
    by: Literal["run", "strategy"] = "run",
    margin: float = MARGIN,
    allow_mismatch: bool = False,
    follow: Follow = unseen,
) -> Comparison:
    """Put runs side by side.

    by: each run a row, or all seeds of a strategy. margin: a loss of accuracy up to this is retained (0.01: a point).
    follow: shows how reading, then comparing, gets on. Raises UserError for runs with other shots, templates or
    budgets, unless `allow_mismatch`.
    """
    for run in follow(runs, "reading"):
        _ = run.state
    groups = grouping.by_run(runs) if by == "run" else grouping.by_strategy(runs)
    against = grouping.reference(groups)
    wrong = _mismatches(groups, against, allow_mismatch)
    by_what = basis(runs, against)
    known, notes = by_what.known, by_what.notes
    primary = _primary(runs, known)
    measure = Measure(against, DRAWS)
    over = {group.label for group in groups if any(run.ended for run in group.runs)}
    rows, claims = [], []
    for number, group in enumerate(follow(groups, "comparing")):
        parts = {b.name: part for b in known.values() if (part := measure.part(group, b)) is not None}
        whole = means(parts, by_what.averaged)
        rows.append(_row(group, parts, whole, known, primary))
        asked = [f"{name}: no question in common" for name, part in parts.items() if part.apart]
        if asked:
            wrong[group.label] = [*wrong.get(group.label, []), *asked]
        asked_first = {name: parts[name] for name in primary if name in parts}
        comparable = {group.label, against.label} <= over
        claims += claimed(number, group.needed, whole, asked_first, known, margin, comparable)
    rows = [
        replace(row, reference=group is against, mismatches=tuple(wrong.get(group.label, ())))
        for row, group in zip(judged(rows, claims, margin), groups, strict=True)
    ]
    rows = _fronts(rows, groups)
    notes = [*(f"{run.path} {told}" for run in runs for told in (run.told, run.unscored) if told), *notes]
    notes += [f"{row.label}: {'; '.join(row.mismatches)}" for row in rows if row.mismatches]
    notes += _other_models(groups, against) + _not_over(groups, against, over)
    return Comparison(
        by=by,
        margin=margin,
        reference=against.label,
        benchmarks=tuple(known),
        primary=tuple(primary),
        rows=tuple(rows),
        notes=(*notes, *_few_seeds(rows, by)),
    )


def _mismatches(groups: Sequence[Group], against: Group, allowed: bool) -> dict[str, list[str]]:
    first = next((run for run in against.runs if run.whole), None)
    if first is None:
        return {}
    found = {
        group.label: list(dict.fromkeys(why for run in group.runs if run.whole for why in mismatches(run, first)))
        for group in groups
    }
    found = {label: why for label, why in found.items() if why}
    if found and not allowed:
        lines = [f"  {label}: {'; '.join(why[:3])}" for label, why in list(found.items())[:8]]
        more = f"\n  and {len(found) - 8} more" if len(found) > 8 else ""
        raise UserError(
            f"These are no fair comparison with {against.label}, by which all are measured:\n"
            + "\n".join(lines)
            + f"{more}\nLeave them out, or compare them nevertheless, marked, with --allow-mismatch."
        )
    return found


def _primary(runs: Sequence[Run], known: Mapping[str, Benchmark]) -> list[str]:
    """Those that the runs declare (`evaluation.primary`); without that, all."""
    declared = {name for run in runs for name in (run.config.get("evaluation") or {}).get("primary") or []}
    return [name for name in known if name in declared] or list(known)


def _row(
    group: Group,
    parts: Mapping[str, Part],
    whole: Mapping[str, Part],
    known: Mapping[str, Benchmark],
    primary: list[str],
) -> Row:
    """Without what depends on the other rows."""
    overall = {role: part.change.estimate() for role, part in whole.items()}
    ends = [run.end for run in group.counted if run.whole]

    def cost(key: str) -> float | None:
        return sum(row[key] for row in ends) / len(ends) if ends and all(key in row for row in ends) else None

    cells = {
        name: Cell(
            role=known[name].role,
            metric=known[name].metric,
            questions=part.questions,
            primary=name in primary,
            change=part.change.estimate(),
            forgetting=part.forgetting.estimate(),
            difference=None if part.difference is None else part.difference.estimate(),
        )
        for name, part in parts.items()
    }
    return Row(
        label=group.label,
        strategy=grouping.strategy_text(group.strategy),
        runs=tuple(run.path for run in group.counted),
        seeds=tuple(run.seed for run in group.counted),
        needed=group.needed,
        state=group.state,
        trivial=any(run.whole and run.config for run in group.runs) and is_trivial(group.runs[0].config),
        cells=cells,
        gain=overall.get("gain"),
        retention=overall.get("retention"),
        forgetting=whole["retention"].forgetting.estimate() if "retention" in whole else None,
        tokens=cost("tokens"),
        all_tokens=cost("all_tokens"),
        flops=cost("flops"),
        seconds=cost("train_seconds"),
    )


def _fronts(rows: Sequence[Row], groups: Sequence[Group]) -> list[Row]:
    """Mark who is on the front of gain and retention, among complete fair runs, and among the trivial of these."""
    able = [
        index
        for index, (row, group) in enumerate(zip(rows, groups, strict=True))
        if row.gain and row.retention and group.ended and not row.mismatches
    ]
    found = list(rows)
    for index in _front(rows, able):
        found[index] = replace(found[index], on_front=True)
    for index in _front(rows, [index for index in able if rows[index].trivial]):
        found[index] = replace(found[index], on_trivial_front=True)
    return found


def _front(rows: Sequence[Row], members: Sequence[int]) -> list[int]:
    points = [(row.gain.value, row.retention.value) for i in members if (row := rows[i]).gain and row.retention]
    on = pareto([gain for gain, _ in points], [retention for _, retention in points])
    return [index for index, is_on in zip(members, on, strict=True) if is_on]


def _other_models(groups: Sequence[Group], against: Group) -> list[str]:
    """Changes are against a run's own base, so other models are compared, but it is said."""
    model = against.runs[0].config.get("model")
    others = [group for group in groups if group.runs[0].config.get("model", model) != model]
    return [
        f"{group.label} starts from another model than {against.label}: "
        f"{'; '.join(differences(model, group.runs[0].config['model'], 'model')[:2])}"
        for group in others
    ]


def _not_over(groups: Sequence[Group], against: Group, over: Collection[str]) -> list[str]:
    """Nothing is better or worse than what has not had its training, nor is that."""
    if against.label not in over:
        return [f"{against.label}, the reference, is not complete, so nothing is marked"] if len(groups) > 1 else []
    rest = [group.label for group in groups if group.label not in over]
    return [f"not complete, so not marked: {', '.join(rest)}"] if rest else []


def _few_seeds(rows: Sequence[Row], by: str) -> list[str]:
    if by == "run":
        return ["each row speaks of this run only: a statement about a strategy needs several seeds (--by strategy)"]
    few = [f"{row.label} ({len(row.runs)} of {row.needed})" for row in rows if not row.enough]
    notes = [f"too few seeds for a statement about the strategy, so not marked: {', '.join(few)}"] if few else []
    against = next(row for row in rows if row.reference)
    pairs = [(row, len(set(row.seeds) & set(against.seeds))) for row in rows if row.enough and not row.reference]
    if apart := [f"{row.label} ({shared} of {row.needed})" for row, shared in pairs if shared < row.needed]:
        notes.append(f"too few seeds that {against.label} has, too, so not marked: {', '.join(apart)}")
    return notes
