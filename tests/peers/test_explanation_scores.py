"""BLEU and ROUGE of explanations against other implementations: nltk's BLEU, Google's rouge_score."""

import random

import pytest

from clmed.evaluation.explanations import explanation_scores

pytest.importorskip("sacrebleu", reason="sacrebleu is not installed (extra `reasoning`)")
pytest.importorskip("rouge_chinese", reason="rouge-chinese is not installed (extra `reasoning`)")
bleu_score = pytest.importorskip("nltk.translate.bleu_score", reason="nltk is not installed (comes with lm-eval)")
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is not installed (as nltk)")

CHARACTERS = "气虚血瘀证宜补阳还五汤主之黄芪当归赤芍地龙川芎桃仁红花活通络因为所以选肝肾脾肺心"


def pairs(draw: random.Random, count: int, again: bool) -> tuple[list[str], list[str]]:
    """Texts and their changed copies; again: whether a character may come twice in one."""
    found, right = [], []
    for _ in range(count):
        size = draw.randint(8, 20)
        text = draw.choices(CHARACTERS, k=size) if again else draw.sample(CHARACTERS, k=size)
        unused = [character for character in CHARACTERS if character not in text]
        copy = [unused.pop() if draw.random() < 0.2 else character for character in text][: draw.randint(7, size)]
        found.append("".join(copy))
        right.append("".join(text))
    return found, right


class Letters:
    def tokenize(self, text: str) -> list[str]:
        return list(text)


@pytest.mark.parametrize("seed", range(3))
def test_bleu(seed: int) -> None:
    found, right = pairs(random.Random(seed), 20, again=True)
    scores, _ = explanation_scores(found, right)
    for order in (1, 4):
        weights = [1 / order] * order
        expected = bleu_score.corpus_bleu([[list(text)] for text in right], [list(text) for text in found], weights)
        assert scores[f"bleu_{order}"] == pytest.approx(expected, abs=1e-6)
        assert 0.2 < expected < 0.9


@pytest.mark.parametrize("seed", range(3))
def test_rouge(seed: int) -> None:
    """Of texts in which no character comes twice: rouge-chinese counts equal ones once, Google's each time."""
    found, right = pairs(random.Random(seed), 20, again=False)
    scores, _ = explanation_scores(found, right)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Letters())
    each = [scorer.score(target, text) for text, target in zip(found, right, strict=True)]
    for kind in ("1", "2", "L"):
        expected = sum(one[f"rouge{kind}"].fmeasure for one in each) / len(each)
        assert scores[f"rouge_{kind.lower()}"] == pytest.approx(expected, abs=1e-6)
        assert 0.2 < expected < 0.95


def test_rouge_counts_equal_pairs_once() -> None:
    """As rouge-chinese does: the sets of n-grams are compared."""
    found, right = ["补气补气补气"], ["补气活血补气"]
    scores, _ = explanation_scores(found, right)
    for size in (1, 2):
        said, meant = ({text[i : i + size] for i in range(len(text) - size + 1)} for text in (found[0], right[0]))
        precision, recall = len(said & meant) / len(said), len(said & meant) / len(meant)
        assert scores[f"rouge_{size}"] == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-6)
