"""The folder that a command writes: whether it may, before any work is done, and what of the work is finished."""

import tempfile
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import as_read, read_json, write_json
from nnunet_livseg.core.names import ENDINGS, ending, is_hidden, stem


def require_folder(
    folder: str | Path,
    *,
    inputs: Iterable[str | Path] = (),
    writes: Collection[str] = ("*",),
    record: str = "",
    remedy: str = "Choose another folder.",
) -> Path:
    """Reject a folder that a command cannot or must not write; nothing is made or left there.

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


def foreign_files(folder: Path, files: Collection[str], *, made_before: bool) -> list[str]:
    """Names of files in ``folder`` that a command would replace, although it did not make them.

    Args:
        folder: Where to; it need not exist.
        files: Patterns of the names of files that the command writes.
        made_before: Whether there is a record of an earlier call, whose files they are.
    """
    if made_before or not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if any(fnmatch(path.name, pattern) for pattern in files))


def require_nothing_foreign(folder: Path, files: Collection[str], *, record: str, made_before: bool) -> None:
    """Reject a folder with ``foreign_files``; ``record`` is the file that would say that they are the command's own.

    Raises:
        UserError: There are some.
    """
    if names := foreign_files(folder, files, made_before=made_before):
        raise UserError(
            f"{folder} contains {', '.join(names)} that this command did not write (there is no {record}), and the"
            " result would replace it.\n  Choose another folder, or move it away."
        )


def require_volume_name(path: Path) -> None:
    """Reject an output name that no volume can have, before any work is done."""
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


class RunRecord:
    """A JSON file beside results: what they are made with, and an entry for each that is finished.

    The file is written anew after each result, so that a command goes on where it was interrupted.

    Args:
        path: The file.
        content: What is in it.
        key: Under which the entries lie, by name.
    """

    def __init__(self, path: Path, content: dict, *, key: str) -> None:
        self.path, self.content, self.entries = path, content, content[key]

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any], *, key: str, remedy: str) -> "RunRecord":
        """The record that is there, whatever its settings, or a new one, which is not written yet.

        Raises:
            UserError: The one that is there is damaged; the message ends with ``remedy``.
        """
        if not path.is_file():
            return cls(path, {**settings, key: {}}, key=key)
        content = read_json(path, keys=(*settings, key), remedy=remedy)
        if not isinstance(content[key], dict):
            raise UserError(f"{path} is damaged: {key} is not an object.\n  {remedy}")
        return cls(path, content, key=key)

    def differing(self, settings: Mapping[str, Any]) -> list[str]:
        """The keys of ``settings`` that have other values here."""
        return [key for key, value in as_read(settings).items() if self.content.get(key) != value]

    def is_done(self, name: str, files: Iterable[Path]) -> bool:
        """Whether ``name`` has an entry and its ``files`` are there."""
        return name in self.entries and all(path.is_file() for path in files)

    def add(self, name: str, entry: object) -> None:
        """Record a finished result."""
        self.entries[name] = entry
        self.save()

    def save(self) -> None:
        """Write the file as it is."""
        write_json(self.path, self.content)
