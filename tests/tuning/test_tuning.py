"""`clmed tune`: the same trials and the same compute for each method, chosen by validation, judged by the test."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from clmed import catalogue
from clmed.config import ExperimentConfig, dump, load
from clmed.config.tuning import RangeConfig, load_tuning
from clmed.errors import UserError
from clmed.results.rundir import RunDirectory
from clmed.sweep import running
from clmed.tuning.budget import at_budget, flops, scaled
from clmed.tuning.compare import Tuning, shown, tune
from clmed.tuning.report import report
from clmed.tuning.spaces import RATE, published, settings, space_of
from tests.command import TINY, in_process

GEOGRAPHY = ["synthetic_geography_covered", "synthetic_geography_uncovered"]
EXAM = {"benchmark": "cmexam", "scoring": "text"}
MMLU = {"benchmark": "mmlu", "path": "mmlu", "scoring": "text"}
TUNING: dict[str, Any] = {
    "name": "two",
    "experiments": ["plain.yaml", "rehearsing.yaml"],
    "trials": 3,
    "seeds": [1, 2],
    "validation": {
        "gain": [EXAM | {"path": "cmexam/synthetic_val.csv"}],
        "retention": [MMLU | {"only": GEOGRAPHY}],
    },
    "test": {
        "gain": [EXAM | {"path": "cmexam/synthetic_test.csv"}],
        "retention": [MMLU | {"without": GEOGRAPHY}],
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two experiments and a tuning of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "POLL", 0)
    for name, strategy in (("plain", {}), ("rehearsing", TINY["strategy"])):
        text = yaml.safe_dump(TINY | {"name": name, "strategy": strategy}, sort_keys=False)
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    write(TUNING)
    return tmp_path


def write(tuning: dict[str, Any]) -> None:
    Path("tuning.yaml").write_text(yaml.safe_dump(tuning, sort_keys=False), encoding="utf-8")


def make(*overrides: str) -> Tuning:
    file = Path("tuning.yaml")
    return Tuning(load_tuning(file, overrides), file, Path("out"))


class Invented:
    """In place of runs: results that are best at a third of the learning rate, and for replay above all."""

    most, outlive = 1, False

    def __init__(self, *, diverges: str = "", fails: str = "") -> None:
        self.started: list[str] = []
        self.diverges, self.fails = diverges, fails

    def start(self, experiment: Path, run: Path, log: Path) -> "Invented":
        config = load(experiment)
        self.started.append(run.name)
        self.code = 0
        if run.name == self.fails:
            self.code = 9
            return self
        made = RunDirectory.create(run, dump(config), {}, overwrite=True)
        rate = config.stream[0].optimizer.lr / TINY["stream"][0]["optimizer"]["lr"]
        change = 0.2 - abs(math.log(3 * rate)) / 10 + (0.1 if config.strategy else 0) + config.seed / 1000
        for point in (0, 1):
            costs = {"tokens": 6000 * point, "all_tokens": 8000 * point, "flops": 1e9 * point, "train_seconds": 1.0}
            rows = [
                costs
                | {"point": point, "experience": "end", "final": True, "role": role, "benchmark": benchmark.label}
                | {"category": "all", "metric": "accuracy", "score": 0.5 + point * share * change, "questions": 20}
                for role, share in (("gain", 1.0), ("retention", -0.25))
                for benchmark in getattr(config.evaluation, role)
            ]
            made.add_results(rows)
        if run.name == self.diverges:
            (made.checkpoints / "last-good").mkdir(parents=True)
            made.set_status("stopped", "the loss is nan")
            self.code = 2
        else:
            made.set_status("complete")
        return self

    def poll(self) -> int:
        return self.code

    def stop(self) -> None: ...

    def kill(self) -> None: ...


def test_every_method_has_the_same_trials_and_the_same_compute(folder: Path) -> None:
    tuning = make()
    assert [point.name for point in tuning.points] == [
        *("plain-0", "plain-1", "plain-2", "rehearsing-0", "rehearsing-1", "rehearsing-2")
    ]
    plain = load("plain.yaml")
    assert tuning.budget == flops(plain)
    for point in tuning.points:
        assert flops(point.config) == pytest.approx(tuning.budget, rel=1e-3), point.name
        assert point.config.seed == 0 and point.config.evaluation == tuning.config.validation
    configs = {point.name: point.config for point in tuning.points}
    # The first is the file's own; replay pays for its quarter with tokens of the domain.
    assert configs["plain-0"].stream[0].tokens == 4000 and configs["rehearsing-0"].stream[0].tokens == 3000
    assert configs["rehearsing-0"].strategy == TINY["strategy"]
    ratios = [configs[f"rehearsing-{n}"].strategy["replay"]["ratio"] for n in (1, 2)]
    rates = [configs[f"plain-{n}"].stream[1].optimizer.lr for n in (1, 2)]
    assert all(0.01 <= ratio <= 0.5 for ratio in ratios) and len(set(ratios)) == 2
    assert all(1e-4 <= rate <= 1e-3 for rate in rates) and len(set(rates)) == 2


def test_the_best_by_validation_is_judged_once_beside_the_default(folder: Path) -> None:
    tuning, jobs = make(), Invented()
    choices = tune(tuning, jobs, lambda text: None)
    assert choices is not None
    for name, choice in choices.items():
        assert choice.scores[choice.trial] == max(choice.scores) and len(choice.scores) == 3
        assert choice.trial > 0, f"{name}: a smaller learning rate is better in this world"
    tests = [name for name in jobs.started if "seed=" in name]
    assert tests == [
        f"{name}-{kind},seed={seed}"
        for name in ("plain", "rehearsing")
        for kind in ("default", "tuned")
        for seed in (1, 2)
    ]
    for name in tests:
        config = ExperimentConfig.model_validate(RunDirectory(Path("out/test") / name).config())
        assert config.evaluation == tuning.config.test and config.seed == int(name[-1])
    text = report(tuning, choices)
    judged = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith(("| plain | d", "| plain | t"))]
    assert [setting.partition(":")[0] for _, setting in judged] == ["default", "tuned"]
    assert "arXiv 2403.08763" in text and text.count("(chosen)") == 2
    # Once more: nothing is left to do.
    again = Invented()
    assert tune(make(), again, lambda text: None) == choices and again.started == []


def test_a_trial_that_diverges_is_an_outcome_and_is_not_repeated(folder: Path) -> None:
    jobs, said = Invented(diverges="plain-1"), list[str]()
    choices = tune(make(), jobs, said.append)
    assert choices is not None and choices["plain"].scores[1] == -math.inf and choices["plain"].trial != 1
    again = Invented()
    assert tune(make(), again, said.append) == choices and again.started == []
    assert "| plain | 1 |" in report(make(), choices) and "diverged |" in report(make(), choices)


def test_a_run_of_the_test_that_diverges_is_told(folder: Path) -> None:
    choices = tune(make(), Invented(diverges="plain-default,seed=2"), lambda text: None)
    assert choices is not None
    assert "| plain | default | diverged with 1 of 2 seeds |" in report(make(), choices)
    again = Invented()
    assert tune(make(), again, lambda text: None) == choices and again.started == []


def test_a_method_all_of_whose_trials_diverge(folder: Path) -> None:
    with pytest.raises(UserError, match="every trial of plain diverged"):
        tune(make("trials=1", "experiments=[plain.yaml]"), Invented(diverges="plain-0"), lambda text: None)


def test_nothing_is_chosen_while_a_trial_failed(folder: Path) -> None:
    said: list[str] = []
    assert tune(make(), Invented(fails="rehearsing-2"), said.append) is None
    assert (
        "nothing is chosen yet" in said[-1] and not Path("out/choice.json").exists() and not Path("out/test").exists()
    )
    again = Invented()
    assert tune(make(), again, said.append) is not None and again.started[0] == "rehearsing-2"


def test_a_default_that_is_best_is_run_once(folder: Path) -> None:
    jobs = Invented()
    choices = tune(make("trials=1"), jobs, lambda text: None)
    assert choices is not None and {choice.trial for choice in choices.values()} == {0}
    assert [name for name in jobs.started if "seed=" in name] == [
        f"{name}-default,seed={seed}" for name in ("plain", "rehearsing") for seed in (1, 2)
    ]
    assert "default (and chosen)" in report(make("trials=1"), choices)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trails": 4}, "unknown key 'trails'; did you mean 'trials'?"),
        ({"trials": 0}, "trials"),
        ({"seeds": [0, 1]}, "chosen with seed 0"),
        ({"seeds": [1, 1]}, "names a seed twice"),
        ({"experiments": ["plain.yaml", "nowhere.yaml"]}, "nowhere.yaml: no such file"),
        ({"experiments": ["plain.yaml", "plain.yaml"]}, "have the name 'plain'"),
        ({"experiments": ["plain.yaml", "longer.yaml"]}, "in more than its strategies: stream.0.tokens"),
        ({"experiments": ["unknown.yaml"]}, "no search space is known for 'agem'"),
        ({"spaces": {"replay": {"ration": {"choices": [1], "source": "me"}}}}, "did you mean 'ratio'?"),
        ({"spaces": {"replay": {"ratio": {"low": 0.5, "high": 0.1, "source": "me"}}}}, "the lower first"),
        ({"flops": 1.0}, "more than the budget"),
        ({"test": TUNING["validation"]}, "validation and test ask the same"),
        ({"test": TUNING["test"] | {"retention": [MMLU]}}, "of 'mmlu' in 'mmlu'"),
        ({"test": TUNING["test"] | {"retention": [{"perplexity": "english"}]}}, "test.retention needs an exam"),
    ],
)
def test_mistakes_are_told_before_any_work(folder: Path, changes: dict[str, Any], words: str) -> None:
    longer = TINY | {"name": "longer", "stream": [TINY["stream"][0] | {"tokens": 5000}, TINY["stream"][1]]}
    Path("longer.yaml").write_text(yaml.safe_dump(longer), encoding="utf-8")
    unknown = TINY | {"name": "unknown", "strategy": {"agem": {"from": ["english"]}}}
    Path("unknown.yaml").write_text(yaml.safe_dump(unknown), encoding="utf-8")
    write(TUNING | changes)
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        make()
    assert not Path("out").exists()


def test_the_same_text_may_not_choose_and_judge(folder: Path) -> None:
    both = {part: TUNING[part] | {"retention": [*TUNING[part]["retention"], {"perplexity": "english"}]}
            for part in ("validation", "test")}  # fmt: skip
    write(TUNING | both)
    with pytest.raises(UserError, match="1 of 'english_perplexity' in 'english_perplexity'"):
        make()


def test_a_folder_of_another_tuning(folder: Path) -> None:
    assert tune(make(), Invented(), lambda text: None) is not None
    with pytest.raises(UserError, match=r"belongs to a sweep of another experiment: tuning\.trials"):
        tune(make("trials=2"), Invented(), lambda text: None)


def test_the_tuning_that_comes_with_clmed(tmp_path: Path) -> None:
    file = Path(__file__).parent.parent.parent / "experiments" / "tuning.yaml"
    tuning = Tuning(load_tuning(file), file, tmp_path / "out")
    assert [each.name for each in tuning.contenders] == ["naive", "replay", "ewc", "der", "lora"] and len(
        tuning.points
    ) == 20
    costs = [flops(point.config) / tuning.budget for point in tuning.points]
    assert max(costs) == pytest.approx(1, rel=1e-4) == min(costs)


def test_the_command_tells_mistakes(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    in_process(capfd, "tune", "nowhere.yaml").is_mistake("nowhere.yaml: no such file")
    in_process(capfd, "tune", "tuning.yaml", "trials=x").is_mistake("trials: must be a whole number")


def test_published_spaces_are_of_parameters_that_exist_and_say_where_they_come_from() -> None:
    for name, ranges in published().items():
        if name != RATE:
            assert set(ranges) <= {*catalogue.find(name).parameters, RATE}, name
        for where in ranges.values():
            assert "arXiv" in where.source or "ours" in where.source


def test_a_setting_is_said_in_short_numbers() -> None:
    setting = {("ewc", "strength"): 10600000000.0, (RATE, "factor"): 0.3}
    assert shown(setting) == "strength 1.06e+10, learning rate × 0.3"
    assert shown({("der", "memory"): 4000}) == "memory 4000"


def test_trials_fill_the_space_and_more_begin_with_the_same_ones() -> None:
    space = {
        ("s", "log"): RangeConfig(low=0.01, high=100.0, scale="log", source="test"),
        ("s", "whole"): RangeConfig(low=1.0, high=4.0, whole=True, source="test"),
        ("s", "choice"): RangeConfig(choices=["a", "b"], source="test"),
    }
    tried = settings(space, 65, seed=3)
    assert tried[0] == {} and tried[:9] == settings(space, 9, seed=3) and tried[1:] != settings(space, 65, seed=4)[1:]
    logs = [each["s", "log"] for each in tried[1:]]
    # Of 64 points 16 in each quarter of the logarithm, but for one or two.
    quarters = [sum(int((math.log10(value) + 2) // 1) == quarter for value in logs) for quarter in range(4)]
    assert all(14 <= count <= 18 for count in quarters), quarters
    assert {each["s", "whole"] for each in tried[1:]} == {1, 2, 3, 4}
    assert {each["s", "choice"] for each in tried[1:]} == {"a", "b"}
    assert settings({}, 3, seed=0) == [{}, {}, {}]
    assert list(space_of(["naive"], {})) == [(RATE, "factor")]
    assert space_of(["ewc"], {})[RATE, "factor"].high == 1
    low_rank = space_of(["lora"], {})  # wants higher rates than full training, so it brings a factor of its own
    assert set(low_rank) == {(RATE, "factor"), ("lora", "rank")} and low_rank[RATE, "factor"].high == 30


def test_a_budget_is_met_whatever_a_method_adds(folder: Path) -> None:
    base = load("plain.yaml")
    budget = flops(base)
    assert at_budget(base, budget).stream[0].tokens == 4000
    assert at_budget(base, budget / 2).stream[0].tokens == pytest.approx(2000, abs=2)
    for strategy in ({"replay": {"ratio": 0.5, "from": ["english"]}}, {"distill": {}}, {"lora": {"rank": 4}}):
        config = base.model_copy(update={"strategy": strategy})
        assert flops(at_budget(config, budget)) == pytest.approx(budget, rel=1e-3), strategy
    assert [each.measure_at for each in scaled(base, 0.5).stream] == [[], []]
