"""Following a run from outside, by reading its directory alone.

tail       what is new in a file that grows by lines
follow     what is known of the run: its place in the stream, speed, time left, last measurement, state
panel      that, for the terminal
"""

import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from clmed.results.rundir import STATUS, RunDirectory, is_run
from clmed.watching.follow import Follower
from clmed.watching.panel import panel

EVERY = 1.0  # seconds between two looks
CODES = {"complete": 0, "killed": 1, "stopped": 75}


def once(path: Path, console: Console) -> int:
    """Print what is known now. Raises UserError, which names runs nearby, where there is none."""
    seen = Follower(RunDirectory.open(path)).look()
    console.print(panel(path.name, seen))
    return CODES.get(seen.state, 0)


def until_over(path: Path, console: Console, every: float = EVERY) -> int:
    """Follow a run to its end, one that has not begun yet, too; the exit code that says how it ended.

    Without a terminal the last look alone is printed and, before it, what is waited for.
    """
    follower, waiting = None, ""
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                if not is_run(path):  # not yet, or not any more: it is being made anew
                    follower, before, waiting = None, waiting, _waiting(path)
                    live.update(Text(waiting), refresh=True)
                    if waiting != before and not console.is_terminal:
                        console.print(waiting, markup=False)
                else:
                    follower = follower or Follower(RunDirectory.open(path))
                    seen = follower.look()
                    live.update(panel(path.name, seen), refresh=True)
                    if seen.over:
                        break
                time.sleep(every)
        console.print(panel(path.name, seen))
    except KeyboardInterrupt:
        console.print("no longer watching; the run goes on")
        return 130
    return CODES[seen.state]


def _waiting(path: Path) -> str:
    """What for; a status is written whole, so that one which is none is not a run's beginning."""
    if (path / STATUS).exists():
        return f"{path / STATUS} is damaged: waiting until it is mended or the run is made anew (Ctrl-C ends this)"
    return f"waiting for a run in {path} (Ctrl-C ends this)"
