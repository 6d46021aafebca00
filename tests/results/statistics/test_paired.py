"""McNemar's test against scipy and a published table; the paired bootstrap against scipy's."""

import numpy as np
import pytest
from scipy import stats

from clmed.results.statistics.paired import mcnemar, mean, paired


def test_the_published_example_of_fagerland_and_others():
    """Airway hyper-responsiveness of 21 children before and after a transplantation: 1 and 7 changed."""
    found = mcnemar(1, 7)
    assert (found.exact, found.mid_p, found.chi2) == pytest.approx((0.0703, 0.0391, 0.0339), abs=5e-5)


@pytest.mark.parametrize(("lost", "won"), [(0, 1), (3, 3), (0, 12), (30, 14), (5, 60), (400, 350)])
def test_exact_is_scipys_binomial_test_and_mid_p_takes_half_of_what_was_seen(lost, won):
    found = mcnemar(lost, won)
    exact = stats.binomtest(lost, lost + won).pvalue
    assert found.exact == pytest.approx(exact)
    assert found.mid_p == pytest.approx(exact - stats.binom.pmf(lost, lost + won, 0.5) / (1 + (lost == won)))
    assert found.chi2 == pytest.approx(stats.chisquare([lost, won]).pvalue)


def test_without_a_question_that_differs_nothing_is_significant():
    assert (mcnemar(0, 0).exact, mcnemar(0, 0).mid_p, mcnemar(0, 0).chi2) == (1, 1, 1)


def test_the_paired_bootstrap_agrees_with_scipys():
    rng = np.random.default_rng(0)
    before = rng.random(600) < 0.6
    now = before & (rng.random(600) > 0.15) | (rng.random(600) < 0.03)
    found = paired(before, now)
    difference = now.astype(float) - before
    peer = stats.bootstrap(
        (difference,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.difference.value == pytest.approx(difference.mean())
    assert (found.difference.low, found.difference.high) == pytest.approx((peer.low, peer.high), abs=0.005)
    assert found.test.lost - found.test.won == -round(600 * difference.mean())
    assert found.p < 0.001 and found.test.mid_p < 0.001


def test_a_macro_average_is_of_subjects_and_resampled_within_them():
    """One subject of many questions lost all; of many small ones nothing was lost: the subjects' mean hardly fell."""
    before = np.ones(200, dtype=bool)
    now = np.concatenate([np.zeros(100, dtype=bool), np.ones(100, dtype=bool)])
    subjects = ["large"] * 100 + [f"small-{number // 10}" for number in range(100)]
    micro, macro = paired(before, now), paired(before, now, subjects)
    assert micro.difference.value == -0.5 and macro.difference.value == pytest.approx(-1 / 11)
    assert micro.difference.low < -0.56 and macro.difference.low > -0.115  # within a subject all did the same
    assert mean(np.array([0.0, 0, 0, 1]), np.array(list("aaab"))) == 0.5
