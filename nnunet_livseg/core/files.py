"""Files written whole or not at all, JSON read with a reason where it cannot be."""

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnunet_livseg.core.errors import FULL, UserError

INCOMPLETE = ".incomplete-"  # how the names of temporary files begin
_FORGOTTEN_AFTER_S = 3600  # seconds; a file that is being written changes more often
_writing: set[Path] = set()  # by this process, at this moment
_looked_through: set[Path] = set()  # folders that this process has searched for leftovers


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` (same suffixes) that is renamed to it when the block ends without an error.

    A reader finds the old content, the new content, or nothing, never a part. The temporary file is removed if the
    block fails; that of a killed process is removed by the next process that writes into the folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _looked_through:
        remove_leftovers(path.parent)
        _looked_through.add(path.parent)
    # the full suffix stays ("case.nii.gz"), because image writers choose the format by it
    suffix = "".join(path.suffixes)
    handle, name = tempfile.mkstemp(prefix=f"{_own_prefix()}-", suffix=suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    _writing.add(temporary)
    try:
        yield temporary
        _use_default_permissions(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        _writing.discard(temporary)


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files that killed processes have left in ``folder``.

    Whether a process of this machine lives is known; a file of another machine is left over when it has not been
    written to for an hour. What cannot be removed stays.
    """
    for path in Path(folder).glob(f"{INCOMPLETE}*"):
        with suppress(OSError):
            if path.is_file() and path not in _writing and _is_left_over(path):
                path.unlink(missing_ok=True)


def _is_left_over(path: Path) -> bool:
    machine, _, rest = path.name.removeprefix(INCOMPLETE).partition("-")
    process = rest.partition("-")[0]
    if machine == _machine() and process.isdecimal() and os.name != "nt":  # where os.kill would end the process
        return int(process) == os.getpid() or not _is_alive(int(process))
    return time.time() - path.stat().st_mtime > _FORGOTTEN_AFTER_S


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _own_prefix() -> str:
    return f"{INCOMPLETE}{_machine()}-{os.getpid()}"


def _machine() -> str:
    """This machine's name, as far as it goes into a file name with dashes between its parts."""
    name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    return "".join(letter for letter in name if letter.isalnum())[:32]


def why_no_bytes(folder: str | Path, count: int = 1 << 20) -> str:
    """Why ``count`` bytes cannot be written into ``folder``; empty where they can. Nothing is left there."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(count))
            file.flush()
            os.fsync(file.fileno())
            return ""
    except OSError as error:
        return error.strerror or str(error)


def is_full(reason: str) -> bool:
    """Whether a reason of ``why_no_bytes`` is a full disk, a quota or a limit of the file system."""
    return reason in {os.strerror(number) for number in FULL}


def _use_default_permissions(path: Path) -> None:
    """``mkstemp`` makes private files; give the ones of any new file."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` atomically as UTF-8; bytes of file names that are none are spelled out."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, content: object, *, default: Callable | None = None) -> None:
    """Write ``content`` atomically as indented JSON, in nnU-Net's manner (keys stay in order).

    JSON has no NaN and no infinity: ``null`` and ``"Infinity"`` stand for them.
    """
    write_text(path, json.dumps(_finite(content), indent=4, default=default) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def with_floats(value: object) -> object:
    """Numbers as they were before ``write_json`` wrote them: NaN for ``null``, infinity for its name."""
    if isinstance(value, dict):
        return {key: with_floats(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [with_floats(entry) for entry in value]
    if value is None:
        return math.nan
    return {"Infinity": math.inf, "-Infinity": -math.inf}.get(value, value) if isinstance(value, str) else value


def read_json(path: str | Path, *, keys: Collection[str] = (), remedy: str, by_hand: bool = False) -> dict:
    """The object in a JSON file.

    Args:
        path: The file, UTF-8.
        keys: Keys that it must have.
        remedy: What to do where it cannot be used: the last line of the message.
        by_hand: People write this file, so a mistake in it is not called damage.

    Raises:
        UserError: There is none, it is no JSON (with the line), holds no object, or lacks a key.
    """
    content = read_json_value(path, remedy=remedy, by_hand=by_hand)
    damaged = "" if by_hand else "is damaged: it "
    if not isinstance(content, dict):
        raise UserError(f"{path} {damaged}contains a {type(content).__name__} and not an object.\n  {remedy}")
    missing = [repr(key) for key in keys if key not in content]
    if missing:
        raise UserError(f"{path} {damaged}has no {' and no '.join(missing)}.\n  {remedy}")
    return content


def read_json_value(path: str | Path, *, remedy: str, by_hand: bool = False) -> Any:
    """``read_json`` for a file that may hold a list."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.\n  {remedy}") from None
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} (line {error.lineno})" if error.doc.strip("\0 \r\n\t") else "the file is empty"
        wrong = "is not valid JSON" if by_hand else "is damaged"
        raise UserError(f"{path} {wrong}: {reason}.\n  {remedy}") from None


def as_read(content: object) -> Any:
    """``content`` as a JSON file gives it back: a copy, with lists for tuples."""
    return json.loads(json.dumps(content))


def stamps(paths: Iterable[Path]) -> list[list]:
    """Path, size and time of change of each file: hashing the content would take as long as working on it."""
    stats = [(path, path.stat()) for path in paths]
    return [[str(path.resolve()), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


def digest(content: object) -> str:
    """SHA-256 of ``content`` as JSON."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
