"""`clmed sweep --surface`: gain and forgetting as surfaces over the numbers that a sweep varies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from clmed.errors import UserError
from clmed.quantities import quantity
from clmed.results.files import write_whole
from clmed.results.surface import Array, Best, Factor, Interval, Surface, best
from clmed.results.table import tokens_text
from clmed.sweep.folder import SweepFolder
from clmed.sweep.grid import GridPoint, short_keys
from clmed.sweep.summary import notes, numbers

RESPONSES = {"gain": 1.0, "forgetting": -1.0}  # what each adds to the balance


@dataclass(frozen=True, kw_only=True)
class Varied:
    """The settings of a sweep as numbers: settings x factors, and the seeds that every setting was run with."""

    factors: tuple[Factor, ...]
    settings: Array
    seeds: tuple[str, ...]

    @classmethod
    def of(cls, points: Sequence[GridPoint]) -> "Varied":
        """UserError for values that are no numbers, and where there are too few to fit surfaces to."""
        keys = [key for key in points[0].values if key != "seed"]
        if not keys:
            raise UserError("--surface: only the seed changes from run to run; vary a number, such as stream.0.tokens.")
        rows = dict.fromkeys(tuple(_number(key, point.values[key]) for key in keys) for point in points)
        settings = np.array(list(rows))
        columns = zip(short_keys(keys), settings.T, strict=True)
        factors = tuple(Factor(name=name, values=tuple(np.unique(column).tolist())) for name, column in columns)
        seeds = tuple(dict.fromkeys(point.values.get("seed", "") for point in points))
        found = cls(factors=factors, settings=settings, seeds=seeds)
        Surface.fit(factors, settings, np.zeros((len(seeds), len(settings))))
        return found

    def surfaces(self, folder: SweepFolder, points: Sequence[GridPoint]) -> dict[str, Surface]:
        """Gain and forgetting (retention with the other sign), in points, from runs that are all complete."""
        found = [numbers(folder.run(point).results()) for point in points]
        # The grid is a product, so runs of one seed are in the order of the settings.
        ends = {
            seed: [each for each, point in zip(found, points, strict=True) if point.values.get("seed", "") == seed]
            for seed in self.seeds
        }
        measured = {
            "gain": np.array([[100 * run["gain"] for run in ends[seed]] for seed in self.seeds]),
            "forgetting": np.array([[-100 * run["retention"] for run in ends[seed]] for seed in self.seeds]),
        }
        for name, values in measured.items():
            if np.isnan(values).any():
                why = notes(folder, points) or [f"no accuracy of a benchmark tells {name}; see `evaluation`."]
                raise UserError("\n".join(f"--surface: {line}" for line in why))
        return {name: Surface.fit(self.factors, self.settings, values) for name, values in measured.items()}


def balance(surfaces: Mapping[str, Surface]) -> Best:
    """Where gain minus forgetting is highest."""
    signed = [_times(surfaces[name], sign) for name, sign in RESPONSES.items()]
    return best(signed)


def _times(surface: Surface, sign: float) -> Surface:
    fields = {**vars(surface), "by_seed": sign * surface.by_seed}
    return Surface(**fields)


def report(varied: Varied, surfaces: Mapping[str, Surface]) -> str:
    """The surfaces in Markdown: coefficients, values over the settings, and where the balance is best."""
    factors = varied.factors
    scales = "; ".join(
        f"{factor.name} {_shown(factor.values[0])} to {_shown(factor.values[-1])}"
        + (" (by its logarithm)" if factor.logarithmic else "")
        for factor in factors
    )
    lines = [
        "## Gain and forgetting as surfaces",
        "",
        f"Quadratic surfaces by least squares over {scales}, each as -1 to 1; points of accuracy, with 95 % "
        f"intervals over {len(varied.seeds)} seeds (Student's t, one surface a seed). Forgetting is retention with the "
        "other sign.",
        "",
        _table(["term", *surfaces], _coefficients(surfaces)),
        "",
        "; ".join(
            f"{name}: R² {surface.explained:.2f}, at most {surface.misfit:.1f} points from a setting's mean"
            for name, surface in surfaces.items()
        )
        + ".",
        "",
        _table([*(factor.name for factor in factors), *surfaces], _over_settings(varied, surfaces)),
        "",
        _best(varied, surfaces),
    ]
    return "\n".join(lines) + "\n"


def write(folder: SweepFolder, text: str) -> None:
    """surface.md in the folder of the sweep."""
    write_whole(folder.path / "surface.md", text.encode())


def _coefficients(surfaces: Mapping[str, Surface]) -> list[list[str]]:
    one = next(iter(surfaces.values()))
    found = {name: surface.coefficients for name, surface in surfaces.items()}
    return [
        [one.term_name(term), *(_interval(each, index) for each in found.values())]
        for index, term in enumerate(one.terms)
    ]


def _over_settings(varied: Varied, surfaces: Mapping[str, Surface]) -> list[list[str]]:
    found = [surface.at(varied.settings) for surface in surfaces.values()]
    return [
        [*map(_shown, setting), *(_interval(each, index) for each in found)]
        for index, setting in enumerate(varied.settings.tolist())
    ]


def _best(varied: Varied, surfaces: Mapping[str, Surface]) -> str:
    found = balance(surfaces)
    where = ", ".join(
        f"{factor.name} {_shown(value)} (by seed {_shown(own.min())} to {_shown(own.max())})"
        for factor, value, own in zip(varied.factors, found.setting.tolist(), found.by_seed.T, strict=True)
    )
    there = {name: _interval(surface.at(found.setting[None]), 0) for name, surface in surfaces.items()}
    edge = [
        factor.name
        for factor, value in zip(varied.factors, found.setting.tolist(), strict=True)
        if np.isclose(value, factor.values[0]) or np.isclose(value, factor.values[-1])
    ]
    note = f" It lies at the edge for {', '.join(edge)}: the best may be outside of what was tried." if edge else ""
    values = ", ".join(f"{name} {value}" for name, value in there.items())
    return f"Gain minus forgetting is highest at {where}: {values}.{note}"


def _interval(interval: Interval, index: int) -> str:
    mean, low, high = (float(each[index]) for each in (interval.mean, interval.low, interval.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---:|" * len(heads)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _shown(value: float) -> str:
    return tokens_text(value) if value >= 1000 else f"{value:.3g}"


def _number(key: str, text: str) -> float:
    value: Any = yaml.safe_load(text)
    try:
        value = quantity(value) if isinstance(value, str) else value
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise UserError(f"--surface: {key}={text} is no number; a surface is fitted over numbers and seeds alone.")
