"""Runs side by side: what is measured, what is refused, what is said of unfinished and damaged runs."""

import json
import math
import shutil

import numpy as np
import pytest
from answered import EXAMS, answered_run

from clmed.errors import UserError
from clmed.results import metrics
from clmed.results.comparison import compare, formats
from clmed.results.comparison.basis import Benchmark
from clmed.results.comparison.measure import Curves, _by_draws
from clmed.results.report.summary import sentences
from clmed.results.rundir import RunDirectory
from clmed.results.statistics.paired import paired

REPLAY = {"replay": {"ratio": 0.05}}
SMALL = {"model": {"build": {"layers": 2}}}


@pytest.fixture
def runs(tmp_path):
    """Naive and replay, one seed each; another exam's benchmark is only in one of them."""
    naive = answered_run(tmp_path / "naive", forgets=0.5)
    replay = answered_run(tmp_path / "replay", name="replay", strategy=REPLAY, forgets=0.02)
    return naive, replay


def test_values_are_those_of_the_metrics_and_differences_those_of_a_paired_test(runs):
    found = compare(list(runs))
    naive, replay = found.rows
    for row, path in zip(found.rows, runs, strict=True):
        results = RunDirectory(path).results()
        assert row.gain.value == pytest.approx(metrics.gain(results))
        assert row.retention.value == pytest.approx(metrics.retention(results))
        assert row.forgetting.value == pytest.approx(metrics.mean_forgetting(results))
        for name, cell in row.cells.items():
            scores = metrics.primary(results)[name]
            assert cell.change.value == pytest.approx(scores[2] - scores[0])
            assert cell.forgetting.value == pytest.approx(metrics.forgetting(results)[name])
            assert cell.change.low < cell.change.value < cell.change.high
    assert found.reference == "naive" and naive.reference and naive.cells["mmlu"].difference is None
    answers = [RunDirectory(path).answers(2, "mmlu")["correct"] for path in runs]
    test = paired(*answers)
    cell = replay.cells["mmlu"]
    assert cell.difference.value == pytest.approx(test.difference.value)
    assert cell.difference.low == pytest.approx(test.difference.low, abs=0.01)
    assert cell.mark == "better" and cell.p < 0.01 and test.test.exact < 0.01
    assert naive.verdict.kind == "forgotten" and replay.retention_mark == "better"
    assert (replay.tokens, replay.flops, replay.seconds) == (100_000, 2e9, 10)


def test_a_mean_over_subjects_is_found_out_and_resampled_within_them(tmp_path):
    """Subjects of very unequal size: the score kept is the mean over subjects."""
    exams = {**EXAMS, "cmmlu": ("retention", 0.6, 120, 7)}
    (row,) = compare([answered_run(tmp_path / "run", exams=exams)]).rows
    kept = RunDirectory(tmp_path / "run").answers(2, "cmmlu")
    base = RunDirectory(tmp_path / "run").answers(0, "cmmlu")
    test = paired(base["correct"], kept["correct"], kept["subject"])
    assert row.cells["cmmlu"].change.value == pytest.approx(test.difference.value)
    assert row.cells["cmmlu"].change.low == pytest.approx(test.difference.low, abs=0.012)


def test_a_strategy_is_all_its_seeds_and_pairs_them(tmp_path):
    for seed in range(5):
        answered_run(tmp_path / f"naive-{seed}", seed=seed, config=SMALL, forgets=0.5)
        answered_run(tmp_path / f"r-{seed}", name=f"r-{seed}", seed=seed, strategy=REPLAY, config=SMALL, forgets=0.1)
    found = compare([tmp_path], by="strategy")
    assert [(row.label, row.seeds, row.enough) for row in found.rows] == [
        ("naive", (0, 1, 2, 3, 4), True),
        ("replay (ratio 0.05)", (0, 1, 2, 3, 4), True),
    ]
    replay = found.rows[1]
    scores = [metrics.retention(RunDirectory(tmp_path / f"r-{seed}").results()) for seed in range(5)]
    assert replay.retention.value == pytest.approx(np.mean(scores))
    assert replay.cells["mmlu"].mark == "better" and replay.retention_mark == "better"
    # Other seeds would have given other values: the interval is wider than that of one run's questions.
    one = compare([tmp_path / "r-0"]).rows[0].retention
    assert one.known and replay.retention.known


def test_too_few_seeds_make_no_statement_about_a_strategy(tmp_path):
    for seed in range(2):
        answered_run(tmp_path / f"naive-{seed}", seed=seed, config=SMALL)
        answered_run(tmp_path / f"r-{seed}", name="replay", seed=seed, strategy=REPLAY, config=SMALL, forgets=0.0)
    found = compare([tmp_path], by="strategy")
    assert all(not row.enough and row.verdict is None for row in found.rows)
    assert all(cell.mark == "" and cell.verdict is None for row in found.rows for cell in row.cells.values())
    assert any("too few seeds" in note and "replay (2 of 5)" in note for note in found.notes)
    assert any("this run only" in note for note in compare([tmp_path]).notes)


def test_seeds_that_the_reference_has_not_make_no_pairs_and_that_is_told(tmp_path):
    for seed in range(3):
        answered_run(tmp_path / f"naive-{seed}", seed=seed, forgets=0.5)
        answered_run(tmp_path / f"r-{seed}", name="r", seed=seed + 2, strategy=REPLAY, forgets=0.1)
    found = compare([tmp_path], by="strategy")
    assert all(row.enough and not row.retention_mark for row in found.rows)
    assert "too few seeds that naive has, too, so not marked: r (1 of 3)" in found.notes
    assert not any("more than chance" in sentence for sentence in sentences(found))  # nothing was tested


def test_of_a_strategy_only_complete_runs_count(tmp_path):
    for seed in range(3):
        answered_run(
            tmp_path / f"naive-{seed}", seed=seed, state="complete" if seed else "stopped", points=3 - (not seed)
        )
    (row,) = compare([tmp_path], by="strategy").rows
    assert row.seeds == (1, 2) and row.state == "1 stopped, 2 complete" and not row.enough
    scores = [metrics.gain(RunDirectory(tmp_path / f"naive-{seed}").results()) for seed in (1, 2)]
    assert row.gain.value == pytest.approx(np.mean(scores)) and row.tokens == 100_000


def test_a_run_in_its_first_measurement_spoils_nothing(tmp_path):
    whole = answered_run(tmp_path / "naive")
    begun = answered_run(tmp_path / "begun", name="begun", exams={"exam": EXAMS["exam"]}, points=1, state="running")
    found = compare([whole, begun])
    assert found.rows[0].retention is not None and found.rows[1].gain is None
    assert not any("not measured" in note for note in found.notes)


def test_the_reference_is_the_run_called_naive_before_naive_at_other_rates(tmp_path):
    slow = answered_run(tmp_path / "a", name="trivial-lr-10")
    naive = answered_run(tmp_path / "b", name="naive")
    assert compare([slow, naive]).reference == "naive"
    again = answered_run(tmp_path / "e", name="naive", seed=1)
    assert compare([slow, naive, again]).reference == "naive (seed 0)" and compare([slow]).reference == "trivial-lr-10"
    ewc = answered_run(tmp_path / "c", name="ewc", strategy={"ewc": {}})
    der = answered_run(tmp_path / "d", name="der", strategy={"der": {}})
    assert compare([ewc, der]).reference == "ewc"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shots": 5}, "exam: shots 5, not 0"),
        ({"tokens": 50_000}, "budget 50k domain tokens, not 100k"),
        ({"config": {"evaluation": {"retention": [{"benchmark": "mmlu", "scoring": "letter"}]}}}, "mmlu: scoring"),
    ],
)
def test_other_shots_budgets_and_templates_are_refused_or_marked(tmp_path, change, told):
    config = {"evaluation": {"retention": [{"benchmark": "mmlu", "scoring": "text"}]}}
    first = answered_run(tmp_path / "naive", config=config)
    other = answered_run(tmp_path / "other", **{"name": "replay", "strategy": REPLAY, "config": config, **change})
    with pytest.raises(UserError, match="--allow-mismatch") as error:
        compare([first, other])
    assert told in str(error.value)
    found = compare([first, other], allow_mismatch=True)
    assert told in "; ".join(found.rows[1].mismatches) and not found.rows[1].on_front
    assert any(told in note for note in found.notes) and found.rows[0].mismatches == ()


def test_a_run_that_is_not_complete_is_no_better_and_no_worse(tmp_path):
    naive = answered_run(tmp_path / "naive", forgets=0.5)
    better = answered_run(tmp_path / "replay", name="replay", strategy=REPLAY, forgets=0.02)
    assert compare([naive, better]).rows[1].retention_mark == "better"
    halfway = answered_run(tmp_path / "half", name="half", strategy=REPLAY, forgets=0.02, state="running")
    found = compare([naive, better, halfway])
    assert [row.retention_mark for row in found.rows] == ["", "better", ""] and found.rows[2].retention is not None
    assert not any(cell.mark for cell in found.rows[2].cells.values())
    assert "not complete, so not marked: half" in found.notes
    begun = compare([answered_run(tmp_path / "begun", forgets=0.5, state="running"), better])
    assert begun.rows[1].retention_mark == "" and "naive, the reference, is not complete" in " ".join(begun.notes)


def test_a_reference_without_a_number_leaves_other_runs_their_intervals():
    rows = np.linspace(200.0, 240, 40)
    curves = Curves(base=rows, best=rows, now=rows - 10, sizes=np.full(40, 100.0), strata=None, right_or_wrong=False)
    benchmark = Benchmark(name="text", role="retention", metric="nats_per_token", questions=40)
    part = _by_draws([curves], [np.full(40, np.nan)], benchmark, 200)
    assert part.change.estimate().known and part.difference is not None and not part.difference.estimate().known


def test_budgets_that_end_within_a_step_are_equal(tmp_path):
    config = {"stream": [{"tokens": 5000}, {"tokens": 1000}], "training": {"tokens_per_step": 1024}}
    first = answered_run(tmp_path / "naive", config=config, tokens=6072)
    other = answered_run(tmp_path / "b", name="replay", strategy=REPLAY, config=config, tokens=5990)
    assert compare([first, other]).rows[1].mismatches == ()
    less = answered_run(tmp_path / "c", name="ewc", strategy={"ewc": {}}, config=config, tokens=3000)
    with pytest.raises(UserError, match="budget 3k domain tokens"):
        compare([first, less])


def test_rows_are_told_apart_by_name_then_seed_then_folder(tmp_path):
    answered_run(tmp_path / "a", name="naive")
    answered_run(tmp_path / "b", name="naive", seed=1)
    answered_run(tmp_path / "deep" / "b", name="naive", seed=1)
    answered_run(tmp_path / "c", name="ewc", strategy={"ewc": {}})
    found = compare([tmp_path, tmp_path / "deep"])
    assert [row.label for row in found.rows] == ["naive (seed 0)", "b", "ewc", "deep/b"]
    by = compare([tmp_path, tmp_path / "deep"], by="strategy")
    assert [(row.label, row.seeds) for row in by.rows][:2] == [("naive", (0, 1)), ("ewc", (0,))]
    assert len(by.rows) == 3  # a repetition of a seed is no other seed


def test_another_model_is_compared_and_told(tmp_path):
    first = answered_run(tmp_path / "naive", config={"model": {"path": "gpt2"}})
    other = answered_run(tmp_path / "other", name="other", config={"model": {"path": "gpt2-large"}})
    notes = compare([first, other]).notes
    assert "other starts from another model than naive: model.path (gpt2 there, gpt2-large here)" in notes


def test_a_trivial_run_may_stop_early(tmp_path):
    first = answered_run(tmp_path / "naive")
    early = answered_run(tmp_path / "early", name="stopped-early", tokens=50_000)
    assert [row.trivial for row in compare([first, early]).rows] == [True, True]


def test_other_questions_are_compared_on_those_that_all_were_asked(tmp_path):
    first = answered_run(tmp_path / "naive")
    other = answered_run(tmp_path / "replay", name="replay", strategy=REPLAY, first={"mmlu": 50})
    found = compare([first, other])
    assert found.rows[0].cells["mmlu"].questions == 150 and found.rows[0].cells["exam"].questions == 160
    right = [RunDirectory(first).answers(point, "mmlu")["correct"][50:] for point in (0, 2)]
    assert found.rows[0].cells["mmlu"].change.value == pytest.approx(np.mean(right[1]) - np.mean(right[0]))
    assert any("mmlu: compared on the 150 questions" in note for note in found.notes)


def test_one_run_with_questions_of_its_own_is_marked_and_the_others_are_compared(tmp_path):
    """Between the others nothing changes; it is shown by its own scores, off the front, and nothing is tested of it."""
    one = answered_run(tmp_path / "naive", forgets=0.5)
    two = answered_run(tmp_path / "replay", name="replay", strategy=REPLAY, forgets=0.02)
    apart = answered_run(tmp_path / "apart", name="ewc", strategy={"ewc": {}}, learns=0.9, first={"mmlu": 1000})
    alone, found = compare([one, two]), compare([one, apart, two])
    assert any("mmlu: no question in common with naive: apart" in note for note in found.notes)
    naive, ewc, replay = found.rows
    for before, after in zip(alone.rows, (naive, replay), strict=True):
        assert (before.retention, before.retention_mark) == (after.retention, after.retention_mark)
        assert (before.cells["mmlu"].change, before.cells["mmlu"].mark) == (
            after.cells["mmlu"].change,
            after.cells["mmlu"].mark,
        )
    assert replay.cells["mmlu"].mark == "better"
    cell = ewc.cells["mmlu"]
    scores = metrics.primary(RunDirectory(apart).results())["mmlu"]
    assert cell.change.value == pytest.approx(scores[2] - scores[0]) and cell.change.known
    assert cell.difference is None and cell.p is None and cell.mark == "" and cell.verdict is None
    assert ewc.mismatches == ("mmlu: no question in common",) and not ewc.on_front
    assert ewc.retention_mark == "" and ewc.verdict is None and ewc.cells["exam"].p is not None

    # Whoever comes first: the reference's questions count.
    assert compare([apart, one, two]).rows[2].cells["mmlu"].mark == "better"


def test_seeds_with_questions_of_their_own_are_left_out_of_their_strategy(tmp_path):
    for seed in range(3):
        answered_run(tmp_path / f"naive-{seed}", seed=seed, forgets=0.5)
        first = {"mmlu": 1000} if seed == 1 else None
        answered_run(tmp_path / f"r-{seed}", name="r", seed=seed, strategy=REPLAY, forgets=0.1, first=first)
    _naive, replay = compare([tmp_path], by="strategy").rows
    assert replay.mismatches == () and replay.cells["mmlu"].mark == "" and replay.cells["cmmlu"].mark == "better"
    kept = [metrics.primary(RunDirectory(tmp_path / f"r-{seed}").results())["mmlu"] for seed in (0, 2)]
    assert replay.cells["mmlu"].change.value == pytest.approx(np.mean([each[2] - each[0] for each in kept]))


def test_a_score_that_is_no_number_is_told_and_not_tested(tmp_path):
    one = answered_run(tmp_path / "naive", forgets=0.5)
    two = answered_run(tmp_path / "replay", name="replay", strategy=REPLAY, forgets=0.02)
    before = compare([one, two])
    for path, nats in ((one, 2.1), (two, math.nan)):
        run = RunDirectory(path)
        for point in range(3):
            kept = {"index": range(50), "nats": [20.0 if not point else 10 * nats] * 50, "tokens": [10] * 50}
            run.write_answers(point, "web", {**kept, "bytes": [40] * 50})
            row = {**run.results()[0], "point": point, "role": "retention", "benchmark": "web"}
            run.add_results([row | {"metric": "nats_per_token", "score": nats if point else 2.0, "questions": 500}])
    found = compare([one, two])
    cell = found.rows[1].cells["web"]
    assert math.isnan(cell.change.value) and cell.p is None and cell.mark == ""
    assert [f"{name} {row.cells[name].mark}" for row in found.rows for name in ("mmlu", "exam")] == [
        f"{name} {row.cells[name].mark}" for row in before.rows for name in ("mmlu", "exam")
    ]
    (note,) = (note for note in found.notes if "NaN" in note)
    assert note.startswith(f"{two} has no number (NaN) as its score of web at point 1, 2: what the model put out")
    shown = formats.by_benchmark(found)
    assert shown[2][shown[0].index("web\n(retention)")] == "NaN"


def test_a_benchmark_that_a_run_lacks_is_left_out_of_the_averages(tmp_path):
    first = answered_run(tmp_path / "naive")
    other = answered_run(tmp_path / "less", name="less", exams={name: EXAMS[name] for name in ("exam", "mmlu")})
    found = compare([first, other])
    assert found.rows[0].retention.value == pytest.approx(found.rows[0].cells["mmlu"].change.value)
    assert "cmmlu" in found.rows[0].cells and "cmmlu" not in found.rows[1].cells
    assert any("cmmlu was not measured by less" in note for note in found.notes)


def test_unfinished_and_damaged_runs_are_shown_as_such(tmp_path):
    whole = answered_run(tmp_path / "naive")
    stopped = answered_run(tmp_path / "stopped", name="stopped", state="stopped", points=2)
    torn = answered_run(tmp_path / "torn", name="torn")
    with (torn / "results.jsonl").open("a") as file:
        file.write('{"point": 3, "cat\n')
    empty = RunDirectory.create(tmp_path / "empty", "name: empty\nseed: 0\n", {}).path
    answers = answered_run(tmp_path / "answers", name="answers", forgets=0.1)
    (answers / "answers" / "2" / "mmlu.parquet").write_bytes(b"PAR1 and then nothing")
    found = compare([whole, stopped, torn, empty, answers])
    rows = {row.label: row for row in found.rows}
    assert {label: row.state for label, row in rows.items()} == {
        "naive": "complete",
        "stopped": "stopped",
        "torn": "damaged",
        "empty": "running",
        "answers": "damaged",
    }
    assert rows["torn"].gain is None and rows["empty"].cells == {}
    assert rows["stopped"].tokens == 50_000 and not rows["stopped"].on_front
    assert rows["answers"].cells["mmlu"].change.known and rows["answers"].on_front  # its scores are whole
    notes = "\n".join(found.notes)
    for part in ("results.jsonl, line", "no results yet", "was stopped before its end", "mmlu.parquet is damaged"):
        assert part in notes
    status = RunDirectory(empty).path / "status.json"
    status.write_text(status.read_text().replace('"began"', '"began_else"').replace('"pid": ', '"pid": 1'))
    assert compare([whole, empty]).rows[1].state == "killed"


def test_a_benchmark_in_another_metric_is_not_compared(tmp_path):
    """Allowed, the run stands in the table by what it has in common with the others."""
    naive = answered_run(tmp_path / "naive")
    other = answered_run(tmp_path / "other", name="other", strategy={"ewc": {}})
    shutil.rmtree(other / "answers")
    rows = [json.loads(line) for line in (other / "results.jsonl").read_text().splitlines()]
    changed = [row | {"metric": "nats_per_token", "score": 2.5} if row["benchmark"] == "mmlu" else row for row in rows]
    (other / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    with pytest.raises(UserError, match="mmlu: metric nats_per_token, not accuracy"):
        compare([naive, other])
    found = compare([other, naive], allow_mismatch=True)
    cells = {row.label: row.cells for row in found.rows}
    assert "mmlu" in cells["naive"] and "mmlu" not in cells["other"] and "cmmlu" in cells["other"]
    assert "mmlu has another metric than accuracy in other: it is left out of the averages" in found.notes


def test_without_answers_scores_alone_give_wider_intervals(tmp_path, runs):
    with_answers = compare(list(runs)).rows[1].cells["mmlu"]
    for path in runs:
        shutil.rmtree(path / "answers")
    found = compare(list(runs))
    cell = found.rows[1].cells["mmlu"]
    assert cell.change.value == pytest.approx(with_answers.change.value)
    assert cell.change.high - cell.change.low > with_answers.change.high - with_answers.change.low
    assert any("no answers of" in note for note in found.notes)


def test_a_run_without_answers_makes_only_its_own_intervals_wide(tmp_path, runs):
    before = compare(list(runs)).rows
    shutil.rmtree(runs[1] / "answers")
    naive, replay = compare(list(runs)).rows
    assert naive.cells["mmlu"].change == before[0].cells["mmlu"].change
    wide, narrow = replay.cells["mmlu"].change, before[1].cells["mmlu"].change
    assert wide.value == narrow.value and wide.high - wide.low > narrow.high - narrow.low


def test_primary_benchmarks_alone_are_tested(tmp_path):
    config = {"evaluation": {"primary": ["mmlu"]}}
    first = answered_run(tmp_path / "naive", forgets=0.6, config=config)
    other = answered_run(tmp_path / "r", name="replay", strategy=REPLAY, forgets=0.0, config=config)
    found = compare([first, other])
    cells = found.rows[1].cells
    assert found.primary == ("mmlu",) and cells["mmlu"].p is not None and cells["mmlu"].verdict is not None
    assert cells["cmmlu"].p is None and cells["cmmlu"].verdict is None and not cells["cmmlu"].primary
    both = compare([first, other, answered_run(tmp_path / "e", name="ewc", strategy={"ewc": {}}, forgets=0.3)])
    assert both.rows[1].cells["mmlu"].p == pytest.approx(2 * cells["mmlu"].p, rel=0.7)  # one of two tests now


def test_a_run_that_is_given_twice_counts_once(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("naive")
    labels = [row.label for row in compare(["naive", runs[0], "link", tmp_path]).rows]
    assert labels == ["naive", "replay"]


def test_no_runs_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # away from runs/
    with pytest.raises(UserError, match="clmed run FILE"):
        compare([tmp_path / "nothing"])
    with pytest.raises(UserError, match="clmed run FILE"):
        compare([])


def test_perplexity_has_an_interval_and_no_verdict(tmp_path):
    run = RunDirectory(answered_run(tmp_path / "naive"))
    rng = np.random.default_rng(0)
    tokens = rng.integers(50, 128, size=100)
    for point in range(3):
        nats = (2 + 0.1 * point) * tokens + rng.normal(0, 1, size=100)
        run.write_answers(point, "web", {"index": range(100), "nats": nats, "tokens": tokens, "bytes": 4 * tokens})
        row = {**run.results()[0], "point": point, "role": "retention", "benchmark": "web", "metric": "nats_per_token"}
        run.add_results([row | {"score": nats.sum() / tokens.sum(), "questions": int(tokens.sum())}])
    (row,) = compare([run.path]).rows
    cell = row.cells["web"]
    assert cell.change.value == pytest.approx(0.2, abs=0.01) and 0 < cell.change.low < 0.2 < cell.change.high
    assert cell.verdict is None and not math.isnan(cell.forgetting.low)
    assert row.retention.value == pytest.approx(metrics.retention(run.results()))
