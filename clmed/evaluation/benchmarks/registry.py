"""The benchmarks by name."""

from collections.abc import Callable, Mapping

from clmed.complaints import did_you_mean
from clmed.config import BenchmarkConfig
from clmed.errors import UserError
from clmed.evaluation.benchmarks.cases import cases
from clmed.evaluation.benchmarks.ceval import CEVAL
from clmed.evaluation.benchmarks.cmexam import CMEXAM
from clmed.evaluation.benchmarks.cmmlu import CMMLU
from clmed.evaluation.benchmarks.common_sense import ARC_EASY, PIQA
from clmed.evaluation.benchmarks.exam import Exam
from clmed.evaluation.benchmarks.medmcqa import MEDMCQA
from clmed.evaluation.benchmarks.medqa import MEDQA
from clmed.evaluation.benchmarks.mmlu import MMLU
from clmed.evaluation.benchmarks.own import own
from clmed.evaluation.benchmarks.pubmedqa import PUBMEDQA

EXAMS: Mapping[str, Exam] = {
    exam.name: exam for exam in (CMEXAM, MEDQA, MEDMCQA, PUBMEDQA, MMLU, CMMLU, CEVAL, ARC_EASY, PIQA)
}

# Those whose description depends on the configuration.
MADE: Mapping[str, Callable[[BenchmarkConfig], Exam]] = {
    "cases": lambda config: cases(config, EXAMS),
    "multiple_choice": own,
}


def find(config: BenchmarkConfig) -> Exam:
    """The description of a configured benchmark. Raises UserError, with the nearest name, when there is none."""
    assert config.benchmark is not None, "a perplexity has no questions"
    if config.benchmark in MADE:
        return MADE[config.benchmark](config)
    if config.benchmark not in EXAMS:
        raise UserError(f"there is no benchmark '{config.benchmark}'{did_you_mean(config.benchmark, [*EXAMS, *MADE])}")
    return EXAMS[config.benchmark]
