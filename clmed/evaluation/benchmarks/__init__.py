"""Benchmarks as their authors publish them, local or on the hub -> questions. One module describes one family.

A new benchmark is one `Exam` (see exam.py) in a module of its own, and its name in `EXAMS`. docs/benchmarks.md lists
them, the formats that they read, and what is done with odd rows.
"""

from clmed.evaluation.benchmarks.exam import Benchmark, Exam, Question
from clmed.evaluation.benchmarks.loading import load_benchmark
from clmed.evaluation.benchmarks.registry import EXAMS, find

__all__ = ["EXAMS", "Benchmark", "Exam", "Question", "find", "load_benchmark"]
