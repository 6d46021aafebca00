"""How fast and how well text is searched: the index, MB/s of the searches, memory, and what changed words hide.

    python benchmarks/cleaning.py FOLDER [--megabytes 100]

FOLDER holds real data as experiments/real-data.yaml reads them. Speed: its texts, over and over, from one process,
reading the file and cutting it into units included; the peer is Python's own JSON reader alone on the same file, since
nothing that reads text can be faster. Recall: real questions, of whose stems every n-th unit on average is another.
Prints Markdown tables.
"""

import argparse
import json
import random
import re
import resource
import tempfile
import time
from itertools import count
from pathlib import Path

import numpy as np

from clmed.config import ExperimentConfig, SourceConfig, resolve
from clmed.data import sources
from clmed.data.contamination import HALF, Asked, N, QuestionIndex
from clmed.data.duplicates import find_duplicates
from clmed.data.scanning import batches, record_text
from clmed.data.units import units
from clmed.evaluation.contamination import asked, whole_exams
from clmed.validation import load

TEXT = SourceConfig(path="texts.jsonl", format="text")
UNIT, CHANGED = re.compile(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+"), " changed "
LANGUAGES = {"Chinese": ["doctors", "exam", "instructions_zh"], "English": ["encyclopedia", "web", "instructions_en"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    config = load("experiments/real-data.yaml", [f"data_root={options.folder}"])
    start = time.perf_counter()
    questions = asked(whole_exams(config))
    read = time.perf_counter() - start
    index = QuestionIndex(questions)
    index_seconds = time.perf_counter() - start - read
    grams = len(index.stem_grams.keys) + len(index.option_grams.keys)
    print(f"{len(questions):,} questions read in {read:.1f} s; {grams:,} 13-grams indexed in {index_seconds:.1f} s\n")
    with tempfile.TemporaryDirectory() as folder:
        print("| text | reading JSON | questions | duplicates | memory grows by |\n|---|---:|---:|---:|---:|")
        for language, names in LANGUAGES.items():
            print(speed(language, write(config, names, Path(folder), options.megabytes), index))
    print("\n| benchmark | stems | every n-th unit changed | touched | held |\n|---|---:|---:|---:|---:|")
    for benchmark in dict.fromkeys(question.benchmark for question in questions):
        for row in recall([question for question in questions if question.benchmark == benchmark]):
            print(row)


def write(config: ExperimentConfig, names: list[str], folder: Path, megabytes: int) -> Path:
    """A file of `megabytes` with the texts of some sources, over and over, each time with another first word."""
    texts = []
    for name in names:
        source = config.data[name]
        for _, record in sources.records(source, resolve(config, source.path)):
            texts.append(record_text(record, sources.columns(source)))
    path = folder / "texts.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for turn in count():
            for number, text in enumerate(texts):
                file.write(json.dumps({"text": f"{turn} {number} {text}"}, ensure_ascii=False) + "\n")
            if file.tell() > megabytes * 1_000_000:
                break
    return path


def speed(language: str, path: Path, index: QuestionIndex) -> str:
    """A row: MB/s of each, and how far the largest memory of the process rises above what it is now."""
    size = path.stat().st_size / 1e6

    def read() -> None:
        for line in path.open(encoding="utf-8"):
            json.loads(line)

    def search() -> None:
        for batch in batches(TEXT, path):
            index.search(batch.units)

    def repeat() -> None:
        find_duplicates({"a": batches(TEXT, path)}, path.stat().st_size)

    rates = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for work in (read, search, repeat):
        start = time.perf_counter()
        work()
        rates.append(f"{size / (time.perf_counter() - start):.0f} MB/s")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return f"| {language}, {size:.0f} MB | {' | '.join(rates)} | {grown:.0f} MB |"


def recall(questions: list[Asked]) -> list[str]:
    """Rows: of at most 1,000 stems of at least 13 units, how many are found when some units are others."""
    draw = random.Random(0)
    sizes = np.diff(units([question.stem for question in questions]).bounds)
    long = [question for question, size in zip(questions, sizes, strict=True) if size >= N]
    long = draw.sample(long, min(1000, len(long)))
    index = QuestionIndex(long)
    rows = []
    for every in (None, 40, 20, 10, 5):
        texts = [
            UNIT.sub(lambda unit: CHANGED if every and draw.random() < 1 / every else unit[0], question.stem)  # noqa: B023
            for question in long
        ]
        hits = index.search(units(texts))
        own = hits.text == hits.question
        touched, held = own.sum() / len(long), (own & (hits.share >= HALF)).sum() / len(long)
        rows.append(f"| {questions[0].benchmark} | {len(long):,} | {every or 'none'} | {touched:.0%} | {held:.0%} |")
    return rows


if __name__ == "__main__":
    main()
