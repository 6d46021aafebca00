"""A small controlled case of forgetting: a pico model learns general text, then medicine by one method or another."""

from typing import Any

from clmed.training.sharding import World
from tests.small import make_trainer, small_config

UNMEASURED: dict[str, Any] = {"gain": [], "retention": []}
MEASURED = {"gain": [{"perplexity": "medical"}], "retention": [{"perplexity": "english"}]}
GENERAL = [{"name": "general", "data": "english", "tokens": 60_000, "optimizer": {"lr": 1e-2, "warmup": 0.1}}]


def losses_after_medicine(
    methods: dict[str, Any], make_model: Any, tokenizer: Any, lr: float = 5e-3, tokens: int = 20_000
) -> dict[str, dict[str, float]]:
    """The losses on held-out general and medical text, of the base and after medicine by each of the methods."""
    trainer = _general(make_model(4), tokenizer)
    known, found = trainer.model.state_dict(), {"base": _losses(trainer)}
    medicine = [{"name": "medicine", "data": "medical", "tokens": tokens, "optimizer": {"lr": lr, "warmup": 0.1}}]
    for name, method in methods.items():
        model = make_model(4)
        model.load_state_dict(known)
        trainer = make_trainer(small_config(method, stream=medicine, evaluation=MEASURED), model, tokenizer, World())
        trainer.train(trainer.stream)
        found[name] = _losses(trainer)
    return found


def losses_after_two(
    methods: dict[str, Any],
    make_model: Any,
    tokenizer: Any,
    *,
    sources: tuple[str, str],
    tokens: tuple[int, int],
    lr: float,
    seed: int = 4,
) -> dict[str, tuple[list[float], list[float]]]:
    """By method the losses on each of two sources: before an experience with each, after the first, after both."""
    optimizer = {"lr": lr, "warmup": 0.1}
    stream = [
        {"name": name, "data": name, "tokens": amount, "optimizer": optimizer}
        for name, amount in zip(sources, tokens, strict=True)
    ]
    evaluation = {"gain": [{"perplexity": name} for name in sources], "retention": []}
    known, found = _general(make_model(seed), tokenizer).model.state_dict(), {}
    for name, method in methods.items():
        model = make_model(seed)
        model.load_state_dict(known)
        trainer = make_trainer(small_config(method, stream=stream, evaluation=evaluation), model, tokenizer, World())
        trainer.train(trainer.stream)
        measured = trainer.evaluator.get_all_metrics()
        first, second = (measured[f"{source}_perplexity/all/nats_per_token"][1] for source in sources)
        found[name] = (first, second)
    return found


def _general(model: Any, tokenizer: Any) -> Any:
    """The trainer of a model that has learnt general text."""
    trainer = make_trainer(small_config({}, stream=GENERAL, evaluation=MEASURED), model, tokenizer, World())
    trainer.train(trainer.stream)
    return trainer


def _losses(trainer: Any) -> dict[str, float]:
    """Nats per held-out token, as last measured."""
    measured = trainer.evaluator.get_all_metrics()
    return {
        name: measured[f"{source}_perplexity/all/nats_per_token"][1][-1]
        for name, source in (("general", "english"), ("medical", "medical"))
    }
