"""Errors that are meant for the person at the keyboard."""


class UserError(ValueError):
    """Something about the input is wrong: the message says what, why it matters and what to do.

    The command line shows the message without a traceback and exits with status 1; every other exception is a bug and
    keeps its traceback.
    """


class DoneButError(UserError):
    """What was asked for is done and kept, but for something beside it; the command line exits with status 3."""
