"""The benchmarks by name."""

from collections.abc import Mapping

from clmed.complaints import did_you_mean
from clmed.config import BenchmarkConfig
from clmed.errors import UserError
from clmed.evaluation.benchmarks.cmexam import CMEXAM
from clmed.evaluation.benchmarks.cmmlu import CMMLU
from clmed.evaluation.benchmarks.exam import Exam
from clmed.evaluation.benchmarks.mmlu import MMLU

EXAMS: Mapping[str, Exam] = {exam.name: exam for exam in (CMEXAM, MMLU, CMMLU)}


def find(config: BenchmarkConfig) -> Exam:
    """The description of a configured benchmark. Raises UserError, with the nearest name, when there is none."""
    assert config.benchmark is not None, "a perplexity has no questions"
    if config.benchmark not in EXAMS:
        raise UserError(f"there is no benchmark '{config.benchmark}'{did_you_mean(config.benchmark, EXAMS)}")
    return EXAMS[config.benchmark]
