"""Which strategies can stand beside each other, in which order, and with which stream: what they declare, compared."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from clmed.catalogue import StrategyInfo
from clmed.complaints import Loc, Problem, dotted
from clmed.config import ExperienceConfig, ExperimentConfig


def problems(config: ExperimentConfig, strategies: Sequence[StrategyInfo]) -> Iterator[Problem]:
    """What cannot be. strategies: those of the configuration that could be read, in its order."""
    joined = any(info.declared.joins for info in strategies)
    experiences = config.stream[:1] if joined else config.stream  # one, with the settings of the first
    for first, second in combinations(strategies, 2):
        if (reason := _impossible(first, second, len(experiences))) is not None:
            yield ("strategy", second.name), reason
        else:
            yield from _two_parts(config, first, second)
    for info in strategies:
        yield from _other_optimizers(experiences, info)
        yield from _not_trained(config, info)
        for name in set(info.declared.makes) & set(config.data):
            yield ("data", name), f"the name '{name}' means what strategy '{info.name}' makes: choose another"


def _impossible(first: StrategyInfo, second: StrategyInfo, experiences: int) -> str | None:
    """Why the second cannot stand after the first, and the way out."""
    one, two = first.declared, second.declared
    for info, other in ((first, second), (second, first)):
        if info.declared.alone:
            nothing = f"so that '{other.name}' beside it has no effect"
            return f"strategy '{info.name}' {info.declared.alone}, {nothing}: leave one of them out"
    if both := set(one.decides) & set(two.decides):
        return f"strategies '{first.name}' and '{second.name}' both decide {min(both)}: choose one of them"
    if second.name in one.follows:
        order = "strategies act in the order in which they stand"
        return f"strategy '{first.name}' must come after '{second.name}' ({order}): put '{second.name}' before it"
    for info, other in ((first, second), (second, first)):
        if other.declared.adapters and info.declared.averages:
            means = f"but '{other.name}' trains two factors of them, of which the product counts"
            return f"strategy '{info.name}' puts together old and new weights, {means}: leave one of them out"
        if other.declared.adapters and info.declared.across and experiences > 1:
            means = f"but '{other.name}' trains others in each: leave one of them out, or train one experience"
            return f"strategy '{info.name}' compares weights of one experience with those of the next, {means}"
    return None


def _two_parts(config: ExperimentConfig, first: StrategyInfo, second: StrategyInfo) -> Iterator[Problem]:
    """Sources that would be trained on in two ways."""
    one, two = first.declared.gives, second.declared.gives
    if one and two and one != two:
        taken = _sources(config, first.name, "from").values()
        for at, source in _sources(config, second.name, "from").items():
            if source in taken:
                both = f"'{first.name}' gives '{source}' {one}, so '{second.name}' cannot give it {two}"
                yield at, f"{dotted(at)}: {both}: name it in one of them"


def _other_optimizers(experiences: Sequence[ExperienceConfig], info: StrategyInfo) -> Iterator[Problem]:
    """Settings of an experience that a strategy cannot do with."""
    for index, experience in enumerate(experiences):
        # Moments of weights that are trained no more, or no longer there, cannot be carried on.
        for key, wanted in [*info.declared.optimizer, *([("state", "reset")] if info.declared.adapts else [])]:
            value = getattr(experience.optimizer, key)
            if value != wanted:
                at = ("stream", index, "optimizer", key)
                yield (
                    at,
                    f"{dotted(at)} is {value}; strategy '{info.name}' needs {wanted}: write `{key}: {wanted}` there",
                )


def _not_trained(config: ExperimentConfig, info: StrategyInfo) -> Iterator[Problem]:
    """Sources that a strategy wants to be trained on, by experiences or by others, and no other names."""
    trained = {name for experience in config.stream for name in experience.data}
    for key in info.declared.in_stream:
        for at, source in _sources(config, info.name, key).items():
            if source not in trained:
                known = ", ".join(name for name in config.data if name in trained)
                yield at, f"{dotted(at)}: no experience trains '{source}': name one of those that are ({known})"
    others = [name for name in config.strategy if name != info.name]
    trained |= {source for other in others for source in _sources(config, other, "from").values()}
    for key in info.declared.rehearsed:
        for at, source in _sources(config, info.name, key).items():
            if source not in trained:
                yield at, f"{dotted(at)}: nothing trains '{source}': put it into `from` of a `replay` beside this"


def _sources(config: ExperimentConfig, strategy: str, key: str) -> dict[Loc, str]:
    """The sources that a parameter of a strategy lists, and where."""
    listed = config.strategy[strategy].get(key)
    named = enumerate(listed if isinstance(listed, list) else [])
    return {("strategy", strategy, key, index): name for index, name in named if name in config.data}
