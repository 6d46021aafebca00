"""What a task asks in one question, to the letter."""

import json
from collections.abc import Callable
from pathlib import Path

from clmed.config import BenchmarkConfig
from clmed.errors import UserError
from clmed.evaluation.harness.suite import read_suite


def show_task(
    config: BenchmarkConfig, local: Path | None, number: int, positions: int, say: Callable[[str], object]
) -> None:
    """Tell it of question `number`, a row of the record counted from 0. Raises UserError where there is none."""
    suite = read_suite(config, local, positions, say)
    questions = suite.questions()
    if number >= len(questions):
        raise UserError(f"{config.label} has {len(questions)} questions; --show counts them from 0.")
    name, row, asked = questions[number]
    say(f"{config.label}, question {number} of {len(questions)}: task {name}, row {row}; {suite.shots(name)} shots")
    before = None
    for instance in asked:
        if instance.args[0] != before:
            before = instance.args[0]
            say(f"----- prompt -----\n{before}\n----- {WHAT[instance.request_type]} -----")
        if len(instance.args) > 1:
            say(json.dumps(instance.args[1], ensure_ascii=False))


WHAT = {
    "loglikelihood": "answers, as they continue it",
    "loglikelihood_rolling": "the probability of all of it",
    "generate_until": "the model goes on, until",
}
