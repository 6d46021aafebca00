"""Planted questions are found; words of them, short stems alone and paraphrases are not."""

import random

import pytest

from clmed.data.contamination import Asked, QuestionIndex
from clmed.data.units import units

LONG = "A 45-year-old miner has coughed for three months, lost six kilograms and sweats at night; what is done first?"
CHINESE = "某矿工，男，45岁，咳嗽三个月，体重下降6公斤，夜间盗汗，首先应进行的检查是"
FILLER = "It rained all day in the valley, and nobody went out. 山谷里下了一整天的雨，没有人出门。"


def asked(stem: str, *options: str, right: int = 0, index: int = 0) -> Asked:
    return Asked(benchmark="exam", subject="all", index=index, stem=stem, options=options, right=(right,))


def share(question: Asked, text: str) -> float | None:
    """The share of the question that `text` holds; None if they do not touch."""
    hits = QuestionIndex([question]).search(units([FILLER, text, FILLER]))
    assert (hits.text == 1).all() and len(hits.text) <= 1
    return float(hits.share[0]) if len(hits.text) else None


ENGLISH_QUESTION = asked(LONG, "sputum smear", "an X-ray of the knee", "nothing")
CHINESE_QUESTION = asked(CHINESE, "痰涂片", "膝关节X线", "不做检查")


@pytest.mark.parametrize("question", [ENGLISH_QUESTION, CHINESE_QUESTION])
def test_a_question_is_found_wherever_it_stands_and_however_it_is_written(question: Asked) -> None:
    for text in (
        question.stem,
        f"{FILLER} {question.stem} {FILLER}",
        f"题目：{question.stem}\nA. {question.options[0]}\n答案：A",
        question.stem.upper().replace("，", " , ").replace(";", " - "),
        question.stem.replace("45", "４５").replace(", ", ",\n\n"),
    ):
        assert share(question, text) == 1.0


def test_some_words_of_a_question_touch_it_and_half_of_it_holds_it() -> None:
    words = LONG.split()
    for count in range(len(words) + 1):
        found = share(ENGLISH_QUESTION, " ".join(words[:count]))
        grams = len(units([" ".join(words[:count])]).grams(13)[0])
        total = len(units([LONG]).grams(13)[0])
        assert found == (grams / total if grams else None)


def test_thirteen_units_of_an_option_touch_the_question() -> None:
    option = "the glands above the kidneys which make cortisol and several other hormones of the same kind"
    assert share(asked("What are the adrenal glands in the human body?", "bones", option), f"They are {option}.") == 0.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("输尿管", False),
        ("输尿管结石的患者常有血尿，输尿管是肌性管道。" * 20, False),
        ("题目：输尿管\nA. 起始于肾盂\nB. 可分为腹盆两段\nC. 开口于膀胱颈\nD. 为腹膜内位器官\n答案：A", True),
        ("输尿管：①为腹膜内位器官 ②开口于膀胱颈 ③起始于肾盂 ④可分为腹盆两段", True),
        ("输尿管 A 开口于膀胱颈 B 可分为腹盆两段 C 为腹膜内位器官", False),
        ("输尿管起始于肾盂，终于膀胱。", True),
        ("问题：输尿管\n答案：起始于肾盂\n", True),
        ("输尿管很长，它在腹膜后下行，跨过髂血管，起始于肾盂。", False),
        ("输尿管" + FILLER + "起始于肾盂 可分为腹盆两段 开口于膀胱颈 为腹膜内位器官", False),
    ],
)
def test_a_short_stem_is_found_with_its_options_only(text: str, found: bool) -> None:
    question = asked("输尿管", "起始于肾盂", "可分为腹盆两段", "开口于膀胱颈", "为腹膜内位器官")
    assert share(question, text) == (1.0 if found else None)


def test_a_five_character_stem_does_not_flag_a_corpus_about_it() -> None:
    question = asked("美加明属于", "甲", "乙", "丙", "丁")
    corpus = [f"美加明属于甲类药品，第{number}号。美加明属于什么？" for number in range(200)]
    assert not len(QuestionIndex([question]).search(units(corpus)).text)


def test_the_options_of_the_next_document_do_not_count() -> None:
    question = asked("输尿管", "起始于肾盂", "可分为腹盆两段")
    index = QuestionIndex([question])
    assert not len(index.search(units(["输尿管", "起始于肾盂 可分为腹盆两段"])).text)
    assert len(index.search(units(["输尿管", "输尿管 起始于肾盂 可分为腹盆两段"])).text) == 1


def test_the_wording_that_many_questions_share_identifies_none() -> None:
    wording = "For which of these two scenarios does the main character do something clearly wrong by our standards"
    questions = [asked(f"{wording}? {name} ran away.", "one", "both", index=i) for i, name in enumerate("abcdefghijkl")]
    index = QuestionIndex(questions)
    assert not len(index.search(units([wording])).text)
    few = QuestionIndex(questions[:10])
    assert few.search(units([wording])).question.tolist() == list(range(10))


def test_what_cannot_be_searched_is_known() -> None:
    lost = [asked("+", "/", "//"), asked("？", "甲", "乙"), asked("1+1", "/", "%")]
    index = QuestionIndex([*lost, asked(LONG, "/", "%"), asked("输尿管", "甲乙", "丙")])
    assert index.unsearchable == lost
    assert not len(QuestionIndex([]).search(units([LONG])).text)


def test_the_index_finds_what_a_comparison_of_all_with_all_finds() -> None:
    """Random texts of few words, so that 13-grams meet often, against sets of tuples."""
    draw = random.Random(3)

    def words(most: int) -> str:
        return " ".join(draw.choices("ab甲", k=draw.randrange(most)))

    questions = [asked(words(40), words(25), words(25), index=i) for i in range(30)]
    texts = [words(80) for _ in range(200)]
    hits = QuestionIndex(questions).search(units(texts))
    found = {(int(t), int(q)): s for t, q, s in zip(hits.text, hits.question, hits.share, strict=True)}

    def grams(text: str) -> set[tuple[str, ...]]:
        cut = text.split()
        return {tuple(cut[i : i + 13]) for i in range(len(cut) - 12)}

    stems = [grams(question.stem) for question in questions]
    options = [set().union(*map(grams, question.options)) for question in questions]
    common = {gram for side in (stems, options) for gram in set().union(*side) if sum(gram in one for one in side) > 10}
    assert not common  # else the comparison below would have to leave them out
    compared = 0
    for number, text in enumerate(texts):
        for question in (q for q in range(30) if len(questions[q].stem.split()) >= 13):
            shared = grams(text) & stems[question]
            touches = bool(shared or grams(text) & options[question])
            assert ((number, question) in found) == touches
            if touches:
                assert found[number, question] == pytest.approx(len(shared) / len(stems[question]))
                compared += 1
    assert compared > 0


def test_batches_do_not_matter() -> None:
    index = QuestionIndex([ENGLISH_QUESTION, CHINESE_QUESTION])
    texts = [FILLER, LONG, FILLER + CHINESE, LONG + CHINESE, ""]
    together = index.search(units(texts))
    alone = [(number, one) for number, text in enumerate(texts) for one in index.search(units([text])).question]
    assert list(zip(together.text, together.question, strict=True)) == alone
