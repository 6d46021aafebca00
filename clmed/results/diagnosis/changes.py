"""Changes to try, as YAML to be laid on the run's own configuration: mappings are merged, lists replaced whole."""

from collections.abc import Callable, Sequence
from typing import Any

from clmed import yamlfile
from clmed.config import PAST, ExperimentConfig

SAME_LANGUAGE, ACROSS_LANGUAGES = 0.05, 0.25  # shares of replay: Ibrahim et al. 2024, arXiv 2403.08763
MOST = 0.5
SLOWER = 3


def rehearse(config: ExperimentConfig, general: Sequence[str], *, ratio: float) -> str:
    """Against forgetting: replay; more of it where there is some; without general text, a step back to the old weights
    after each experience; and where that is done, a lower learning rate."""
    name = next((name for name in ("replay", "rewarm", "der") if name in config.strategy), None)
    if name is not None:
        now = float(config.strategy[name].get("ratio", SAME_LANGUAGE))
        return _yaml(strategy={name: {"ratio": min(MOST, max(2 * now, ratio))}}) if now < MOST else slower(config)
    if "interleave" in config.strategy:
        every = int(config.strategy["interleave"].get("every", 4))
        return _yaml(strategy={"interleave": {"every": every // 2}}) if every >= 4 else slower(config)
    if general and "joint" not in config.strategy:
        past = [PAST] if len(config.stream) > 1 else []
        return _yaml(strategy={"replay": {"ratio": ratio, "from": [*general, *past]}})
    if set(config.strategy) <= {"naive"}:
        return _yaml(strategy={"average": {"alpha": 0.5}})
    return slower(config)


def slower(config: ExperimentConfig) -> str:
    """A third of the learning rate in every experience."""

    def change(experience: dict[str, Any]) -> dict[str, Any]:
        optimizer = experience["optimizer"]
        return {**experience, "optimizer": {**optimizer, "lr": float(f"{optimizer['lr'] / SLOWER:.1g}")}}

    return _stream(config, change)


def without(config: ExperimentConfig, sources: Sequence[str]) -> str | None:
    """The stream without these sources; None where nothing would be left of it."""
    left = [{**each, "data": [name for name in each["data"] if name not in sources]} for each in _written(config)]
    left = [experience for experience in left if experience["data"]]
    if not left:
        return None
    left[0]["optimizer"].pop("state", None)  # which carries nothing on where none comes before
    return yamlfile.dump({"stream": left})


def more_data(config: ExperimentConfig, sources: Sequence[str]) -> str:
    """The first experience on further sources, too."""
    first, *rest = _written(config)
    return yamlfile.dump({"stream": [{**first, "data": [*first["data"], *sources]}, *rest]})


def first_learn(config: ExperimentConfig, name: str, sources: Sequence[str]) -> str:
    """Another experience, of one epoch, before all others."""
    stream = _written(config)
    optimizer = {key: value for key, value in stream[0]["optimizer"].items() if key != "state"}
    new = {"name": name, "data": [*sources], "epochs": 1, "optimizer": optimizer}
    return yamlfile.dump({"stream": [new, *stream]})


def measure_text(config: ExperimentConfig, source: str) -> str:
    """The perplexity of a source's held-out text among the gain benchmarks."""
    gain = [each.model_dump(mode="json", exclude_defaults=True) for each in config.evaluation.gain]
    return yamlfile.dump({"evaluation": {"gain": [*gain, {"perplexity": source}]}})


def _stream(config: ExperimentConfig, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    return yamlfile.dump({"stream": [change(experience) for experience in _written(config)]})


def _written(config: ExperimentConfig) -> list[dict[str, Any]]:
    """The stream as somebody would write it, without defaults."""
    return [experience.model_dump(mode="json", exclude_defaults=True) for experience in config.stream]


def _yaml(**sections: Any) -> str:
    return yamlfile.dump(sections)
