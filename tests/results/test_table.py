"""The table of scores: what it says, its colours, and that it fits a terminal."""

import pytest
from lifelike import lifelike_rows
from rich.console import Console

from clmed.results.table import categories, evaluation_table, fold, score_cell, score_table, summary, tokens_text


def rendered(rows: list[dict], width: int = 100) -> list[str]:
    console = Console(width=width, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(score_table(rows))
    return capture.get().splitlines()


def test_four_benchmarks_fit_100_columns_with_no_word_broken():
    lines = rendered(lifelike_rows())
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert "…" not in text
    for word in ("cmexam", "perplexity", "covered", "uncovered", "retention", "nats/token", "pretraining", "520k"):
        assert word in text
    assert "STEM" not in text and "anatomy" not in text


def test_a_row_for_each_point_with_score_and_change():
    rows = [
        {"point": point, "tokens": tokens, "experience": name, "role": "gain", "benchmark": "exam"}
        | {"category": "all", "metric": "accuracy", "score": score}
        for point, tokens, name, score in ((0, 0, "base", 0.25), (1, 1_500_000, "study", 0.411))
    ]
    lines = [line.split() for line in rendered(rows)]
    assert ["exam"] in lines and ["point", "tokens", "%"] in lines and ["gain:", "exam"] in lines
    at = lines.index(["0", "base", "0", "25.0"])
    assert lines[at + 1 : at + 3] == [["1", "study", "1.5M", "41.1"], ["+16.1"]]


def test_what_can_be_had_without_reading_stands_at_the_end():
    rows = [
        {"point": 0, "tokens": 0, "experience": "base", "role": "gain", "category": "all", "score": 0.5} | row
        for row in (
            {"benchmark": "exam", "metric": "accuracy", "constant": 0.21, "majority": 0.3},
            {"benchmark": "text", "metric": "nats_per_token"},
        )
    ]
    lines = [line.split() for line in rendered(rows)]
    at = lines.index(["0", "base", "0", "50.0", "0.500"])
    assert lines[at + 1 : at + 3] == [["one", "letter", "21.0", "–"], ["majority", "30.0", "–"]]


def test_fits_80_columns_and_shows_both_halves_of_what_was_forgotten():
    rows = [
        {"point": 0, "tokens": 0, "experience": "base", "benchmark": f"synthetic-{name}", "category": category}
        | {"role": "gain" if name == "cmexam" else "retention", "metric": "accuracy", "score": 1.0}
        for name, categories in (
            ("cmexam", "single multiple"),
            ("mmlu", "covered uncovered"),
            ("cmmlu", "covered uncovered"),
        )
        for category in ("all", *categories.split())
    ]
    text = "\n".join(rendered(rows, width=80))
    assert text.count(" covered") == text.count("uncovered") == 2 and "multiple" not in text
    assert "synthetic benchmarks" in text and "retention: mmlu, cmmlu" in text


def test_more_benchmarks_than_have_room_stand_below_each_other():
    names = ["exam", "doctors_perplexity", *(f"general-{number}" for number in range(8))]
    rows = [
        {"point": point, "tokens": 1000 * point, "experience": "base" if point == 0 else "reading", "benchmark": name}
        | {"role": "gain" if name[0] in "ed" else "retention", "category": "all", "score": 0.5 + point / 10}
        | ({"metric": "nats_per_token"} if name[0] == "d" else {"metric": "accuracy", "constant": 0.25})
        for point in range(6)
        for name in names
    ]
    lines = rendered(rows, width=100)
    words = [line.split() for line in lines]
    assert ["exam", "%", "50.0", "80.0", "+30.0", "90.0", "+40.0", "100.0", "+50.0", "25.0"] in words
    assert [
        "doctors_perplexity",
        "nats",
        "0.500",
        "0.800",
        "+0.300",
        "0.900",
        "+0.400",
        "1.000",
        "+0.500",
        "–",
    ] in words
    assert words.index(["gain"]) < words.index(["retention"]) < len(words) - 8
    assert "perplexities in nats per token; 2 points in between are in results.jsonl" in lines[-1]
    few = "\n".join(rendered([row for row in rows if row["point"] < 3], width=80))
    assert "in between" not in few and "2 reading" in few


@pytest.mark.parametrize(
    ("metric", "scores", "text", "style"),
    [
        ("accuracy", {0: 0.5, 1: 0.6}, "60.0\n+10.0", "green"),
        ("accuracy", {0: 0.5, 1: 0.4}, "40.0\n−10.0", "red"),
        ("accuracy", {0: 0.5, 1: 0.50001}, "50.0\n+0.0", "dim"),
        ("nats_per_token", {0: 2.0, 1: 2.25}, " 2.250\n+0.250", "red"),
        ("nats_per_token", {0: 2.0, 1: 1.75}, " 1.750\n−0.250", "green"),
    ],
)
def test_better_is_green_and_worse_is_red(metric, scores, text, style):
    cell = score_cell(metric, scores, 1)
    assert cell.plain.strip() == text.strip()
    assert [span.style for span in cell.spans] == [style]


def test_the_run_in_a_line():
    rows = [
        {"point": point, "benchmark": name, "role": role, "category": "all", "metric": "accuracy", "score": score}
        for name, role, scores in (("exam", "gain", (0.2, 0.3)), ("mmlu", "retention", (0.9, 0.7)))
        for point, score in enumerate(scores)
    ]
    told = "gain +10.0 points, retention −20.0 points, most forgotten: mmlu (20.0 points below its best)"
    assert summary(rows) == told
    assert "forgotten" not in summary(rows[:2])


def test_what_was_not_measured_is_a_dash():
    rows = [row for row in lifelike_rows() if row["point"] < 2 or row["benchmark"] != "synthetic-cmmlu"]
    assert sum("–" in line for line in rendered(rows)) == 3


def test_tokens_read_like_quantities_in_a_configuration():
    assert [tokens_text(n) for n in (0, 999, 400_000, 2_250_000_000)] == ["0", "999", "400k", "2.25B"]
    assert [tokens_text(n) for n in (999_499, 999_500, 999_999_999)] == ["999k", "1M", "1B"]
    assert tokens_text(999_950, digits=4) == "1M" and tokens_text(999_940, digits=4) == "999.9k"


def test_long_names_break_after_their_separators():
    assert fold("medical-pretraining", 12) == "medical-\npretraining"
    assert fold("general_perplexity of text", 12) == "general_\nperplexity\nof text"
    assert fold("short", 12) == "short"
    assert fold("unbreakable-unbreakable", 8) == "unbreakable-\nunbreakable"
    assert fold("", 12) == ""


def test_what_was_measured_outside_a_run_fits_80_columns():
    common = {"constant": 0.25, "majority": 0.3, "questions": 14_042, "benchmark": "mmlu", "skipped": 2}
    rows = [
        common | {"category": category, "metric": metric, "score": 0.5}
        for category, metric in (("all", "accuracy"), ("all", "f1_letters"), ("china-specific", "accuracy"))
    ]
    rows.append(
        {"benchmark": "mmlu", "category": "all", "metric": "accuracy_calibrated", "score": 0.25, "questions": 7}
    )
    rows.append(rows[-1] | {"category": "letter:A", "metric": "predicted"})
    rows += [common | {"category": f"level={n}", "metric": "accuracy", "score": 0.1} for n in range(20)]
    rows += [common | {"category": "subject:anatomy", "metric": "accuracy", "score": 0.1}]
    text = {"benchmark": "some_long_name_perplexity", "category": "all", "metric": "nats_per_token"}
    rows.append(text | {"score": 2.12345, "questions": 7})
    console = Console(width=80, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(evaluation_table(rows))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in capture.get() and "anatomy" not in capture.get()
    cells = [line.split() for line in lines]
    assert cells[1] == ["mmlu", "all", "accuracy", "50.0", "25.0", "30.0", "14,042"]
    assert cells[2] == ["all", "f1_letters", "50.0", "25.0", "30.0", "14,042"]
    assert ["all", "accuracy_", "25.0", "7"] in cells and "predicted" not in capture.get()
    assert categories(rows[:5], "mmlu") == ["china-specific"]
    told = " ".join(capture.get().split())
    assert (
        "mmlu: 8 more categories are in results.jsonl mmlu:" in told
        and "mmlu: rows without a known answer, not asked: 2" in told
    )
    assert "some_long_ all nats_per_token 2.1235 7 name_ perplexity" in told


def test_metrics_of_other_tools_are_shown_with_their_names():
    common = {"tokens": 0, "experience": "base", "role": "retention", "category": "all", "questions": 8, "shots": 0}
    rows = [
        {**common, "point": point, "benchmark": name, "metric": metric, "score": score}
        for name, metric, scores in (("hellaswag", "acc", (0.5, 0.4)), ("wikitext", "word_perplexity", (20.0, 18.5)))
        for point, score in enumerate(scores)
    ]
    lines = [line.split() for line in rendered(rows)]
    assert ["0", "base", "0", "50.0", "20.000"] in lines and ["−10.0", "−1.500"] in lines
    text = "\n".join(rendered(rows))
    assert "acc %" in text and "perplexity" in text and "nats" not in text
    assert score_cell("word_perplexity", {0: 20.0, 1: 18.5}, 1).spans[-1].style == "green"
