"""What a run says: the same on the terminal and in its log."""

from pathlib import Path

import pytest

from clmed.planning import PhasePlan, Plan
from clmed.voice import Voice


def test_names_that_look_like_markup_are_said_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = {"[/wiki]": 0.5, "[red]": 0.25, ":smile:": 0.25}
    phase = PhasePlan(name="a", steps=1, domain_tokens=1, all_tokens=1, shares=shares, points=1)
    plan = Plan(
        model="./[bold]",
        parameters=1,
        phases=[phase],
        strategies=[],
        benchmarks=["[/wiki]_perplexity"],
        ranks=1,
        seconds_per_token=1e-6,
    )
    voice = Voice(quiet=False)
    voice.say(plan.table())
    voice.write_to(tmp_path / "log.txt")
    voice.close()
    for told in (capsys.readouterr().out, (tmp_path / "log.txt").read_text()):
        assert "./[bold], 1 parameters" in told and "[/wiki]_perplexity" in told
        assert "[/wiki] 50.0%, [red] 25.0%, :smile: 25.0%" in told


def test_in_a_notebook_the_log_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There rich shows what it prints, whatever file it is given, unless told otherwise."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    voice = Voice(quiet=True)
    assert voice.console.is_jupyter
    voice.write_to(tmp_path / "log.txt")
    voice.say("measured")
    voice.close()
    assert (tmp_path / "log.txt").read_text() == "measured\n"
