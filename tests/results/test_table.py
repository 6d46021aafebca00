"""The table of scores: what it says, its colours, and that it fits a terminal."""

import pytest
from lifelike import lifelike_rows
from rich.console import Console

from clmed.results.table import fold, score_cell, score_table, tokens_text


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
    _, _, heading, base, study = rendered(rows)
    assert heading.split() == ["point", "experience", "tokens", "%"]
    assert base.split() == ["0", "base", "0", "25.0"]
    assert study.split() == ["1", "study", "1.5M", "41.1", "+16.1"]


@pytest.mark.parametrize(
    ("metric", "scores", "text", "style"),
    [
        ("accuracy", {0: 0.5, 1: 0.6}, "60.0 +10.0", "green"),
        ("accuracy", {0: 0.5, 1: 0.4}, "40.0 −10.0", "red"),
        ("accuracy", {0: 0.5, 1: 0.50001}, "50.0 +0.0", "dim"),
        ("nats_per_token", {0: 2.0, 1: 2.25}, " 2.250 +0.250", "red"),
        ("nats_per_token", {0: 2.0, 1: 1.75}, " 1.750 −0.250", "green"),
    ],
)
def test_better_is_green_and_worse_is_red(metric, scores, text, style):
    cell = score_cell(metric, scores, 1)
    assert cell.plain.strip() == text.strip()
    assert [span.style for span in cell.spans] == [style]


def test_what_was_not_measured_is_a_dash():
    rows = [row for row in lifelike_rows() if row["point"] < 2 or row["benchmark"] != "synthetic-cmmlu"]
    assert sum("–" in line for line in rendered(rows)) == 3


def test_tokens_read_like_quantities_in_a_configuration():
    assert [tokens_text(n) for n in (0, 999, 400_000, 2_250_000_000)] == ["0", "999", "400k", "2.25B"]


def test_long_names_break_after_their_separators():
    assert fold("medical-pretraining", 12) == "medical-\npretraining"
    assert fold("general_perplexity of text", 12) == "general_\nperplexity\nof text"
    assert fold("short", 12) == "short"
    assert fold("", 12) == ""
