"""Writing files whole or not at all."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` (same suffixes) that is renamed to it when the block ends without an error.

    The temporary file is removed if the block fails or is interrupted, so a reader finds the old content, the new
    content, or nothing, never a part.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the full suffix stays ("case.nii.gz"), because image writers choose the format by it
    suffix = "".join(path.suffixes)
    handle, name = tempfile.mkstemp(prefix=".incomplete-", suffix=suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _use_default_permissions(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def why_no_file(folder: str | Path) -> str:
    """Why no file can be made in ``folder``, or in the nearest one above that exists; empty where one can."""
    folder = Path(folder).absolute()
    try:
        place = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _use_default_permissions(path: Path) -> None:
    """``mkstemp`` makes private files; give the ones of any new file."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` atomically as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: object, *, default: Callable | None = None) -> None:
    """Write ``content`` atomically as indented JSON, in nnU-Net's manner (keys stay in order)."""
    write_text(path, json.dumps(content, indent=4, default=default) + "\n")
