"""What was forgotten, by name and by subject."""

import numpy as np
import pytest
from answered import answered_run
from scipy import stats

from clmed.errors import UserError
from clmed.results.rundir import RunDirectory
from clmed.results.runs import Run
from clmed.results.statistics.flips import flips
from clmed.results.statistics.subjects import subject_changes
from clmed.results.statistics.verdicts import holm


@pytest.fixture
def runs(tmp_path):
    return [RunDirectory(answered_run(tmp_path / f"naive-{seed}", seed=seed, forgets=0.5)) for seed in range(2)]


def opened(runs):
    return [Run(path=run.path) for run in runs]


def test_forgotten_questions_are_named_those_of_all_seeds_first(runs):
    right = [np.array(run.answers(point, "mmlu")["correct"]) for run in runs for point in (0, 2)]
    lost = [right[0] & ~right[1], right[2] & ~right[3]]
    found = flips(opened(runs), "mmlu")
    assert {flip.index for flip in found} == set(np.flatnonzero(lost[0] | lost[1]).tolist())
    assert {flip.index for flip in found if flip.runs == 2} == set(np.flatnonzero(lost[0] & lost[1]).tolist())
    assert [flip.runs for flip in found] == sorted((flip.runs for flip in found), reverse=True)
    first = found[0]
    assert (first.gold, first.before, first.now, first.of) == ("A", "A", "B", 2)
    assert first.name == f"mmlu/mmlu-{first.index % 10}/{first.index}"


def test_learnt_questions_turned_the_other_way(runs):
    base, now = (np.array(runs[0].answers(point, "exam")["correct"]) for point in (0, 2))
    found = flips(opened(runs[:1]), "exam", turned="learnt")
    assert {flip.index for flip in found} == set(np.flatnonzero(~base & now).tolist())
    assert flips(opened(runs[:1]), "exam") == []
    inside = flips(opened(runs[:1]), "exam", point=1, turned="learnt")
    assert 0 < len(inside) < len(found)


def test_a_question_that_is_asked_twice_is_two(tmp_path):
    asked = {"prompt_hash": ["a", "a", "b"], "subject": ["x"] * 3, "index": [0, 1, 2], "gold": ["A"] * 3}
    paths = [answered_run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for path in paths:
        for point, correct in ((0, [True, True, True]), (2, [False, False, True])):
            RunDirectory(path).write_answers(point, "exam", {**asked, "prediction": ["B"] * 3, "correct": correct})
    found = flips([Run(path=path) for path in paths], "exam")
    assert [(flip.index, flip.runs, flip.of) for flip in found] == [(0, 2, 2), (1, 2, 2)]


def test_text_has_no_questions_to_forget(runs):
    for point in (0, 2):
        runs[0].write_answers(point, "web", {"index": [0, 1], "nats": [1.0, 2.0], "tokens": [3, 4], "bytes": [5, 6]})
    with pytest.raises(UserError, match="no questions that are answered"):
        flips(opened(runs[:1]), "web")
    with pytest.raises(UserError, match="kept no answers to piqa"):
        flips(opened(runs[:1]), "piqa")


def test_subjects_are_tested_on_their_questions_and_corrected_for_their_number(runs):
    found = subject_changes(opened(runs)[0], "mmlu")
    assert len(found) == 10 and [each.change.value for each in found] == sorted(each.change.value for each in found)
    base, now = (np.array(runs[0].answers(point, "mmlu")["correct"]) for point in (0, 2))
    raw = {}
    for number in range(10):
        lost, won = (int((one & ~two)[number::10].sum()) for one, two in ((base, now), (now, base)))
        exact = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
        raw[f"mmlu-{number}"] = exact - stats.binom.pmf(lost, lost + won, 0.5) / (1 + (lost == won))
    corrected = dict(zip(raw, holm(list(raw.values())), strict=True))
    assert {each.subject: each.p for each in found} == pytest.approx(corrected)
    worst = found[0]
    assert worst.change.value == pytest.approx(worst.now - worst.before) and worst.questions == 20
    assert any(each.significant for each in found) or min(corrected.values()) > 0.05
