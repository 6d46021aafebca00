"""Mistakes of the user: one paragraph that names the place, exit code 2, and nothing left that looks like a run."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clmed.results.rundir import RunDirectory
from tests.command import Done, files, in_process, write_tiny

Run = Callable[..., Done]
ROWS = "text\n" + "".join(f"The capital of Norland number {n} is Karo.\n" for n in range(200))


@pytest.fixture
def run(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Run:
    """run("key=value", …) -> `clmed run tiny.yaml -o run key=value …`; one cache for all of these tests."""
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    return lambda *overrides: in_process(capfd, "run", "tiny.yaml", "-o", "run", *overrides)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.medical.path=nowhere.csv", "no file or folder 'nowhere.csv'"),
        ("data.medical.format=txt", "data.medical.format"),
        ("strategy={replai: {}}", "no strategy 'replai'; did you mean 'replay'?"),
        ("strategy.replay.ration=0.5", "'ration'"),
        ("strategy.replay.ratio=much", "ratio"),
        ("strategy.replay.from=[englisch]", "no source 'englisch' in data; did you mean 'english'?"),
        ("evaluation.gain.0.benchmark=mmul", "evaluation.gain[0].benchmark"),
        ("strategy={freeze: {}}", "freeze: the model has 2 layers, so at most 1 can be frozen"),
        ("strategy={block_expansion: {every: 3}}", "the model has 2 blocks, so `every` can be 2 at most"),
        ("stream.0.tokens=0", "stream[0].tokens"),
        ("stream.0.data=[medicine]", "'medicine'"),
        ("training={sequence_length: 1024, tokens_per_step: 1024}", "context"),
        ("training.tokens_per_step=1000", "such as 960 or 1024"),
        ("data.english.heldout=0", "perplexity of 'english' needs held-out text"),
    ],
)
def test_mistakes_of_the_configuration(run: Run, override: str, words: str) -> None:
    run(override).is_mistake(words)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", "", "holds no records"),
        ("only-a-header.csv", "text\n", "holds no records"),
        ("blank.jsonl", '{"text": ""}\n' * 3, "(3 records have no text)"),
        ("row.csv", ROWS + "one,two\n" + ROWS, ", line 202: 2 cells where the header has 1"),
        ("quote.csv", ROWS + '"open\n', "the row that begins on line 202 is malformed"),
        ("column.csv", ROWS.replace("text", "texts", 1), "there is no column 'text'; there are 'texts'"),
        ("line.jsonl", '{"text": "A."}\n{"text": \n', ", line 2: malformed JSON"),
        ("latin.csv", ROWS.encode() + "Süden\n".encode("latin-1"), ", line 202: not UTF-8"),
        ("letters.parquet", "no Parquet at all", "cannot be read as Parquet"),
        ("notes.docx", ROWS, "unknown kind of file '.docx'"),
    ],
)
def test_mistakes_in_the_data(run: Run, name: str, content: str | bytes, words: str) -> None:
    file = Path(name).absolute()
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run(f"data.medical.path={file}", "model.build.tokenizer_from=[english]")
    done.is_mistake(str(file), words)
    assert not Path("run").exists()


def test_a_file_that_cannot_be_read(run: Run) -> None:
    """Nobody may read the memory of address 0, root neither."""
    Path("memory.jsonl").symlink_to("/proc/self/mem")
    file = Path("memory.jsonl").absolute()
    run(f"data.medical.path={file}", "model.build.tokenizer_from=[english]").is_mistake(f"cannot read {file}")
    assert not Path("run").exists()


def test_a_malformed_row_of_a_benchmark(run: Run) -> None:
    header = "Question,Options,Answer,Explanation\n"
    Path("exam.csv").write_text(header + 'Which?,"A a\nB b",A,\nWhich?,A a\n')
    run("evaluation.gain.0.path=" + str(Path("exam.csv").absolute())).is_mistake("exam.csv, line 4")
    assert not Path("run").exists()


@pytest.mark.parametrize("shots", ["", ", shots: 2, shots_from: cmexam/synthetic_train.csv"])
def test_a_question_longer_than_the_model_takes(run: Run, shots: str) -> None:
    long = "which word " * 500
    Path("exam.csv").write_text(f'Question,Options,Answer\nWhich?,"A a\nB b",A\n{long},"A a\nB b",A\n')
    done = run(f"evaluation.gain=[{{benchmark: cmexam, path: {Path('exam.csv').absolute()}{shots}}}]")
    done.is_mistake("cmexam: 1 of 2 questions are longer", "512 positions (the first: cmexam, question 2)")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.english.heldout=1e-9"], "data.english: no document"),
        (["strategy={ewc: {fisher_from: [english]}}", "data.english.fisher=0"], "data.english: no document"),
        (["strategy={ewc: {fisher_from: [english]}}", "data.medical.fisher=0"], "data.medical: no document"),
        (["stream.0.epochs=0.5", "stream.0.tokens=null", "stream.0.measure_at=[9M]"], "beyond its end"),
    ],
)
def test_what_only_the_data_show_is_found_before_the_work(run: Run, overrides: list[str], words: str) -> None:
    run(*overrides).is_mistake(words)
    assert not Path("run").exists()


def test_rows_longer_than_a_ready_model_takes(run: Run, make_model: Any, tokenizer: Any) -> None:
    make_model().save_pretrained("model")
    tokenizer.save_pretrained("model")
    done = run("model={path: ./model}", "training={sequence_length: 1024, tokens_per_step: 2048}")
    done.is_mistake("training.sequence_length is 1024, but ./model has only 512 positions")
    assert not Path("run").exists()


def test_a_tokenizer_with_more_tokens_than_the_model(run: Run, make_model: Any, tokenizer: Any) -> None:
    make_model().save_pretrained("model")
    larger = copy.deepcopy(tokenizer)
    larger.add_special_tokens({"pad_token": "<padding>"})
    larger.save_pretrained("model")
    run("model={path: ./model}").is_mistake("(<padding>)", f"embeddings for {len(tokenizer)} only")
    assert not Path("run").exists()


def test_a_folder_that_is_no_model(run: Run) -> None:
    Path("model").mkdir()
    run("model={path: ./model}").is_mistake("./model")
    assert not Path("run").exists()


def test_the_corrected_file_runs_without_overwrite(run: Run) -> None:
    file = Path("corpus.csv").absolute()
    settings = [f"data.medical.path={file}", "model.build.tokenizer_from=[english]", "stream.0.measure_at=[]"]
    file.write_text(ROWS + "one,two\n")
    run(*settings).is_mistake(f"{file}, line 202")
    file.write_text(ROWS)
    assert run(*settings).code == 0
    assert RunDirectory.open(Path("run")).status()["state"] == "complete"


def test_a_mistake_with_overwrite_leaves_the_old_run_alone(run: Run) -> None:
    RunDirectory.create(Path("run"), "name: old\n", {}).add_training({"step": 1})
    before = files(Path("run"))
    Path("empty.jsonl").touch()
    path = Path("empty.jsonl").absolute()
    run(f"data.medical.path={path}", "--overwrite").is_mistake("holds no records")
    assert files(Path("run")) == before


def test_a_folder_of_other_files_is_never_taken(run: Run) -> None:
    Path("run").mkdir()
    Path("run/thesis.tex").write_text("years of work")
    run("--overwrite").is_mistake("run holds files that are not a run (thesis.tex)")
    assert files(Path("run")) == {"thesis.tex": b"years of work"}
