"""Search spaces: the published ones, and the settings that are tried in them."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from clmed import catalogue, yamlfile
from clmed.complaints import did_you_mean
from clmed.config.tuning import RangeConfig
from clmed.errors import UserError

RATE = "learning_rate"
FACTOR = "factor"
Space = dict[tuple[str, str], RangeConfig]  # (strategy or RATE, parameter) -> where
Setting = Mapping[tuple[str, str], Any]
DEFAULT: Setting = {}  # the file's own


@cache
def published() -> dict[str, dict[str, RangeConfig]]:
    """By strategy and parameter."""
    tree = yamlfile.read(Path(__file__).with_name("spaces.yaml"))
    return TypeAdapter(dict[str, dict[str, RangeConfig]]).validate_python(tree.data)


def space_of(strategies: Sequence[str], own: Mapping[str, Mapping[str, RangeConfig]]) -> Space:
    """What is looked for where these strategies are used: the learning rate, and their parameters.

    own: spaces that stand in place of the published ones. A strategy whose space has a `learning_rate` (low-rank
    adapters) has this factor for all learning rates, not the common one. UserError for a strategy with none, or a
    parameter it lacks.
    """
    found: Space = {}
    for name in (RATE, *strategies):
        ranges = own.get(name, published().get(name))
        if ranges is None and name not in ("naive", "frozen", "joint"):
            raise UserError(
                f"no search space is known for '{name}': give one under spaces, such as "
                f"{name}: {{strength: {{low: 0.1, high: 10, scale: log, source: …}}}}, or {name}: {{}} for none."
            )
        known = [FACTOR] if name == RATE else [*catalogue.find(name).parameters, RATE]
        for parameter, where in (ranges or {}).items():
            if parameter not in known:
                raise UserError(f"spaces.{name}: no parameter '{parameter}'{did_you_mean(parameter, known)}")
            found[(RATE, FACTOR) if parameter == RATE else (name, parameter)] = where
    return found


def settings(space: Space, trials: int, seed: int) -> list[Setting]:
    """The file's own setting first, then trials - 1 points of a scrambled Halton sequence, which fill the space evenly.

    Equal arguments give equal settings; more trials begin with the same ones. Source: Halton, 1960; scrambling: Owen,
    2017, arXiv 1706.02808 (scipy.stats.qmc).
    """
    if trials == 1 or not space:
        return [DEFAULT] * trials
    from scipy.stats import qmc

    points = qmc.Halton(len(space), scramble=True, rng=seed).random(trials - 1)
    return [
        DEFAULT,
        *({key: _value(where, u) for (key, where), u in zip(space.items(), point, strict=True)} for point in points),
    ]


def _value(where: RangeConfig, u: float) -> Any:
    """The value at u in [0, 1) of a range, rounded to three digits: nobody means the others."""
    if where.choices:
        return where.choices[int(u * len(where.choices))]
    assert where.low is not None and where.high is not None
    if where.whole:
        return int(where.low + u * (where.high + 1 - where.low))
    between = where.low + u * (where.high - where.low)
    if where.scale == "log":
        between = where.low * (where.high / where.low) ** u
    return float(f"{between:.3g}")
