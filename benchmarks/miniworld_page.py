"""The page of MiniWorld's results, from the records of docs/results/miniworld.csv: three tables and a picture."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from measure import markdown, write_part
from miniworld_records import COLUMNS, EXPERIMENTS, NEAR, ROOT, WORLDS, Record

from clmed import catalogue, yamlfile
from clmed.results.fronts import Point, is_beyond, trivial_front
from clmed.results.plots.plane import Spot, draw_spots

PAGE = ROOT / "docs" / "results" / "miniworld.md"
PICTURE = PAGE.with_name("synthetic-miniworld-plane.png")
TOGETHER, FRONT = "several together", "trivial front"
AVERAGED = "naive, averaged with the base"
SHOWN = [("synthetic-cmexam", "all")]
SHOWN += [(exam, part) for exam in ("synthetic-mmlu", "synthetic-cmmlu") for part in ("covered", "uncovered")]
HEADS = ["exam", "mmlu covered", "mmlu uncovered", "cmmlu covered", "cmmlu uncovered"]
COSTS = ["domain tokens", "all tokens", "TFLOP"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What belongs into one line of a table: runs that differ in their seeds."""

    name: str
    family: str
    records: Sequence[Record]

    def mean(self, of: Callable[[Record], float]) -> float:
        return statistics.mean(map(of, self.records))

    def spread(self, of: Callable[[Record], float]) -> str:
        """Mean ± standard deviation, with one digit."""
        values = [of(record) for record in self.records]
        found = f"{statistics.mean(values):.1f}"
        return found if len(values) < 2 else f"{found} ± {statistics.stdev(values):.1f}"

    @property
    def trivial(self) -> bool:
        """Whether it is no method."""
        return self.family == FRONT or self.name in ("naive", "frozen")

    @property
    def point(self) -> Point:
        """(gain, retention): accuracy points of the exam, and of the mean of the two general exams, above the base."""
        return self.mean(lambda record: record.above_base[0]), self.mean(lambda record: record.above_base[1])


def make_page(records: Iterable[Record]) -> None:
    """Write all tables between their marks, and the picture beside the page."""
    records = list(records)
    plain = [record for record in records if record.run.scale == 1]
    here = lines(record for record in plain if record.run.world == WORLDS[0])
    front = trivial_front(line.point for line in here if line.trivial)
    write_part(PAGE, "equal domain tokens", tokens_table(here, front))
    write_part(PAGE, "worlds", worlds_table(plain))
    write_part(PAGE, "equal FLOPs", flops_table(records))
    averages = [line for line in here if line.name.startswith(AVERAGED)]
    spots = [
        Spot(label=line.name, seeds=tuple(r.above_base for r in line.records), trivial=line.trivial)
        for line in here
        if line not in averages
    ]
    draw_spots(spots, [line.point for line in averages]).savefig(PICTURE)


def lines(records: Iterable[Record]) -> list[Line]:
    """A line for each experiment file, and for each α traced between the models of one; families together."""
    found: dict[tuple[str, float | None], list[Record]] = {}
    for record in records:
        if record.alpha is None or record.run.file == "trivial/averaged":
            found.setdefault((record.run.file, record.alpha), []).append(record)
    made = [Line(name=named(*key), family=family(key[0]), records=same) for key, same in found.items()]
    order = [*catalogue.FAMILIES, TOGETHER, FRONT]
    return sorted(made, key=lambda line: (order.index(line.family), line.name != "naive", line.name))


def named(file: str, alpha: float | None) -> str:
    """As a line is called."""
    if file == "trivial/averaged":
        return f"{AVERAGED}, α {0.5 if alpha is None else alpha:g}"
    return file.replace("trivial/", "naive, ").replace("lr-", "lr / ").replace("stopped-early", "stopped early")


def family(file: str) -> str:
    """Of the strategy in an experiment file."""
    if file.startswith("trivial/"):
        return FRONT
    strategies = yamlfile.read(EXPERIMENTS / f"{file}.yaml").data["strategy"]
    return catalogue.find(next(iter(strategies))).family if len(strategies) == 1 else TOGETHER


def score(column: tuple[str, str]) -> Callable[[Record], float]:
    """Of a record, in % at the end."""
    place = COLUMNS.index(column)
    return lambda record: record.end[place]


def costs(line: Line) -> list[str]:
    tokens, every = line.mean(lambda record: record.tokens), line.mean(lambda record: record.all_tokens)
    return [f"{tokens:,.0f}", f"{every:,.0f}", f"{line.mean(lambda record: record.flops) / 1e12:.2f}"]


def tokens_table(found: Sequence[Line], front: Sequence[Point]) -> str:
    """All methods with the token budgets of their files."""
    rows = [["*base*", "", *base(found[0].records[0]), "", "", "0", "0", "0"]]
    for line in found:
        beyond = "" if line.trivial else "yes" if is_beyond(line.point, front) else "no"
        scores = [line.spread(score(column)) for column in SHOWN]
        rows.append([line.name, line.family, *scores, beyond, str(len(line.records)), *costs(line)])
    return markdown(["method", "family", *HEADS, "beyond the trivial front", "runs", *COSTS], rows)


def flops_table(records: Sequence[Record]) -> str:
    """Those whose budgets were scaled to naive training's FLOPs, beside it."""
    here = [record for record in records if record.run.world == WORLDS[0]]
    naive = [record for record in here if record.run.file == "naive"]
    goal = {record.run.seed: record.flops for record in naive}
    scaled = [r for r in here if r.run.scale != 1 and abs(r.flops / goal[r.run.seed] - 1) <= NEAR]  # not the attempts
    if not scaled:
        return "No such run yet."
    rows = []
    for line in lines([*naive, *scaled]):
        scores = [line.spread(score(column)) for column in SHOWN]
        scale = line.mean(lambda record: record.run.scale)
        rows.append([line.name, f"{scale:.2f}", *scores, str(len(line.records)), *costs(line)])
    return markdown(["method", "budgets", *HEADS, "runs", *COSTS], rows)


def worlds_table(records: Sequence[Record]) -> str:
    """The first seed in each world; of the general exams the mean."""
    seed = min(record.run.seed for record in records)
    by_world = {
        world: {line.name: line for line in lines(r for r in records if (r.run.world, r.run.seed) == (world, seed))}
        for world in WORLDS
    }
    by_world = {world: found for world, found in by_world.items() if found}
    if len(by_world) == 1:
        return "No such run yet."
    bases = [three(next(iter(found.values())).records[0].base) for found in by_world.values()]
    rows = [["*base*", *(cell for cells in bases for cell in cells)]]
    for name in by_world[WORLDS[0]]:
        cells = [three(f[name].records[0].end) if name in f else ["", "", ""] for f in by_world.values()]
        rows.append([name, *(cell for group in cells for cell in group)])
    heads = [f"{world}: {column}" for world in by_world for column in ("exam", "covered", "uncovered")]
    return markdown(["method", *heads], rows)


def base(record: Record) -> list[str]:
    return [f"{record.base[COLUMNS.index(column)]:.1f}" for column in SHOWN]


def three(scores: Sequence[float]) -> list[str]:
    """The exam, covered facts, uncovered facts."""
    by: Mapping[tuple[str, str], float] = dict(zip(COLUMNS, scores, strict=True))
    general = [(by["synthetic-mmlu", part] + by["synthetic-cmmlu", part]) / 2 for part in ("covered", "uncovered")]
    return [f"{value:.1f}" for value in (by["synthetic-cmexam", "all"], *general)]
