"""Exam answers with an explanation: how they are asked for, what is read in them, and how near they are to the file's.

`generate`: the answer first, then "解析：" (Explanation:) and the explanation, as `target: answer_then_explanation`
trains it; `reason`: the explanation first and the answer in a last line (`explanation_then_answer`). An answer that
cannot be read is wrong, and so is none. Explanations are compared character by character, since Chinese has no spaces:
BLEU-1 and BLEU-4 of the corpus (sacrebleu; Papineni et al. 2002), ROUGE-1, -2 and -L as the mean F over the questions
(rouge-chinese, which counts equal n-grams of a text once; Lin 2004), all in [0, 1], over the questions whose file has
an explanation; an empty one scores 0.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clmed.data.exams import is_missing
from clmed.errors import UserError
from clmed.evaluation.aggregate import scores
from clmed.evaluation.benchmarks import Benchmark
from clmed.evaluation.generation import generate

Order = Literal["generate", "reason"]

STOPS = ("\n题目：", "\n问题：", "\nQuestion:", "\n\n")
"""What begins another question."""
MOST = 512
"""Tokens of an answer with its explanation."""

ANSWER = re.compile(r"(?:答案是|答案|Answer)\s*[:：]")
EXPLANATION = re.compile(r"\s*(?:解析|Explanation)\s*[:：]")
LETTERS = re.compile(r"\W*([A-Z](?:(?:[\s,、;.&和与及]|\band\b)*[A-Z])*)(?![\s,、;.]*(?:或|or\b)|\s*[A-Za-z])")
"""Letters and what may stand between them; "A or B" is no answer, and "A fever" no letter."""


def prompts(benchmark: Benchmark) -> list[str]:
    """Each question up to the colon of the answer, or (reason) up to the line before."""
    asked = [benchmark.exam.by_letter(question) for question in benchmark.questions]
    return asked if benchmark.scoring == "generate" else [text[: text.rindex("\n") + 1] for text in asked]


def measure_explanations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    *,
    batch_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Sequence[Any]]]:
    """Scores (of the answers, then of the explanations) and the record of every question: texts, answers."""
    order, questions = benchmark.scoring, benchmark.questions
    assert order == "generate" or order == "reason"
    said = generate(
        model, tokenizer, prompts(benchmark), most=MOST, stops=STOPS, batch_tokens=batch_tokens, progress=progress
    )
    predictions = [read_answer(text, q.options, order) for text, q in zip(said, questions, strict=True)]
    found, count = explanation_scores(
        [read_explanation(text, order) for text in said], [question.explanation for question in questions]
    )
    rows: list[dict[str, Any]] = [dict(row) for row in scores(benchmark, predictions)]
    rows.append({"category": "all", "metric": "unreadable", "score": predictions.count("") / len(questions)})
    rows[-1]["questions"] = len(questions)
    rows += [{"category": "all", "metric": m, "score": value, "questions": count} for m, value in found.items()]
    return rows, {"generated": said, "prediction": predictions}


def read_answer(text: str, options: Mapping[str, str], order: Order) -> str:
    """The letters that a generated text gives, sorted; nothing where it gives none of the question's options."""
    if order == "reason":
        *_, text = ANSWER.split(text) if ANSWER.search(text) else [""]
    found = LETTERS.match(unicodedata.normalize("NFKC", text.lstrip("\n").split("\n")[0]))
    letters = sorted(re.sub("[^A-Z]", "", found[1])) if found else []
    return "".join(letters) if len(set(letters)) == len(letters) and set(letters) <= set(options) else ""


def read_explanation(text: str, order: Order) -> str:
    """The explanation in a generated text: without its label, and without the answer."""
    if order == "generate":
        text = text.lstrip("\n").partition("\n")[2]
    elif ends := list(ANSWER.finditer(text)):
        text = text[: ends[-1].start()]
    return EXPLANATION.sub("", text, count=1).strip() if EXPLANATION.match(text) else text.strip()


def explanation_scores(found: Sequence[str], right: Sequence[str]) -> tuple[dict[str, float], int]:
    """BLEU and ROUGE of explanations against the file's, and the number of questions that have one there.

    Raises UserError where the libraries are not installed.
    """
    pairs = [(f, r) for f, r in zip(found, right, strict=True) if not is_missing(r)]
    if not pairs:
        return {}, 0
    bleu, rouge = _libraries()
    texts, references = [f for f, _ in pairs], [r for _, r in pairs]
    scores = {
        f"bleu_{order}": bleu(tokenize="char", max_ngram_order=order).corpus_score(texts, [references]).score / 100
        for order in (1, 4)
    }
    said = [(" ".join(_characters(f)), " ".join(_characters(r))) for f, r in pairs if _characters(f)]
    measured = rouge().get_scores(*map(list, zip(*said, strict=True))) if said else []
    for kind in ("1", "2", "l"):
        scores[f"rouge_{kind}"] = sum(one[f"rouge-{kind}"]["f"] for one in measured) / len(pairs)
    return scores, len(pairs)


def check_installed() -> None:
    """Raises UserError, with the way out, where the libraries that score explanations are missing."""
    _libraries()


def _libraries() -> tuple[Any, Any]:
    try:
        from rouge_chinese import Rouge
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise UserError(
            f"Scoring explanations needs {error.name}, which is not installed: pip install 'clmed[reasoning]'."
        ) from error
    return BLEU, Rouge


def _characters(text: str) -> list[str]:
    return [character for character in text if not character.isspace()]
