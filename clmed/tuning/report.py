"""What a tuning found: default, tuned, and how much the setting matters."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from clmed.config.tuning import RangeConfig
from clmed.results.rundir import RunDirectory
from clmed.results.surface import Interval
from clmed.results.table import tokens_text
from clmed.sweep.summary import numbers
from clmed.tuning.compare import Choice, Contender, Tuning, diverged, shown, test_name

JUDGED = ("method", "setting", "gain", "retention", "gain + retention", "domain tokens", "all tokens", "FLOPs")
MINUS = str.maketrans("-", "−")


def report(tuning: Tuning, choices: Mapping[str, Choice]) -> str:
    """Markdown."""
    config = tuning.config
    seeds = f"{len(config.seeds)} seeds"
    spread = (
        f"mean and 95 % interval over {seeds} (Student's t)" if len(config.seeds) > 1 else "one seed: this run only"
    )
    return "\n".join(
        [
            f"# {config.name}",
            "",
            f"{config.trials} trials a method, the first as in its file, the others a scrambled Halton sequence; every "
            f"run takes {tuning.budget:.3g} FLOPs, by the count of `clmed plan`. Chosen by gain + retention on "
            f"{_names(config.validation)} with seed {config.seed}; judged once on {_names(config.test)}. Points of "
            f"accuracy against the base; {spread}. Tokens and FLOPs as recorded.",
            "",
            _table(
                JUDGED,
                [row for each in tuning.contenders for row in _judged(tuning, each, choices[each.name])],
            ),
            "",
            "## How much the setting matters",
            "",
            "Gain + retention on the validation benchmarks, over the trials of a method.",
            "",
            _table(
                ["method", "as in its file", "lowest", "median", "highest", "diverged"],
                [_sensitivity(each, choices[each.name]) for each in tuning.contenders],
            ),
            "",
            "## Trials",
            "",
            _table(
                ["method", "trial", "setting", "gain + retention"],
                [row for each in tuning.contenders for row in _trials(each, choices[each.name])],
            ),
            "",
            "## Where was looked",
            "",
            _table(
                ["method", "parameter", "range", "source"],
                [
                    [each.name, " ".join(key), _range(where), where.source]
                    for each in tuning.contenders
                    for key, where in each.space.items()
                ],
            ),
            "",
        ]
    )


def _judged(tuning: Tuning, contender: Contender, choice: Choice) -> Iterator[list[str]]:
    for trial in dict.fromkeys((0, choice.trial)):
        every = [tuning.test.path / test_name(contender, trial, seed) for seed in tuning.config.seeds]
        runs = [numbers(RunDirectory(path).results()) for path in every if not diverged(RunDirectory(path))]
        setting = "default" if trial == 0 else f"tuned: {shown(contender.tried[trial])}"
        setting += " (and chosen)" if choice.trial == 0 else ""
        if len(runs) < len(every):
            told = f"diverged with {len(every) - len(runs)} of {len(every)} seeds"
            yield [contender.name, setting, told, *[""] * (len(JUDGED) - 3)]
            continue
        gain = np.array([100 * run["gain"] for run in runs])
        retention = np.array([100 * run["retention"] for run in runs])
        yield [
            contender.name,
            setting,
            *map(_points, (gain, retention, gain + retention)),
            tokens_text(statistics.fmean(run["tokens"] for run in runs)),
            tokens_text(statistics.fmean(run["all_tokens"] for run in runs)),
            f"{statistics.fmean(run['flops'] for run in runs):.3g}",
        ]


def _sensitivity(contender: Contender, choice: Choice) -> list[str]:
    found = [100 * score for score in choice.scores if math.isfinite(score)]
    values = (100 * choice.scores[0], min(found), statistics.median(found), max(found))
    return [contender.name, *map(_signed, values), str(len(choice.scores) - len(found))]


def _trials(contender: Contender, choice: Choice) -> Iterator[list[str]]:
    for number, (setting, score) in enumerate(zip(contender.tried, choice.scores, strict=True)):
        mark = " (chosen)" if number == choice.trial else ""
        yield [contender.name, str(number), shown(setting), _signed(100 * score) + mark]


def _points(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> str:
    if len(values) == 1:
        return _signed(float(values[0]))
    found = Interval.over_seeds(values)
    return f"{_signed(float(found.mean))} [{_signed(float(found.low))}, {_signed(float(found.high))}]"


def _signed(value: float) -> str:
    return f"{value:+.1f}".translate(MINUS) if math.isfinite(value) else "diverged"


def _range(where: RangeConfig) -> str:
    if where.choices:
        return ", ".join(map(str, where.choices))
    return f"{where.low:g} to {where.high:g}" + (" (log)" if where.scale == "log" else "")


def _names(evaluation: object) -> str:
    benchmarks = [*evaluation.gain, *evaluation.retention]  # type: ignore[attr-defined]
    return ", ".join(benchmark.label for benchmark in benchmarks)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)])
