"""The files of a study, from a folder or from a safely unpacked zip."""

import errno
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from nnunet_livseg.core.errors import UserError

MAX_FILES = 100_000
MAX_BYTES = 32 * 2**30  # a large study is 4 GB
MAX_RATIO = 200  # CT compresses 2 to 4 times; the masks of 3D-IRCADb 400 times, but they stay below _SMALL
_SMALL = 8 * 2**30  # below this the ratio says nothing dangerous
_IGNORED = {"__MACOSX", ".DS_Store", "Thumbs.db", "DICOMDIR"}
_BAD_NAME = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".gz")


@contextmanager
def opened_folder(path: str | Path) -> Iterator[Path]:
    """The folder ``path``, or a temporary folder with the content of the zip ``path``.

    Raises:
        UserError: Missing, neither folder nor zip, or a zip that is damaged, encrypted, too large or leaves its folder.
    """
    path = Path(path)
    if path.is_dir():
        yield path
    elif zipfile.is_zipfile(_existing(path)):
        with tempfile.TemporaryDirectory(prefix="livseg-zip-") as folder:
            unpack(path, Path(folder))
            yield Path(folder)
    else:
        raise UserError(f"{path} is neither a folder nor a zip archive{_advice(path)}.")


@contextmanager
def dicom_files(path: str | Path) -> Iterator[list[Path]]:
    """All files below a folder, in a zip, or the one file ``path``; those of a zip exist while the block runs.

    Raises:
        UserError: As ``opened_folder``, or there is no file at all.
    """
    path = Path(path)
    single = path.is_file() and not zipfile.is_zipfile(path)
    if single and path.name.lower().endswith((".zip", *_ARCHIVES)):
        raise UserError(f"{path} is not a readable zip archive{_advice(path)}.")
    if single:
        yield [path]
        return
    with opened_folder(path) as folder:
        files = sorted(file for file in folder.rglob("*") if file.is_file() and not _IGNORED & set(file.parts))
        if not files:
            raise UserError(f"{path} contains no files. Give the folder or zip of a DICOM study.")
        yield files


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} does not exist. Correct the path.")
    return path


def _advice(path: Path) -> str:
    if path.name.lower().endswith(_ARCHIVES):
        return "; unpack the archive and give the folder"
    if path.name.lower().endswith(".zip"):
        return ": it is damaged or was not downloaded completely"
    return ""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip, rejecting everything that an honest export of a study does not contain."""
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            _check_entries(archive, entries, folder)
            for entry in entries:
                _unpack_one(content, entry, folder / PurePosixPath(entry.filename))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the archive
        raise UserError(f"{archive} is a damaged zip archive ({error}). Export or download it again.") from error


def _check_entries(archive: Path, entries: list[zipfile.ZipInfo], folder: Path) -> None:
    for entry in entries:
        name, drive = PurePosixPath(entry.filename.replace("\\", "/")), PureWindowsPath(entry.filename).drive
        if name.is_absolute() or ".." in name.parts or drive:
            raise UserError(
                f"{archive} contains {entry.filename!r}, which would be written outside of its folder, so the archive"
                " was not unpacked.\n  Export the study again."
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise UserError(
                f"{archive} contains the symbolic link {entry.filename!r}, which no study has, so the archive was not"
                " unpacked.\n  Export the study again."
            )
        if entry.flag_bits & 1:
            raise UserError(f"{archive} is encrypted. Unpack it with its password and give the folder.")
    total, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if len(entries) > MAX_FILES or total > MAX_BYTES or (total > _SMALL and total > MAX_RATIO * max(packed, 1)):
        raise UserError(
            f"{archive} would unpack to {len(entries):,} files and {total / 2**30:.1f} GiB"
            f" from {packed / 2**20:.1f} MiB, far more than a CT study, so it was not unpacked.\n"
            "  If it is a study, unpack it yourself and give the folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise UserError(
            f"{archive} needs {total / 2**30:.1f} GiB in {folder.parent}, which has {free / 2**30:.1f} GiB free.\n"
            "  Make room, or set TMPDIR to a larger disk."
        )


def _unpack_one(content: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with content.open(entry) as packed, path.open("wb") as file:  # reads no more than the size checked above
            shutil.copyfileobj(packed, file, 1 << 20)
    except OSError as error:
        if error.errno not in _BAD_NAME:
            raise
        raise UserError(
            f"{content.filename} contains {entry.filename[:80]!r}, which cannot be a file here ({error.strerror})."
            "\n  Export the study again, or unpack what you need of it yourself and give the folder."
        ) from error
