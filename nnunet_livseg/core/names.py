"""Names that people type, names of files, and names of nnU-Net's datasets."""

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from nnunet_livseg.core.errors import OptionError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")  # of volumes that we name
VOLUME_ENDINGS = (".seg.nrrd", *ENDINGS, ".gipl")  # and read: 3D Slicer saves segmentations as CASE.seg.nrrd


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A question with the closest known names, or an empty string."""
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wrong.lower(), list(lowered), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(lowered[name] for name in close)}?" if close else ""


def require_options(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Reject keyword arguments that ``function`` does not have.

    Raises:
        OptionError: With the closest of ``known``.
    """
    known = sorted(known)
    for name in given:
        if name not in known:
            raise OptionError(
                f"{function}() has no argument {name!r}.{did_you_mean(name, known)}\n  Known: {', '.join(known)}."
            )


def file_name(text: str, *, empty: str = "unnamed") -> str:
    """``text`` with only letters, digits, dots, dashes and underscores; never hidden, never a path."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or empty


def ending(path: Path) -> str:
    """The volume ending of ``path`` in lower case, or an empty string."""
    return next((end for end in VOLUME_ENDINGS if path.name.lower().endswith(end)), "")


def stem(path: Path) -> str:
    """File name without its volume ending."""
    return path.name[: len(path.name) - len(ending(path))] if ending(path) else path.stem


def is_hidden(path: Path) -> bool:
    """Whether the user did not make the file: ``._a.nii.gz`` and ``.DS_Store`` of macOS, temporary files."""
    return path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini")


def shell_path(path: str | Path) -> str:
    """``path`` as it can be pasted into a shell here: relative where it lies below, with quotes where it needs them."""
    here = Path(path).absolute()
    below = here.is_relative_to(Path.cwd())
    return shlex.quote(str(here.relative_to(Path.cwd()) if below else path))


def as_size(sizes: Iterable[float], form: str = "") -> str:
    """``64 x 64 x 32``: a size per axis, each in a ``form`` of Python's ``format``."""
    return " x ".join(format(size, form) for size in sizes)


def numbered_names(name: str) -> Iterator[str]:
    """``name``, ``name-2``, ``name-3``, ...: for things that would otherwise share a name."""
    yield name
    yield from (f"{name}-{number}" for number in count(2))


# --- datasets: what nnU-Net 2.8 finds by a number, and nothing else ---------------------------------------------------

_DATASET_NAME = re.compile(r"Dataset(\d{3}|[1-9]\d{3,})(\D.*)?")


def is_dataset_name(name: str) -> bool:
    """Whether nnU-Net finds a folder ``name`` by its number: ``Dataset003_Liver``, ``Dataset1011_My Liver``."""
    return _DATASET_NAME.fullmatch(name) is not None


def dataset_id(name: str) -> int:
    """The number in a dataset's name."""
    match = _DATASET_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a dataset name")
    return int(match.group(1))


def dataset_number(name: str) -> str:
    """What nnU-Net's commands take after ``-d`` for the dataset ``name``: its number, or the name where it has none."""
    return str(dataset_id(name)) if is_dataset_name(name) else name


def has_id(name: str, number: int) -> bool:
    """Whether nnU-Net takes the dataset ``name`` for ``-d number``: by how it begins, so that 101 is 1011 as well."""
    return is_dataset_name(name) and name.startswith(f"Dataset{number:03d}")


def share_a_number(one: str, other: str) -> bool:
    """Whether nnU-Net finds both datasets by the number of one of them."""
    both = is_dataset_name(one) and is_dataset_name(other)
    return both and (has_id(one, dataset_id(other)) or has_id(other, dataset_id(one)))


def suggest_dataset_name(wrong: str) -> str:
    """A name close to ``wrong`` that nnU-Net finds, for error messages."""
    number = re.search(r"\d+", wrong)
    words = re.sub(r"(?i)dataset|\d+|[^A-Za-z]", "", wrong) or "Phantom"
    return f"Dataset{int(number.group()) if number else 901:03d}_{words}"
