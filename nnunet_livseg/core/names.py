"""Names that people type, and names of files."""

import difflib
import re
from collections.abc import Iterable, Iterator
from itertools import count


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A question with the closest known names, or an empty string."""
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wrong.lower(), list(lowered), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(lowered[name] for name in close)}?" if close else ""


def file_name(text: str, *, empty: str = "unnamed") -> str:
    """``text`` with only letters, digits, dots, dashes and underscores; never hidden, never a path."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or empty


def numbered(name: str) -> Iterator[str]:
    """``name``, ``name-2``, ``name-3``, ...: for what would else have the name of another."""
    yield name
    yield from (f"{name}-{number}" for number in count(2))
