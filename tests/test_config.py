"""Reading, merging, overriding and checking experiment files: each mistake is told with its file and line."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from clmed import validation
from clmed.config import ExperimentConfig, dump, fingerprint, load, resolve
from clmed.quantities import measurement_tokens
from tests.configs import BASE, complaint, make_folder

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
FOLDERS = ("smollm2", "law", "spanish", "llama2-13b", "chinese-llama2-13b")
STUDIES = [file for folder in FOLDERS for file in (EXPERIMENTS / folder).rglob("*.yaml")]
OTHERS = {EXPERIMENTS / "tuning.yaml", *STUDIES}  # tests/tuning, tests/test_studies.py, tests/test_paper.py


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with good files."""
    return make_folder(tmp_path, monkeypatch)


def test_the_values_of_a_good_file(folder: Path) -> None:
    config = validation.load("base.yaml")
    assert config.training.tokens_per_step == 64_000
    assert config.stream[0].data == ["encyclopedia"]
    assert config.stream[0].optimizer.lr == 2e-5  # YAML 1.1 would read text
    assert config.stream[1].tokens == 2_500_000
    assert config.stream[1].optimizer.betas == (0.9, 0.95)
    assert config.strategy == {} and config.model.build is not None and config.model.build.tokenizer_from == ["general"]
    assert [benchmark.label for benchmark in config.evaluation.retention] == ["mmlu", "general_perplexity"]
    with pytest.raises(ValidationError):
        config.name = "other"


def test_what_is_dumped_loads_again_equal(folder: Path) -> None:
    config = load("base.yaml", ['strategy={ewc: {strength: 1e4, fisher_from: [general], note: "1e4", other: "no"}}'])
    (folder / "again.yaml").write_text(dump(config), encoding="utf-8")
    again = load("again.yaml")
    assert again == config
    assert again.strategy["ewc"] == {"strength": 1e4, "fisher_from": ["general"], "note": "1e4", "other": "no"}
    assert fingerprint(again) == fingerprint(config)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("512", 512),
        ("1_000", 1000),
        ("400k", 400_000),
        ("2.5M", 2_500_000),
        ("1B", 10**9),
        ("1e6", 10**6),
        ("0.5k", 500),
    ],
)
def test_quantities(folder: Path, written: str, number: int) -> None:
    assert load("base.yaml", [f"evaluation.batch_tokens={written}"]).evaluation.batch_tokens == number


@pytest.mark.parametrize("written", ["0", "-1", "1.5", "0.0001k", "400 thousand", "true", "null", "k", "[1]"])
def test_no_quantities(folder: Path, written: str) -> None:
    assert complaint(f"evaluation.batch_tokens={written}").startswith("command line: evaluation.batch_tokens: must be ")


def test_measurement_points() -> None:
    assert measurement_tokens("0.5 epochs", 1000) == 500
    assert measurement_tokens("1 epoch", 1000) == 1000
    assert (
        measurement_tokens("400k", 1000)
        == measurement_tokens("400k tokens", 1)
        == measurement_tokens(400_000, 7)
        == 400e3
    )


def test_seeds_fit_what_draws_from_them(folder: Path) -> None:
    assert validation.load("base.yaml", ["seed=4294967295"]).seed == 2**32 - 1
    assert "seed: must be less than 4294967296" in complaint("seed=4294967296")


def test_a_fingerprint_knows_the_order_of_strategies_only(folder: Path) -> None:
    one, other = (load("base.yaml", [f"strategy={order}"]) for order in ("{replay: , ewc: }", "{ewc: , replay: }"))
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one.training) == fingerprint(one.training.model_copy())
    assert fingerprint({"a": 1, "b": [one.training]}) == fingerprint({"b": [one.training], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint({})) == 16
    with pytest.raises(TypeError):
        fingerprint({"a": object()})


def test_extends_merges_mappings_and_replaces_lists(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/more.yaml").write_text("training: {threads: 2, micro_batch_size: 4}\nseed: 3\n")
    (folder / "sub/child.yaml").write_text(
        "extends: [../base.yaml, more.yaml]\nname: child\n"
        "training: {micro_batch_size: 2}\nevaluation: {retention: []}\n"
    )
    base, child = load("base.yaml"), load("sub/child.yaml")
    assert (child.name, child.seed) == ("child", 3)
    assert child.training == base.training.model_copy(update={"threads": 2, "micro_batch_size": 2})
    assert (child.evaluation.gain, child.evaluation.retention) == (base.evaluation.gain, [])
    assert child.stream == base.stream


def test_extends_knows_the_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "home").mkdir()
    (folder / "home/base.yaml").write_text(BASE.replace("name: base", "name: of-the-home"))
    (folder / "child.yaml").write_text("extends: ~/base.yaml\n")
    monkeypatch.setenv("HOME", str(folder / "home"))
    assert load("child.yaml").name == "of-the-home"


def test_overrides(folder: Path) -> None:
    (folder / "mine.yaml").write_text("extends: base.yaml\nstrategy: {my.py:Mine: {strength: 1}}\n")
    config = load(
        "mine.yaml",
        [
            "seed=1",
            "stream.0.epochs=4",
            "stream.tuning.optimizer.lr=1e-4",
            "strategy.my.py:Mine.strength=2",
            "strategy.replay.from=[general]",
            "evaluation.retention=[]",
            "model.build.pretrain=null",
        ],
    )
    assert config.seed == 1
    assert [experience.epochs for experience in config.stream] == [4, None]
    assert config.stream[1].optimizer.lr == 1e-4
    assert config.strategy == {"my.py:Mine": {"strength": 2}, "replay": {"from": ["general"]}}
    assert config.evaluation.retention == [] and config.model.build and config.model.build.pretrain is None


@pytest.mark.parametrize("override", ["seed", "=1", "a..b=1", "seed=", ".seed=1"])
def test_an_override_of_another_form(folder: Path, override: str) -> None:
    assert "is not of the form key=value" in complaint(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", "command line: unknown key 'sed'; did you mean 'seed'?"),
        (
            "training.sequence_lenght=8",
            "command line: unknown key 'sequence_lenght' in training; did you mean 'sequence_le",
        ),
        ("stream.0.optimizer.speed=1", "command line: unknown key 'speed' in stream[0].optimizer (known: lr, "),
        ("seed.x=1", 'command line: seed: must be a whole number, not {"x": 1}'),
        ("name.x=1", "name is 'base', which has no keys"),
        ("stream.tunning.epochs=1", "stream has no item 'tunning'; did you mean 'tuning'?"),
        ("seed=[1", "command line: 'seed=[1': malformed YAML: "),
        ("extends=base.yaml", "command line: unknown key 'extends'"),
    ],
)
def test_an_override_that_goes_nowhere(folder: Path, override: str, message: str) -> None:
    assert message in complaint(override)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    epochs: 3", "    epoch: 3", "unknown key 'epoch' in stream[0]; did you mean 'epochs'?"),
        ("encyclopedia.jsonl, format", "encyclopedia.jsonl, fromat", "unknown key 'fromat' in data.encyclopedia; did"),
        ("  - name: tuning", "  - title: tuning", "the key 'name' is missing in stream[1]"),
        ("{lr: 1.0e-5}", "{warmup: 0.1}", "the key 'lr' is missing in stream[1].optimizer"),
        ("{lr: 1.0e-5}", "{lr: fast}", 'stream[1].optimizer.lr: must be a number, not "fast"'),
        ("{lr: 1.0e-5}", "{lr: '1e-5'}", "stream[1].optimizer.lr: must be a number"),
        ("{lr: 1.0e-5}", "{lr: 0}", "stream[1].optimizer.lr: must be greater than 0, not 0"),
        ("{lr: 1.0e-5}", "{lr: .inf}", "stream[1].optimizer.lr: must be a finite number"),
        ("threads: 1}", "threads: yes}", "training.threads: must be a whole number, not true"),
        ("threads: 1}", "precision: bf61}", "did you mean 'bf16'?"),
        ("name: base", "name: 2024", "name: must be text, not 2024 (put it in quotes)"),
        ("name: base", "name: ../base", "name: must be letters, digits,"),
        ("heads: 4,", "heads: 4, seed: -1,", "model.build.seed: must be greater than or equal to 0"),
        ("training: {", "training: 3 #", "training: must be a section"),
        ("    epochs: 3", "    epochs: 0", "stream[0].epochs: must be greater than 0"),
        ("    tokens: 2.5M", "    tokens: 0", "stream[1].tokens: must be greater than 0"),
        ("- name: tuning", "- epochs: 1\n    name: tuning", "stream[1]: give either epochs or tokens, not both"),
        ("data: [exam]", "name: again", "malformed YAML: the key 'name' is written twice (first in line 16)"),
        ("data: [exam]", "data: [exams]", "stream[1].data: no source 'exams' in data; did you mean 'exam'?"),
        ("data: [exam]", "data: []", "stream[1].data: must be not empty"),
        ("data: [exam]", "data: [exam, exam]", "data names a source twice"),
        ("- name: tuning", "- name: pretraining", "another experience has the name 'pretraining'"),
        ("400k]", "4 epochs]", "measure_at '4 epochs' comes after the end, which is at 3.0 epochs"),
        ("400k]", "soon]", "stream[0].measure_at[2]: must be tokens ('400k') or epochs"),
        ("tokenizer_from: general", "tokenizer_from: [genral]", "no source 'genral' in data; did you mean 'general'?"),
        ("vocabulary: 1k", "vocabulary: 257", "vocabulary (257) must be at least 258: 256 bytes and two special tok"),
        ("heads: 4,", "heads: 5,", "hidden_size must be an even multiple of heads"),
        ("{perplexity: general}", "{perplexity: general, shots: 5}", "shots is for exams, not for perplexity"),
        ("shots: 5}", "shots: 5, scoring: text, format_check: true}", "format_check is for answers by letter, and"),
        ("{perplexity: general}", "{perplexity: wiki}", "no source 'wiki' in data (known: encyclopedia, gen"),
        ("{perplexity: general}", "{benchmark: mmlu}", "another benchmark has the name 'mmlu' already"),
        ("benchmark: mmlu", "benchmark: mmul", "did you mean 'mmlu'?"),
        ("benchmark: cmexam", "shots: 2, benchmark: cmexam", "shots of cmexam need shots_from"),
        ("benchmark: cmexam", "subset: a, benchmark: cmexam", "subset: is for hub data sets, but exams/test.csv"),
        ("benchmark: cmexam", "split: val, benchmark: cmexam", "split: is for hub data sets, but exams/test.csv"),
        ("benchmark: cmexam", "of: medqa, benchmark: cmexam", "of is for cases"),
        ("benchmark: cmexam", "columns: {answer: key}, benchmark: cmexam", "columns is for multiple_choice"),
        ("benchmark: cmexam", "benchmark: cases, of: cmexan", "to take cases of; did you mean 'cmexam'?"),
        ("benchmark: cmexam", "benchmark: multiple_choice, columns: {answers: key}", "did you mean 'answer'?"),
        ("cmexam, path: exams/test.csv", "multiple_choice", "multiple_choice has no hub id of its own"),
        ("cmexam, path: exams/test.csv", "pubmedqa, path: exams", "needs a folder with ori_pqal.json in it"),
        ("cmexam, path: exams/test.csv", "ceval, path: mmlu, shots: 5", "ceval needs a folder with val/ in it"),
        ("format: text}", "format: text, heldout: 0.5, fisher: 0.5}", "leave nothing to train on"),
        ("format: text}", "format: text, target: answer_then_explanation}", "target is for the format exam"),
        ("tokens_per_step: 64k", "tokens_per_step: 100", "multiple of sequence_length (64), such as 64 or 128"),
        ("{sequence_length: 64, t", "{sequence_length: 250, t", "(250) is more than model.build.context (128)"),
        ("  general: {path", "  past: {path", "the name 'past' means the data of past experiences"),
        ("data_root: .", "data_root: ]", "malformed YAML: "),
        ("data_root: .", "data_root: a: b", "malformed YAML: mapping values are not allowed here"),
        ("data_root: .", "\tdata_root: .", "malformed YAML: "),
        ("data_root: .", "data_root: !!python/name:os.system", "malformed YAML: could not determine a constructor"),
        ("  exam: {path", "  no: {path", "the key 'no' is read as False, not as text: put it in quotes"),
        ("data_root: .", "data_root: nowhere", "data_root: no folder 'nowhere'"),
        ("encyclopedia.jsonl", "encyclopaedia.jsonl", "data.encyclopedia.path: no file or folder 'encyclopae"),
        ("path: general.jsonl", "path: mmlu", "is a folder: name one file of it"),
        ("path: general.jsonl", "path: base.yaml", "data.general.path: base.yaml: unknown kind of file '.yaml'"),
        ("path: general.jsonl", "subset: en, path: general.jsonl", "data.general.subset is for hub data sets"),
        ("path: exams/test.csv", "path: exams/tests.csv", "did you mean 'test.csv'?"),
        ("path: exams/test.csv", "path: ./exams", "cmexam needs one file"),
        ("path: mmlu, shots", "path: ./exams, shots", "mmlu needs a folder with test/ in it"),
        ("exams/train.csv", "./exams/../exams/test.csv", "data.exam leaks questions of the benchmark 'cmexam'"),
        ("path: general.jsonl", "path: mmlu/test/a.csv", "data.general leaks questions of the benchmark 'mmlu'"),
        ("benchmark: cmexam", "shots: 1, shots_from: exams/test.csv, benchmark: cmexam", "own test file"),
        ("strategy:", "strategy: {rehearsal: }", "no strategy 'rehearsal'"),
        ("strategy:", "strategy: [replay]", "strategy: must be a section"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_file_and_line(folder: Path, old: str, new: str, message: str) -> None:
    """The same mistake in the file itself and in the parent of one that extends it."""
    assert old in BASE
    text = BASE.replace(old, new, 1)
    (folder / "base.yaml").write_text(text, encoding="utf-8")
    (folder / "child.yaml").write_text("# a child\n\nextends: base.yaml\nseed: 1\n", encoding="utf-8")
    told = complaint()
    assert message in told
    assert complaint(file="child.yaml") == told
    line = next(line for line in told.splitlines() if message in line)
    # The line of the mistake itself, or, when a whole section is wrong, that of the section just above.
    number = int(line.removeprefix("base.yaml, line ").partition(":")[0])
    assert 0 <= BASE.count("\n", 0, BASE.index(old)) + 1 - number <= 3


@pytest.mark.parametrize(
    ("old", "new", "number"),
    [
        ("    epochs: 3", "    epoch: 3", 13),
        ("data: [exam]", "data:\n    - exam\n    - exams", 19),
        ("{perplexity: general}", "{perplexity: general,\n       shots: x}", 26),
        ("threads: 1}", "\n  threads: 0}", 27),
        ("encyclopedia.jsonl", "x.csv", 7),
        ("strategy:", "strategy:\n  replay:\n    from: [general]\n    ratio: much", 23),
        ("strategy:", "strategy:\n  replay:\n    from:\n    - general\n    - wiki", 24),
    ],
)
def test_the_very_line(folder: Path, old: str, new: str, number: int) -> None:
    (folder / "base.yaml").write_text(BASE.replace(old, new, 1), encoding="utf-8")
    assert f"base.yaml, line {number}: " in complaint()


def test_several_mistakes_one_a_line(folder: Path) -> None:
    (folder / "child.yaml").write_text("extends: base.yaml\nnmae: child\ntraining:\n  threads: many\n")
    assert complaint("seed=-1", file="child.yaml").splitlines() == [
        "command line: seed: must be greater than or equal to 0, not -1",
        'child.yaml, line 4: training.threads: must be a whole number, not "many"',
        "child.yaml, line 2: unknown key 'nmae'; did you mean 'name'?",
    ]


def test_a_list_of_the_child_hides_the_lines_of_the_parent(folder: Path) -> None:
    (folder / "child.yaml").write_text("extends: base.yaml\nstream: [{name: a, data: exam, optimizer: {lr: 1}}]\n")
    assert complaint(file="child.yaml") == "child.yaml, line 2: stream[0]: give either epochs or tokens"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml: is empty, but a configuration is a mapping"),
        ("- a\n", "x.yaml: holds a list"),
        ("a: 1\n\nb: &b [*b]\n", "x.yaml, line 3: malformed YAML: an alias that contains itself"),
        ("a: " + "[" * 99 + "]" * 99, "x.yaml: the key 'name' is missing"),
        ("a: " + "[" * 100 + "]" * 100, "x.yaml, line 1: malformed YAML: nested too deeply"),
        ("a: " + "[" * 9999 + "]" * 9999, "x.yaml, line 1: malformed YAML: nested too deeply"),
        ("a: 1\nb: \x07\n", "x.yaml, line 2: malformed YAML: special characters are not allowed"),
        ("a: 1\n---\nb: 1\n", "x.yaml, line 2: malformed YAML: but found another document"),
        ("name: x\nextends: y.yaml\n", "x.yaml, line 2: extends 'y.yaml', but there is no such file"),
        ("extends: 3\n", "x.yaml, line 1: extends must be the name of a file"),
        (
            "extends: base.yaml\nextends: base.yaml\n",
            "x.yaml, line 2: malformed YAML: the key 'extends' is written twice",
        ),
        ("extends: x.yaml\n", "x.yaml, line 1: extends goes in a circle: x.yaml -> x.yaml"),
        ("extends: z.yaml\n", "z.yaml, line 2: extends goes in a circle: x.yaml -> z.yaml -> x.yaml"),
    ],
)
def test_files_that_cannot_be_read(folder: Path, text: str, message: str) -> None:
    (folder / "x.yaml").write_text(text)
    (folder / "z.yaml").write_text("name: z\nextends: ./x.yaml\n")
    assert complaint(file="x.yaml").startswith(message)


def test_files_that_are_none(folder: Path) -> None:
    assert complaint(file="missing.yaml") == "missing.yaml: no such file"
    assert "cannot be read" in complaint(file="exams")
    (folder / "latin.yaml").write_bytes("name: Müller".encode("latin-1"))
    assert "cannot be read as UTF-8" in complaint(file="latin.yaml")


def test_anchors_and_merge_keys(folder: Path) -> None:
    text = BASE.replace("{lr: 2e-5, warmup: 0}", "&x {lr: 1, warmup: 0}").replace("{lr: 1.0e-5}", "{<<: *x, lr: 2}")
    (folder / "base.yaml").write_text(text)
    config = load("base.yaml")
    assert (config.stream[1].optimizer.lr, config.stream[1].optimizer.warmup) == (2, 0)
    assert config.stream[0].optimizer.lr == 1


def test_local_paths_and_hub_ids(folder: Path) -> None:
    config = load("base.yaml")
    assert resolve(config, "mmlu") == Path("mmlu")
    assert resolve(config, "owner/name") is None
    assert resolve(config, "owner/name.csv") == Path("owner/name.csv")
    assert resolve(config, "./owner/name") == Path("owner/name")
    assert resolve(config, "/owner/name") == Path("/owner/name")
    assert resolve(config, "a/b/c") == Path("a/b/c")
    (folder / "owner/name").mkdir(parents=True)
    assert resolve(config, "owner/name") == Path("owner/name")


def test_places_that_cannot_be_looked_at(folder: Path) -> None:
    assert "cannot look at xxx" in complaint(f"data_root={'x' * 5000}")
    assert "data_root: no folder '~nobody-at-all/x'" in complaint("data_root=~nobody-at-all/x")
    assert complaint("data_root=miniworld-x").startswith("command line: data_root: 'miniworld-x' is no MiniWorld")


def test_a_model_is_a_hub_id_or_a_folder_that_is_there(folder: Path) -> None:
    text = BASE[: BASE.index("model:")] + "model: {path: gpt2}\n" + BASE[BASE.index("\ndata:") :]
    (folder / "base.yaml").write_text(text)
    for path in ("gpt2", "meta-llama/Llama-2-13b-hf", "./mmlu"):
        validation.load("base.yaml", [f"model.path={path}"])
    assert "model.path: no folder './llama'" in complaint("model.path=./llama")
    assert "no file 'x.gguf' in mmlu" in complaint("model={path: mmlu, gguf_file: x.gguf}")
    assert "give either path or build" in complaint("model={}")


def test_the_schema_imports_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys, clmed.cli, clmed.validation\n"
        "clmed.validation.load('base.yaml', ['strategy.replay.from=[general]'])\n"
        "print([name for name in ('torch', 'avalanche', 'transformers', 'datasets', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "file", sorted(set(EXPERIMENTS.rglob("*.yaml")) - OTHERS), ids=lambda file: str(file.relative_to(EXPERIMENTS))
)
def test_the_experiments_that_come_with_clmed(file: Path, request: pytest.FixtureRequest) -> None:
    config = load(file)
    if not config.data_root.startswith("miniworld"):
        config = load(file, [f"data_root={request.getfixturevalue('real_data')}"])
    validation.check(config)


def test_a_config_made_in_python_is_checked_too(folder: Path) -> None:
    data = load("base.yaml").model_dump()
    assert ExperimentConfig.model_validate(data) == load("base.yaml")
    data["stream"][0]["data"] = ["nothing"]
    with pytest.raises(ValidationError, match="no source 'nothing'"):
        ExperimentConfig.model_validate(data)
