"""What ends a run by design: a mistake that the user can mend, or a wish to stop. All else keeps its traceback."""


class UserError(Exception):
    """A mistake in the input: the message is one paragraph that names the place and the way out (exit code 2)."""


class StoppedError(Exception):
    """The run was asked to stop and has saved where it stands (exit code 75: run it again)."""


class LostRankError(Exception):
    """Another process of the run is gone, so this one cannot go on either (exit code 1; each process tells it)."""
