"""The experiences along the axis of tokens: those that the runs of a panel have in common."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from clmed.results.runs import Run

Stream = Mapping[str, int]  # experience -> domain tokens at its end, or so far


def trained(run: Run) -> Stream:
    """Up to the last step, where `run.stream` reaches to the last measurement."""
    steps = {row["experience"]: row["tokens"] for row in run.training}
    return {name: max(tokens, run.stream.get(name, 0)) for name, tokens in (run.stream | steps).items()}


def shared(streams: Sequence[Stream]) -> Stream:
    """The experiences of all runs, each with the furthest of its ends; empty where they are not the same.

    The last step of an experience overshoots its budget, by another amount in every run: it is one end all the same. A
    run that is on its way has the first experiences of the others, `joint` has all at once. An experience is named in
    the middle of its part of the axis, so no run may have left it before.
    """
    names: list[str] = max(map(list, streams), key=len, default=[])
    joint = "+".join(names)
    apart = [stream for stream in streams if len(names) == 1 or joint not in stream]
    if any(list(stream) != names[: len(stream)] for stream in apart):
        return {}
    ends = {name: max(stream[name] for stream in apart if name in stream) for name in names}
    for stream in streams:
        if joint in stream:
            ends[names[-1]] = max(ends[names[-1]], stream[joint])
    start = 0
    for name, following in itertools.pairwise(names):
        gone_on = [stream for stream in apart if following in stream and stream[following] > stream[name]]
        middle = (start + ends[name]) / 2
        if ends[following] <= ends[name] or any(stream[name] <= middle for stream in gone_on):
            return {}
        start = ends[name]
    return ends


def by_panel(panels: Sequence[Sequence[Stream]]) -> list[Stream]:
    """What to name in each panel, from the streams of its runs: in all panels the same if all runs have it in common.

    Runs without common experiences have one without a name, as far as they go.
    """
    every = [stream for streams in panels for stream in streams]
    if whole := shared(every):
        return [whole for _ in panels]
    return [shared(streams) or {"": _furthest(streams)} for streams in panels]


def _furthest(streams: Iterable[Stream]) -> int:
    return max((tokens for stream in streams for tokens in stream.values()), default=0)
