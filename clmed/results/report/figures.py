"""The figures of the page, each in its section, with a caption and with words for those who cannot see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clmed.errors import UserError
from clmed.results.plots import drawable
from clmed.results.report.drawing import Drawing, inline
from clmed.results.runs import Run


@dataclass(frozen=True, kw_only=True)
class Kind:
    """section: on the page; shows: what it shows, before the names of the runs; table: the caption of the one with its
    numbers; apart: its panels may stand below each other."""

    section: str
    shows: str
    caption: str
    table: str
    apart: bool


KINDS: Mapping[str, Kind] = {
    "forgetting": Kind(
        section="scores",
        shows="Forgetting curves: the score of each benchmark over the domain tokens trained",
        caption="The score of each benchmark over the domain tokens; the dotted line is the base model.",
        table="Every measurement",
        apart=True,
    ),
    "plane": Kind(
        section="scores",
        shows="The plane of gain and retention, a point for each run or strategy",
        caption="Gain and retention at the end: up and to the right is better. The shaded part can be had without a "
        "method; the dashed line is the front of all.",
        table="Gain, retention and cost",
        apart=False,
    ),
    "heatmap": Kind(
        section="categories",
        shows="A heat map of the change by category and subject",
        caption="The change since the base model by category and subject: red is lost, blue is gained.",
        table="Change since the base model",
        apart=True,
    ),
    "training": Kind(
        section="training",
        shows="Training curves: the loss of each source and the learning rate over the domain tokens",
        caption="The loss of each source, and the learning rate.",
        table="Mixture as trained",
        apart=True,
    ),
    "mixture": Kind(
        section="training",
        shows="The share of each source in training over the domain tokens",
        caption="The share of each source in training.",
        table="Mixture as trained",
        apart=True,
    ),
}


def draw(runs: Sequence[Run], labels: Sequence[str]) -> tuple[dict[str, list[Drawing]], list[str]]:
    """Section -> the figures that these runs allow, and what could not be read."""
    found: dict[str, list[Drawing]] = {}
    problems = []
    drawn = [run for run in runs if run.rows]  # of a damaged one the whole scores may be all that can be read
    possible = drawable(drawn) if drawn else {}
    for name, kind in KINDS.items():
        if name not in possible:
            continue
        words = f"{kind.shows}, for {', '.join(labels)}. The numbers are in the table “{kind.table}”."
        try:
            figure = possible[name]()
        except UserError as error:
            problems.append(f"No figure “{name}”: {error}")
            continue
        drawing = inline(figure, name=f"figure-{name}", alternative=words, caption=kind.caption, apart=kind.apart)
        found.setdefault(kind.section, []).append(drawing)
    return found, problems
