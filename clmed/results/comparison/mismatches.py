"""Why two runs are no fair comparison: other shots, other templates, other budgets."""

from typing import Any

from clmed.results.differences import differences
from clmed.results.fronts import is_trivial
from clmed.results.runs import Run
from clmed.results.table import tokens_text

NEARLY = 0.01  # budgets end at whole rows
# What of a benchmark's settings makes its template.
TEMPLATE = ("benchmark", "perplexity", "scoring", "columns", "of", "longer_than")


def mismatches(run: Run, reference: Run) -> list[str]:
    """In words, nothing for a fair comparison. Benchmarks that only one of them measured do not count."""
    found = []
    for name in run.scores.keys() & reference.scores.keys():
        own, other = (next(iter(each.scores[name].values())) for each in (run, reference))
        for key in ("shots", "metric"):
            if own.get(key) != other.get(key):
                found.append(f"{name}: {key} {own.get(key)}, not {other.get(key)}")
        theirs, ours = _template(reference, name), _template(run, name)
        if theirs and ours and theirs != ours:
            found += [f"{name}: {change}" for change in differences(theirs, ours)]
    return sorted(found) + _budget(run, reference)


def _template(run: Run, name: str) -> dict[str, Any]:
    evaluation = run.config.get("evaluation") or {}
    for entry in [*(evaluation.get("gain") or []), *(evaluation.get("retention") or [])]:
        label = entry.get("name") or entry.get("benchmark") or f"{entry.get('perplexity')}_perplexity"
        if label == name:
            return {key: entry.get(key) for key in TEMPLATE}
    return {}


def _asked_for(run: Run) -> list[tuple[Any, Any]]:
    """The budgets in the configuration: tokens and epochs of each experience."""
    return [(each.get("tokens"), each.get("epochs")) for each in run.config.get("stream") or []]


def _last_steps(run: Run) -> int:
    """Tokens by which its experiences may have ended late."""
    return int((run.config.get("training") or {}).get("tokens_per_step") or 0) * len(run.stream)


def _budget(run: Run, reference: Run) -> list[str]:
    """Domain tokens or all tokens must agree, of equal budgets but for their last steps: a budget ends within one.

    A run that is not complete has not had its own yet.

    The trivial front holds runs that are stopped early on purpose: less than the reference is no mismatch of theirs.
    """
    if not run.ended or not reference.ended:
        return []
    own, other = run.end, reference.end
    amounts = [(own.get(key, 0), other.get(key, 0)) for key in ("tokens", "all_tokens")]
    steps = max(_last_steps(run), _last_steps(reference)) if _asked_for(run) == _asked_for(reference) else 0
    if any(abs(one - two) <= max(NEARLY * max(one, two), steps) for one, two in amounts):
        return []
    if is_trivial(run.config) and own["tokens"] < other["tokens"]:
        return []
    return [f"budget {tokens_text(own['tokens'])} domain tokens, not {tokens_text(other['tokens'])}"]
