"""The model card of an exported model: where it comes from, what it was trained on, what it gained and what it lost."""

from collections.abc import Mapping, Sequence
from typing import Any

from clmed.quantities import quantity
from clmed.results.metrics import Rows, as_shown, lower_is_better, primary, primary_metric
from clmed.results.points import Point
from clmed.results.table import tokens_text


def model_card(config: Mapping[str, Any], rows: Rows, points: Sequence[Point], tokens: int, place: str) -> str:
    """Markdown with the front matter of the Hugging Face hub.

    config, rows: of the run; points: measured until the model was saved, after `tokens` domain tokens; place: the run.
    """
    base = config["model"].get("path")
    front = ["---", "library_name: transformers", *([f"base_model: {base}"] if base else [])]
    front += ["tags:", "- continual-learning", "- clmed", "---"]
    origin = f"`{base}`" if base else "a small Llama that was made from scratch"
    text = [
        *front,
        "",
        f"# {config['name']}",
        "",
        f"{origin[0].upper()}{origin[1:]}, trained on {tokens_text(tokens)} domain tokens by clmed (run `{place}`).",
        "",
        "    from transformers import AutoModelForCausalLM, AutoTokenizer",
        '    model = AutoModelForCausalLM.from_pretrained("this/folder")',
        '    tokenizer = AutoTokenizer.from_pretrained("this/folder")',
        "",
        "## What it was trained on",
        "",
        *_history(config, points, tokens),
        "",
        f"Against forgetting: {_strategies(config) or 'nothing (naive training)'}. Seed {config['seed']}.",
        "",
        "## What it gained and what it lost",
        "",
        *_scores(rows, points, tokens),
        "",
    ]
    return "\n".join(text)


def _history(config: Mapping[str, Any], points: Sequence[Point], tokens: int) -> list[str]:
    settings = {experience["name"]: experience for experience in config["stream"]}
    measured = {point.experience: point for point in points if point.number}  # the last one of each
    lines = ["| experience | data | domain tokens | learning rate |", "|---|---|---:|---:|"]
    start = 0
    for name, point in measured.items():
        lines.append(_experience(name, settings.get(name, {}), point.tokens - start))
        start = point.tokens
    if tokens > start:  # saved between two points
        last = next(reversed(measured.values()), None)
        if last is not None and not last.final:
            lines[-1] = _experience(last.experience, settings.get(last.experience, {}), last.inside + tokens - start)
        else:
            name = next((name for name in settings if name not in measured), "the next one")
            lines.append(_experience(name, settings.get(name, {}), tokens - start))
    return lines


def _experience(name: str, settings: Mapping[str, Any], tokens: int) -> str:
    rate = settings.get("optimizer", {}).get("lr")
    whole = settings.get("tokens")
    of = f" of {tokens_text(quantity(whole))}" if whole and tokens < 0.99 * quantity(whole) else ""
    data = ", ".join(settings.get("data", [])) or "see the run it started from"
    return f"| {name} | {data} | {tokens_text(tokens)}{of} | {f'{rate:g}' if rate else '–'} |"


def _strategies(config: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} ({', '.join(f'{key} {value}' for key, value in parameters.items())})" if parameters else name
        for name, parameters in config["strategy"].items()
    )


def _scores(rows: Rows, points: Sequence[Point], tokens: int) -> list[str]:
    if not points:
        return ["Nothing was measured."]
    last = points[-1]
    when = f"at point {last.number} ({last.name})"
    when += (
        f", {tokens_text(tokens - last.tokens)} domain tokens before this model was saved"
        if tokens > last.tokens
        else ""
    )
    lines = [
        f"Measured {when}. Accuracies in %, changes in percentage points; perplexity in nats per token, where less is",
        "better.",
        "",
        "| benchmark | measured as | base model | this model | change | |",
        "|---|---|---:|---:|---:|---|",
    ]
    roles = {row["benchmark"]: row["role"] for row in rows}
    for benchmark, scores in primary(rows).items():
        if last.number not in scores:
            continue
        metric = primary_metric(rows, benchmark)
        scale, digits = as_shown(metric)
        now, before = scores[last.number], scores.get(0)
        cells = [f"{scale * now:.{digits}f}", "", ""]
        if before is not None:
            change = scale * (now - before)
            cells[1] = f"{change:+.{digits}f}".replace("-", "−")
            if round(change, digits):
                cells[2] = "better" if (change < 0) == lower_is_better(metric) else "worse"
        first = "–" if before is None else f"{scale * before:.{digits}f}"
        lines.append(f"| {benchmark} | {roles[benchmark]} | {first} | {' | '.join(cells)} |")
    return lines
