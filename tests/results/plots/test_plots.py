"""The figure is drawn from run directories; its SVG names every text in a comment, which is what is checked here."""

import itertools
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from legible import assert_legible
from lifelike import BENCHMARKS, training_rows

from clmed.errors import UserError
from clmed.results.plots import figures, fonts, plot_runs
from clmed.results.rundir import RunDirectory


def texts(svg: Path) -> list[str]:
    return re.findall(r"<!-- (.*?) -->", svg.read_text(), re.DOTALL)


def colours(svg: Path) -> set[str]:
    return set(re.findall(r"stroke: (#[0-9a-f]{6})", svg.read_text()))


def test_one_run_is_drawn_into_its_own_folder(make_run, tmp_path):
    run = make_run(tmp_path / "naive")
    png, svg = plot_runs([run], only=["forgetting"])
    assert png == run / "figures" / "forgetting.png" and svg.exists()
    assert png.read_bytes().startswith(b"\x89PNG")
    words = texts(svg)
    for word in (*BENCHMARKS, "gain, 0-shot", "retention, 5-shot", "medical-pretraining", "exam-finetuning"):
        assert word in words
    assert words.count("naive") == words.count("base") == len(BENCHMARKS)
    assert words.count("covered") == words.count("uncovered") == 1
    assert "STEM" not in words and not any("anatomy" in word for word in words)


def test_the_same_run_gives_the_same_bytes(make_run, tmp_path):
    run = make_run(tmp_path / "naive")
    first = [file.read_bytes() for file in plot_runs([run], tmp_path / "1")]
    assert [file.read_bytes() for file in plot_runs([run], tmp_path / "2")] == first


def test_several_runs_go_to_the_current_directory_and_seeds_share_a_label(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [make_run(tmp_path / f"naive-{seed}", seed=seed) for seed in range(3)]
    runs.append(make_run(tmp_path / "ewc", "ewc", seed=0, keeps=0.5))
    files = plot_runs(runs, only=["forgetting"])
    assert files == [Path("figures/forgetting.png"), Path("figures/forgetting.svg")]
    words = texts(files[1])
    assert words.count("ewc") == len(BENCHMARKS)
    assert sum("seeds" in word for word in words) == len(BENCHMARKS)
    assert "covered" not in words
    assert {"#0072b2", "#d55e00"} <= colours(files[1])
    assert "#009e73" not in colours(files[1])


def test_runs_of_one_name_and_seed_are_told_apart_by_their_paths(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = texts(plot_runs([make_run(Path(name)) for name in ("x5", "x10")], tmp_path, only=["forgetting"])[1])
    assert "x5" in words and "x10" in words and "naive" not in words


@pytest.mark.parametrize(("state", "shown"), [("running", "running"), ("stopped", "stopped"), ("complete", None)])
def test_a_run_that_is_not_complete_says_so(make_run, tmp_path, state, shown):
    run = make_run(tmp_path / "a", "a", state=state, unmeasured=2)
    words = " ".join(texts(plot_runs([run], only=["forgetting"])[1]))
    assert ("running" in words, "stopped" in words) == (shown == "running", shown == "stopped")


def test_scores_that_are_not_finite_are_left_out(make_run, tmp_path):
    run = make_run(tmp_path / "naive")
    rows = RunDirectory.open(run).results()
    (run / "results.jsonl").unlink()
    for row in rows:
        if row["metric"] == "nats_per_token":
            row["score"] = float("nan") if row["point"] else 2.0
    RunDirectory.open(run).add_results(rows)
    assert "general_perplexity" in texts(plot_runs([run], only=["forgetting"])[1])


def test_the_names_of_many_experiences_become_numbers_with_a_footer(make_run, tmp_path):
    stream = [(f"medical-textbooks-{number}", 1, 100_000) for number in range(6)]
    words = texts(plot_runs([make_run(tmp_path / "many", stream=stream)], only=["forgetting"])[1])
    assert "6" in words
    assert any("6 medical-textbooks-5" in word for word in words)


def test_a_short_second_experience_is_given_its_own_scale(make_run, tmp_path):
    stream = (("pretraining", 3, 2_250_000_000), ("finetuning", 1, 10_000_000))
    words = texts(plot_runs([make_run(tmp_path / "paper", stream=stream)], only=["forgetting"])[1])
    assert "domain tokens (one scale per experience)" in words
    assert {"750M", "1.5B", "2.25B", "2.26B"} <= set(words)


def test_seeds_that_overshoot_have_one_boundary(make_run, tmp_path):
    streams = [(("abstracts", 1, size), ("questions", 1, 49_000)) for size in (98_304, 101_000)]
    runs = [make_run(tmp_path / str(seed), seed=seed, stream=stream) for seed, stream in enumerate(streams)]
    for run, stream in zip(runs, streams, strict=True):
        RunDirectory.open(run).add_trainings(training_rows(stream=stream))
    for name in ("forgetting", "training"):
        for axes in figures(runs)[name]().axes:
            assert [line.get_xdata()[0] for line in axes.lines if line.get_color() == "#999999"] == [101_000]
            assert axes.get_xlabel() == "domain tokens"  # one scale


def test_each_panel_names_the_experiences_of_the_runs_in_it(make_run, tmp_path):
    runs = []
    for name, names in (("english", ("abstracts", "questions")), ("chinese", ("doctors", "exam"))):
        stream = [(each, 1, 100_000) for each in names]
        benchmarks = {f"{name}-exam": ("gain", (), 0.2, 0.3), "mmlu": ("retention", (), 0.6, -0.2)}
        runs.append(make_run(tmp_path / name, name, stream=stream, benchmarks=benchmarks))
        sources = ((name, "web"), (name, "web"))
        RunDirectory.open(runs[-1]).add_trainings(training_rows(stream=stream, sources=sources))
    every = {"abstracts", "questions", "doctors", "exam"}
    for figure in ("forgetting", "training"):
        drawn = figures(runs)[figure]()
        found = [[text.get_text() for text in axes.texts] for axes in drawn.axes]
        named = [every & {*words} for words in found]
        assert {"abstracts", "questions"} in named and {"doctors", "exam"} in named
        for words, names in zip(found, named, strict=True):
            assert bool(names) != ("english" in words and "chinese" in words), words
        assert_legible(drawn)


def test_dollars_in_a_name_are_not_mathematics(make_run, tmp_path):
    assert "a$b$" in " ".join(texts(plot_runs([make_run(tmp_path / "x", "a$b$")], only=["forgetting"])[1]))


def test_nothing_to_plot_is_an_error(tmp_path, make_run):
    with pytest.raises(UserError, match="No run is given"):
        plot_runs([])
    with pytest.raises(UserError, match="no such folder"):
        plot_runs([tmp_path / "nowhere"])
    run = RunDirectory.create(tmp_path / "fresh", "name: fresh\n", {})
    with pytest.raises(UserError, match=r"no results yet \(running\)"):
        plot_runs([run.path])
    with pytest.raises(UserError, match="base model only"):
        plot_runs([make_run(tmp_path / "base", unmeasured=4)])


def test_chinese_labels_without_a_font_are_told_which_package_to_install(caplog, monkeypatch):
    from matplotlib import font_manager

    assert fonts.han_fonts("no such characters") == []
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    with caplog.at_level(logging.WARNING):
        assert fonts.han_fonts("重放") == []
    assert "fonts-noto-cjk" in caplog.text


def test_importing_the_modules_stays_light():
    code = "import sys, clmed.results.plots, clmed.results.table; print(*sys.modules)"
    modules = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not modules & {"torch", "transformers", "datasets", "avalanche", "pyarrow", "matplotlib"}


def test_a_font_is_used_only_if_it_holds_the_characters(monkeypatch):
    import matplotlib

    dejavu = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(dejavu)])
    monkeypatch.setattr(fonts, "FILES", re.compile("dejavu", re.IGNORECASE))
    assert fonts.han_fonts("重放") == []
    # What it does hold of this range.
    monkeypatch.setattr(fonts, "HAN", re.compile("[é\u2264]"))
    assert fonts.han_fonts("é ≤ 1") == ["DejaVu Sans"]


def test_labels_of_many_runs_neither_overlap_nor_leave_the_page(make_run, tmp_path):
    names = [f"replay-of-share-{number:02d}-seed" for number in range(14)]
    figure = figures([make_run(tmp_path / name, name, seed=index) for index, name in enumerate(names)])["forgetting"]()
    page, renderer = figure.bbox, figure.canvas.get_renderer()
    for axes in figure.axes:
        labels = [text for text in axes.texts if "share" in text.get_text() or text.get_text() == "base"]
        boxes = sorted((text.get_window_extent(renderer) for text in labels), key=lambda box: box.y0)
        assert len(boxes) == 15 and all(page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
        assert all(one.y1 <= other.y0 + 2 for one, other in itertools.pairwise(boxes)), "labels overlap"
