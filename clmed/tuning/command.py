"""`clmed tune`, from its file to its report."""

from rich.console import Console
from rich.markdown import Markdown

from clmed.results.files import write_whole
from clmed.sweep.command import following, sigterm_stops
from clmed.sweep.local import Jobs
from clmed.tuning.compare import Tuning, tune
from clmed.tuning.report import report


def tell(tuning: Tuning, jobs: Jobs) -> bool:
    """Run the tuning and tell what came out; whether all runs are complete."""
    console = Console(highlight=False, markup=False, emoji=False)
    with sigterm_stops(), following(console) as show:
        choices = tune(tuning, jobs, lambda text: console.print(text, soft_wrap=True), show)
    if choices is None:
        return False
    text = report(tuning, choices)
    page = tuning.folder / "tuning.md"
    write_whole(page, text.encode())
    console.print(Markdown(text))
    console.print(f"\nreport   {page}", soft_wrap=True)
    console.print(f"compare  clmed compare {tuning.test.path}/* --by strategy", soft_wrap=True)
    return True
