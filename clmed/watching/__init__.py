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

from clmed.results.rundir import RunDirectory, is_run
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

    Without a terminal only the last look is printed.
    """
    follower = None
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                if not is_run(path):  # not yet, or not any more: it is being made anew
                    follower = None
                    live.update(Text(f"waiting for a run in {path} (Ctrl-C ends this)"), refresh=True)
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
