"""What the figures show is what the runs hold: artists' data against the rows, and every text can be read."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from legible import assert_legible
from lifelike import lifelike_rows, training_rows
from scipy import stats

from clmed.errors import UserError
from clmed.results.metrics import gain, retention
from clmed.results.plots import DRAWN, figures, plot_runs, render
from clmed.results.plots.fonts import han_fonts
from clmed.results.plots.mixture import mixture
from clmed.results.plots.training import smooth
from clmed.results.rundir import VARIANTS, RunDirectory
from clmed.results.runs import Run


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> list[Path]:
    """Three seeds of replay, with training rows; naive and its averages with the base."""
    folder, runs = tmp_path_factory.mktemp("runs"), []
    for name, seed, keeps in (("replay", 0, 0.6), ("replay", 1, 0.6), ("replay", 2, 0.6), ("naive", 0, 0.0)):
        run = RunDirectory.create(
            folder / f"{name}-{seed}", f"name: {name}\nseed: {seed}\nstrategy: {{{name}: }}\n", {}
        )
        run.add_results(lifelike_rows(seed=seed, keeps=keeps))
        replayed = {"sources": (("texts", "qa", "general"), ("exam", "general"))} if name == "replay" else {}
        run.add_trainings(training_rows(seed=seed, **replayed))
        run.set_status("complete")
        runs.append(run.path)
    rows = [row for row in lifelike_rows(keeps=0.4) if row["point"] == 4]
    run.add_results([{"alpha": 0.5} | row for row in rows], VARIANTS)
    return runs


@pytest.fixture(scope="module")
def drawn(seeds):
    return {name: draw() for name, draw in figures(seeds).items()}


def scores(run: Path, benchmark: str, category: str = "all") -> list[float]:
    rows = RunDirectory.open(run).results()
    return [100 * row["score"] for row in rows if (row["benchmark"], row["category"]) == (benchmark, category)]


def test_every_figure_can_be_read(drawn, seeds):
    assert list(drawn) == list(DRAWN)
    for figure in [*drawn.values(), *(draw() for draw in figures(seeds[3:]).values())]:
        assert_legible(figure)


def test_three_seeds_are_a_mean_and_a_band(drawn, seeds):
    axes = drawn["forgetting"].axes[0]
    found = np.array([scores(run, "synthetic-cmexam") for run in seeds[:3]])
    line = next(line for line in axes.lines if len(line.get_xdata()) == 5 and line.get_color() == "#0072B2")
    np.testing.assert_allclose(line.get_ydata(), found.mean(axis=0))
    [band] = axes.collections
    half = stats.t.ppf(0.975, 2) * stats.sem(found)
    low, high = found.mean(axis=0) - half, found.mean(axis=0) + half
    heights = {round(y, 6) for _, y in band.get_paths()[0].vertices}
    assert heights == {round(y, 6) for y in [*low[1:], *high[1:], found[0, 0]]}  # the seeds share their base


def test_two_seeds_are_two_lines(seeds):
    axes = figures(seeds[:2])["forgetting"]().axes[0]
    assert not axes.collections
    shown = [tuple(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 5]
    assert shown == [pytest.approx(scores(run, "synthetic-cmexam")) for run in seeds[:2]]


def test_where_a_seed_ends_early_the_mean_ends_too(seeds, tmp_path):
    short = shutil.copytree(seeds[2], tmp_path / "short")
    rows = [row for row in RunDirectory.open(short).results() if row["point"] < 3]
    (short / "results.jsonl").unlink()
    RunDirectory.open(short).add_results(rows)
    axes = figures([*seeds[:2], short])["forgetting"]().axes[0]
    assert max(len(line.get_xdata()) for line in axes.lines if line.get_color() == "#0072B2") == 3


def test_the_plane_shows_gain_and_retention_with_intervals(drawn, seeds):
    [axes] = drawn["plane"].axes
    rows = [RunDirectory.open(run).results() for run in seeds]
    found = 100 * np.array([[gain(each), retention(each)] for each in rows])
    at = {line.get_label(): line.get_xydata()[0] for line in axes.lines if not line.get_label().startswith("_")}
    np.testing.assert_allclose(at["replay (3 seeds)"], found[:3].mean(axis=0))
    np.testing.assert_allclose(at["naive"], found[3])
    low, high = stats.t.interval(0.95, 2, loc=found[:3].mean(axis=0), scale=stats.sem(found[:3]))
    bars = np.array([path.vertices for lines in axes.collections[-2:] for path in lines.get_paths()])
    np.testing.assert_allclose([bars[:, :, 0].min(), bars[:, :, 1].min()], low)
    np.testing.assert_allclose([bars[:, :, 0].max(), bars[:, :, 1].max()], high)
    legend = [text.get_text() for text in drawn["plane"].legends[0].get_texts()]
    assert "beyond the trivial front" in legend and "averages with the base" in legend and "not beyond it" not in legend
    averages = next(line for line in axes.lines if line.get_marker() == "s" and line.get_markersize() == 2)
    half = lifelike_rows(keeps=0.4)
    np.testing.assert_allclose(averages.get_xydata(), [[100 * gain(half), 100 * retention(half)]])


def test_thirty_methods_in_the_plane_can_be_read(tmp_path, make_run):
    names = [f"method-{'x' * (number % 5)}-{number}" for number in range(30)]
    runs = [make_run(tmp_path / name, name, keeps=(n % 6) / 6, seed=n // 6) for n, name in enumerate(names)]
    figure = figures(runs)["plane"]()
    assert_legible(figure)
    assert figure.get_figwidth() == 3.3
    assert {text.get_text().replace("\n", "") for text in figure.axes[0].texts} == {*names, "base"}


def test_names_that_are_far_too_long_are_cut(tmp_path, make_run):
    runs = [make_run(tmp_path / name, name) for name in ("a", "b" * 90, "b" * 91)]
    for run in runs:
        RunDirectory.open(run).add_trainings(training_rows())
    for name, draw in figures(runs).items():
        figure = draw()
        assert_legible(figure)
        if name != "mixture":  # "a and 2 more"
            assert any(text.get_text().endswith("…") for axes in figure.axes for text in axes.texts)


def test_the_heat_map_holds_the_changes_worst_first(drawn, seeds):
    figure = figures(seeds[3:])["heatmap"]()
    axes = next(axes for axes in figure.axes if axes.texts and axes.texts[0].get_text() == "synthetic-mmlu")
    whole, categories, subjects = axes.collections
    for mesh, names in (
        (whole, ["all"]),
        (categories, ["STEM", "other", "humanities", "social"]),
        (subjects, ["anatomy"]),
    ):
        prefix = "subject:" if mesh is subjects else ""
        found = {name: scores(seeds[3], "synthetic-mmlu", prefix + name) for name in names}
        expected = sorted(([s - line[0] for s in line[1:]] for line in found.values()), key=lambda line: line[-1])
        np.testing.assert_allclose(mesh.get_array(), expected)
        assert mesh.norm.vmin == -mesh.norm.vmax
    # Several methods: a column for each, the mean over its seeds.
    axes = next(axes for axes in drawn["heatmap"].axes if axes.texts and axes.texts[0].get_text() == "synthetic-mmlu")
    lines = [scores(run, "synthetic-mmlu") for run in seeds]
    ends = [line[-1] - line[0] for line in lines]
    np.testing.assert_allclose(axes.collections[0].get_array(), [[np.mean(ends[:3]), ends[3]]])
    assert {f"{np.mean(ends[:3]):+.0f}".replace("-", "−"), "replay (3 seeds)"} <= {t.get_text() for t in axes.texts}


@pytest.mark.skipif(not han_fonts("医"), reason="needs a font with Chinese characters")
def test_all_subjects_of_mmlu_and_cmmlu_can_be_read(tmp_path, recwarn):
    subjects = [f"high_school_government_and_politics_{number}" for number in range(56)]
    names = {"mmlu": ["STEM", *subjects], "cmmlu": ["人文学科", *(f"中医药-{number}" for number in range(66))]}
    run, noise, rows = RunDirectory.create(tmp_path / "run", "name: run\n", {}), np.random.default_rng(0), []
    for point, experience in enumerate(["base", "pretraining", "pretraining", "pretraining", "finetuning"]):
        place = {"point": point, "tokens": 10**8 * point, "experience": experience, "final": point not in (1, 2)}
        for benchmark, found in names.items():
            for number, category in enumerate(["all", found[0], *(f"subject:{name}" for name in found)]):
                row = {"role": "retention", "benchmark": benchmark, "shots": 5, "metric": "accuracy", "questions": 9}
                score = 0.5 - 0.1 * point * noise.random() + number / 1e3
                rows.append(place | row | {"category": category, "score": score})
    run.add_results(rows)
    run.set_status("complete")
    figure = figures([run.path])["heatmap"]()
    assert_legible(figure)
    assert figure.get_figwidth() == pytest.approx(6.6)
    render(figure, "svg")
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]


def test_training_curves_are_means_of_the_steps(seeds, drawn):
    line = [(float(number), float(number % 7)) for number in range(250)]
    for windows in (1, 7, 100, 249, 250, 900):
        means = smooth(line, windows)
        assert len(means) == min(windows, 250)
    assert smooth(line, 250) == line
    assert smooth(line, 2) == [tuple(np.mean(line[:125], axis=0)), tuple(np.mean(line[125:], axis=0))]
    titles = [axes.texts[2].get_text() for axes in drawn["training"].axes]
    assert titles == ["texts", "qa", "general", "exam", "learning rate"]

    loss, rate = figures(seeds[3:])["training"]().axes
    rows = RunDirectory.open(seeds[3]).training()
    pale = [line.get_xydata() for line in loss.lines if line.get_alpha() == 0.3]
    own = [[(row["tokens"], row["loss/texts"]) for row in rows if "loss/texts" in row]]
    np.testing.assert_allclose(pale[0], own[0])
    means = [line.get_xydata() for line in rate.lines if len(line.get_xdata()) == 100]
    first = [(row["tokens"], row["lr"]) for row in rows if row["experience"] == "medical-pretraining"]
    np.testing.assert_allclose(means[0], smooth(first))


def test_the_mixture_adds_up_and_runs_alike_share_a_panel(seeds, drawn, tmp_path):
    [first, second] = mixture(Run(path=seeds[0]), ["texts", "qa", "general", "exam"])
    np.testing.assert_allclose(first[1], [[1 / 3, 1 / 3, 1 / 3, 0]] * 25)
    np.testing.assert_allclose(second[1], [[0, 0, 1 / 2, 1 / 2]] * 25)
    assert first[0][0] == 0 and first[0][-1] == second[0][0] == 400_000 and second[0][-1] == 520_000
    figure = drawn["mixture"]
    assert [axes.texts[2].get_text() for axes in figure.axes] == ["replay", "naive"]
    tops = [patch.get_data().values for patch in figure.axes[0].patches]
    np.testing.assert_allclose([top[0] for top in tops], [100 / 3, 200 / 3, 100, 50, 100])

    # Every other step is of general text alone, which is no domain token.
    run = RunDirectory.create(tmp_path / "interleaved", "name: interleaved\n", {})
    steps = [{"experience": "e", "tokens": 100 * (n // 2 + 1), f"share/{'ab'[n % 2]}": 1.0} for n in range(200)]
    run.add_trainings(steps)
    [(edges, shares)] = mixture(Run(path=run.path), ["a", "b"])
    np.testing.assert_allclose(shares, np.full((25, 2), 0.5))
    np.testing.assert_allclose(edges, np.linspace(0, 10_000, 26))

    alone = figures(seeds[:2])["mixture"]()
    assert len(alone.axes) == 1


@pytest.mark.parametrize(("format", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_every_format_is_the_same_twice(seeds, tmp_path, format, start):
    [one], [other] = (plot_runs(seeds[3:], tmp_path / name, only=["mixture"], formats=[format]) for name in "ab")
    assert one == tmp_path / "a" / f"mixture.{format}"
    assert one.read_bytes() == other.read_bytes() and one.read_bytes().startswith(start)


def test_without_a_choice_all_that_can_be_drawn_is_written(seeds, tmp_path):
    files = plot_runs(seeds[3:], tmp_path, formats=["svg"])
    assert files == [tmp_path / f"{name}.svg" for name in ("forgetting", "heatmap", "training", "mixture")]
    for file, draw in zip(files, figures(seeds[3:]).values(), strict=True):
        assert file.read_bytes() == render(draw(), "svg")


def test_a_run_in_its_first_experience_has_training_curves_already(tmp_path, make_run):
    run = make_run(tmp_path / "run", unmeasured=4, state="running")
    RunDirectory.open(run).add_trainings(training_rows()[:20])
    assert list(figures([run])) == ["training", "mixture"]
    for draw in figures([run]).values():
        assert_legible(draw())
    assert [file.name for file in plot_runs([run], tmp_path, formats=["png"])] == ["training.png", "mixture.png"]


def test_what_cannot_be_drawn_is_told(seeds, tmp_path, make_run):
    run = make_run(tmp_path / "run")
    assert set(figures([run])) == {"forgetting", "heatmap"}
    for only, words in ((["plane"], "two methods"), (["mixture"], "training"), (["training"], "training")):
        with pytest.raises(UserError, match=words):
            plot_runs([run], tmp_path, only=only)
    with pytest.raises(UserError, match="no figure 'plain'; did you mean 'plane'"):
        plot_runs([run], tmp_path, only=["plain"])
    with pytest.raises(UserError, match="no format 'jpeg'"):
        plot_runs([run], tmp_path, formats=["jpeg"])
