"""What a run's files must hold so that they can be read. Each function says what is wrong, or nothing.

A file may have been mended by hand, cut off by a full disk or written by another program: what is read past these
checks needs no further ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clmed.errors import UserError
from clmed.results.rundir import RESULTS, TRAIN, Row, RunDirectory

NO_SCORE = "its point or its score is no number"
_TEXTS = ("benchmark", "category", "metric", "role", "experience")
_NUMBERS = ("tokens", "shots", "questions")
# Of a score: what only some rows have.
_PERHAPS = ("seconds", "all_tokens", "bytes", "flops", "train_seconds", "low", "high")
_MAPPINGS = ("model", "data", "training", "strategy", "evaluation", "watching")


def sound_scores(run: RunDirectory, file: str = RESULTS) -> list[Row]:
    """The rows of results.jsonl (or of VARIANTS). Raises UserError, which names the line, where one is damaged."""
    return _checked(run, file, run.results(file), wrong_score)


def sound_steps(run: RunDirectory) -> list[Row]:
    """Those of train.jsonl, in the same way."""
    return _checked(run, TRAIN, run.training(), wrong_step)


def wrong_score(row: object) -> str:
    """Of a row of results.jsonl. NaN is a score; null, which other programs write for it, is none."""
    if not isinstance(row, dict):
        return "not a JSON object"
    if not isinstance(row.get("point"), int) or not _is_number(row.get("score")):
        return NO_SCORE
    if missing := [key for key in (*_TEXTS, *_NUMBERS, "final") if key not in row]:
        return f"it has no {' and no '.join(missing)}"
    if odd := [key for key in _TEXTS if not isinstance(row[key], str)]:
        return f"its field {odd[0]} is no text"
    if row["role"] not in ("gain", "retention"):
        return "its role is neither gain nor retention"
    if not isinstance(row["final"], bool):
        return "its field final is neither true nor false"
    # A group of tasks that have different shots has none of its own.
    odd = [
        key for key in (*_NUMBERS, *_PERHAPS) if not _is_number(row.get(key, 0)) and (key, row[key]) != ("shots", None)
    ]
    return f"its field {odd[0]} is no number" if odd else ""


def wrong_step(row: Mapping[str, Any]) -> str:
    """Of a row of train.jsonl."""
    if missing := [key for key in ("experience", "tokens") if key not in row]:
        return f"it has no {' and no '.join(missing)}"
    if not isinstance(row["experience"], str):
        return "its field experience is no text"
    odd = [key for key, value in row.items() if key != "experience" and not _is_number(value)]
    return f"its field {odd[0]} is no number" if odd else ""


def wrong_config(config: Mapping[str, Any]) -> str:
    """Of a configuration, in the parts that results are read by; what a run needs is not asked."""
    if not isinstance(config.get("seed", 0), int):
        return "its seed is no whole number"
    if odd := [key for key in _MAPPINGS if not isinstance(config.get(key) or {}, dict)]:
        return f"its {odd[0]} is {config[odd[0]]!r} where settings must stand"
    evaluation = config.get("evaluation") or {}
    lists = {
        "stream": config.get("stream"),
        **{f"evaluation.{key}": evaluation.get(key) for key in ("gain", "retention")},
    }
    for key, value in lists.items():
        if not isinstance(value or [], list) or not all(isinstance(each, dict) for each in value or ()):
            return f"its {key} is no list of settings"
    if not isinstance(evaluation.get("primary") or [], list) or not isinstance(evaluation.get("floors") or {}, dict):
        return "its evaluation.primary is no list, or its evaluation.floors no settings"
    if odd := [key for key, given in (config.get("strategy") or {}).items() if not isinstance(given or {}, dict)]:
        return f"its strategy.{odd[0]} holds no settings"
    return ""


def wrong_source(known: object) -> str:
    """Of a source in sources.json."""
    if not isinstance(known, dict):
        return "not a JSON object"
    if odd := [key for key in ("context_free", "bytes", "tokens") if not _is_number(known.get(key))]:
        return f"its field {odd[0]} is no number"
    rows = [known.get(key) for key in ("nats", "supervised")]
    if not all(isinstance(row, list) and row and all(map(_is_number, row)) for row in rows):
        return "its nats or supervised are no numbers"
    if len(known["nats"]) != len(known["supervised"]) or not sum(known["supervised"]) or not known["tokens"]:
        return "its nats, supervised and tokens do not fit together"
    return "" if isinstance(known.get("scripts"), dict) else "it has no scripts"


def wrong_answers(columns: Mapping[str, Sequence[Any]]) -> str:
    """Of the answers to a benchmark at one point; a score may be missing, and whether a graded answer is correct."""
    values = "nats" if "nats" in columns else "correct" if "correct" in columns else "score"
    if values not in columns:
        return "it has no column correct, score or nats"
    if not columns[values]:
        return "it holds no rows"
    if values == "nats" and "tokens" not in columns:
        return "it has no column tokens"
    may_lack = {"score", "correct"} if "score" in columns else {"score"}
    if holes := [name for name, column in columns.items() if name not in may_lack and None in column]:
        return f"row {columns[holes[0]].index(None) + 1} has nothing in the column {holes[0]}"
    for name in (values, "score", "tokens") if values == "nats" else (values, "score"):
        if not all(value is None or _is_number(value) for value in columns.get(name, ())):
            return f"its column {name} holds something that is no number"
    return ""


def _checked(run: RunDirectory, file: str, rows: list[Row], wrong_with: Callable[[Row], str]) -> list[Row]:
    for number, row in enumerate(rows, start=1):
        if wrong := wrong_with(row):
            raise UserError(f"{run.path / file}, line {number} is damaged ({wrong}); mend or delete this line.")
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))
