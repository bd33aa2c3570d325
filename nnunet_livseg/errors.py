"""Errors that are meant for the person at the keyboard."""

import difflib


class UserError(ValueError):
    """Something about the input is wrong: the message says what, why it matters and what to do.

    The command line shows the message without a traceback and exits with status 1; every other exception is a bug and
    keeps its traceback.
    """


def did_you_mean(wrong: str, known: list[str]) -> str:
    """A question with the closest known names, or an empty string."""
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wrong.lower(), list(lowered), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(lowered[name] for name in close)}?" if close else ""
