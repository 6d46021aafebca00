"""What is kept of logits against the whole of them, and what a damaged store is told as."""

import pytest
import torch
from torch.nn.functional import kl_div

from clmed.logits import coarse, coarse_divergence, divergence, predicting, row_means


def logits(seed, positions=7, vocabulary=50):
    return 3 * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_logits_kept_give_the_whole_divergence_and_fewer_a_lower_bound(temperature):
    here, there = logits(0).requires_grad_(), logits(1)
    whole = divergence(here, there, temperature)
    p, q = ((each / temperature).softmax(-1) for each in (there, here))
    torch.testing.assert_close(whole, (p * (p.log() - q.log())).sum(-1))
    all_kept = coarse_divergence(here, *coarse(there, 50, temperature), temperature)
    torch.testing.assert_close(all_kept, whole, rtol=1e-5, atol=1e-6)
    (of_all,) = torch.autograd.grad(all_kept.sum(), here, retain_graph=True)
    (of_whole,) = torch.autograd.grad(whole.sum(), here, retain_graph=True)
    torch.testing.assert_close(of_all, of_whole, rtol=1e-4, atol=1e-6)
    before = torch.zeros(7)
    for top in (1, 5, 20, 49):
        bound = coarse_divergence(here, *coarse(there, top, temperature), temperature)
        assert (before <= bound + 1e-5).all() and (bound <= whole + 1e-5).all()
        before = bound
    torch.testing.assert_close(before, whole, rtol=1e-4, atol=1e-5)  # a tail of one token is that token


def test_a_tail_is_one_more_event():
    """By hand: the probabilities of the largest 3, and of all others together; the gradient is autograd's of that."""
    here, there, temperature = logits(2).requires_grad_(), logits(3), 1.5
    ids, values = coarse(there, 3, temperature)
    assert ids.dtype == torch.int32 and values.shape == (7, 4)
    p, q = ((each / temperature).softmax(-1) for each in (there, here))
    top_p, top_q = (each.gather(-1, ids.long()) for each in (p, q))
    top_p, top_q = (torch.cat([top, 1 - top.sum(-1, keepdim=True)], -1) for top in (top_p, top_q))
    expected = kl_div(top_q.log(), top_p, reduction="none").sum(-1)
    found = coarse_divergence(here, ids, values, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    (by_hand,), (ours,) = (torch.autograd.grad(each.sum(), here, retain_graph=True) for each in (expected, found))
    torch.testing.assert_close(ours, by_hand, rtol=1e-4, atol=1e-6)


def test_means_of_rows_count_positions_with_a_loss_alone():
    labels = torch.tensor([[5, -100, 6, 7], [-100, -100, -100, -100], [-100, -100, -100, 9]])
    where = predicting(labels)
    assert where.tolist() == [[False, True, True, False], [False] * 4, [False, False, True, False]]
    assert row_means(torch.tensor([1.0, 3.0, 5.0]), where).tolist() == [2.0, 0.0, 5.0]
    assert predicting(labels, [False, True, True]).sum() == 1
    assert row_means(torch.zeros(0), where & False).tolist() == [0.0] * 3
