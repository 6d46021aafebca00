"""What a user can mend is a UserError; everything else is a bug and keeps its traceback."""


class UserError(Exception):
    """A mistake in the input: the message is one paragraph that names the place and the way out (exit code 2)."""
