"""Cases: the questions of a medical exam that need reasoning over a patient's history.

They are those of MedQA (`of: medqa`, the default), CMExam (`of: cmexam`) or any other exam here whose stem says how old
the patient is and is long: at least `longer_than` characters, 60 in Chinese and 200 in other languages by default. All
else (where the rows are, how they are asked, what is reported) is as in that exam.
"""

import dataclasses
import re
from collections.abc import Mapping

from clmed.complaints import did_you_mean
from clmed.config import BenchmarkConfig
from clmed.data.templates import is_han
from clmed.errors import UserError
from clmed.evaluation.benchmarks.exam import Exam, Item

AGE = re.compile(
    r"[\d一二三四五六七八九十半]\s*(岁|月龄|日龄)|新生儿|\d+[\s-]*(year|month|week|day|hour)s?[\s-]*old|newborn",
    re.IGNORECASE,
)


def cases(config: BenchmarkConfig, exams: Mapping[str, Exam]) -> Exam:
    """The cases among the questions of the exam `config.of`."""
    name = config.of or "medqa"
    if name not in exams:
        raise UserError(f"there is no benchmark '{name}' to take cases of{did_you_mean(name, exams)}")

    def keep(item: Item) -> bool:
        least = config.longer_than or (60 if is_han(item.stem) else 200)
        return len(item.stem) >= least and AGE.search(item.stem) is not None

    return dataclasses.replace(exams[name], name="cases", keep=keep)
