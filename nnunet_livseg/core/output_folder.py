"""The folder that a command writes: whether it may, before any work is done."""

import tempfile
from collections.abc import Collection, Iterable
from fnmatch import fnmatch
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import ENDINGS, ending, is_hidden, stem


def require_folder(
    folder: str | Path,
    *,
    inputs: Iterable[str | Path] = (),
    writes: Collection[str] = ("*",),
    record: str = "",
    remedy: str = "Choose another folder.",
) -> Path:
    """Refuse a folder that a command cannot or must not write; nothing is made or left there.

    Args:
        folder: Where to; it need not exist.
        inputs: Files and folders that are read. The output must not be in such a folder, nor replace such a file.
        writes: Patterns of the names of files that are written into ``folder``.
        record: A file that the command always writes; without it a folder with anything in it is somebody else's.
        remedy: What to do instead: the last line of the message.

    Raises:
        UserError: It is named like a file, its path leads through a file, it takes no file, it is in or over an input,
            or it holds what the command did not make.
    """
    folder = Path(folder)
    if (looks := ending(folder)) and not folder.exists():
        raise UserError(
            f"the output {folder} is a folder, but its name looks like that of a file ({looks})."
            f"\n  Name a folder: {folder.with_name(stem(folder))}"
        )
    if blocking := next((place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()), None):
        raise UserError(f"{folder} cannot be a folder, because {blocking} is a file.\n  {remedy}")
    place = folder.resolve()
    for path in (Path(given).resolve() for given in inputs):
        over = path.parent == place and any(fnmatch(path.name, pattern) for pattern in writes)
        if over or (path.is_dir() and place.is_relative_to(path)):
            raise UserError(
                f"the output {folder} would lie among the files of the input {path.name}, or replace it.\n  {remedy}"
            )
    if record and folder.is_dir() and not (folder / record).is_file() and not all(map(is_hidden, folder.iterdir())):
        raise UserError(
            f"{folder} is not empty and was not made by this command ({record} is missing), so it stays as it is."
            f"\n  {remedy}"
        )
    if why := _why_no_file(folder):
        raise UserError(
            f"no file can be made in {folder.absolute()} ({why}), so the results could not be kept."
            f"\n  {remedy} Or ask for permission to write there."
        )
    return folder


def require_volume_name(path: Path) -> None:
    """Refuse an output name that no volume can have, before any work is done."""
    if not ending(path):
        raise UserError(f"{path}: the output must end in one of {', '.join(ENDINGS[:4])}.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write.")
    require_folder(path.parent)


def _why_no_file(folder: Path) -> str:
    """Why no file can be made in ``folder``, or in the nearest one above that exists; empty where one can."""
    folder = folder.absolute()
    try:
        place = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return error.strerror or str(error)
