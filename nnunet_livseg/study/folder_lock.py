"""Who writes a folder: a lock that ends with its process, however that ends, and a heartbeat for other machines.

The lock is POSIX's (``fcntl.lockf``): the kernel gives it up when the process ends, and forked workers do not inherit
it. A file system that does not hand locks to other machines still shows the heartbeat, the time of change of the file.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: the heartbeat alone
    fcntl = None

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json

NAME = "livseg_job.lock"
BEAT_S = 20  # between heartbeats
DEAD_S = 180  # without a heartbeat, a job of another machine has ended


class FolderTakenError(UserError):
    """Another process writes the folder."""


@dataclass(frozen=True)
class Holder:
    """The process that has or had a folder, and when it showed that it lives."""

    host: str
    process: int
    slot: str
    beat: float  # seconds since the epoch
    left: bool = False  # it has ended by itself

    def __str__(self) -> str:
        return f"process {self.process} of {self.host}"


@contextmanager
def holding(folder: Path, *, slot: str = "") -> Iterator[None]:
    """Have ``folder`` to oneself inside the block.

    Raises:
        FolderTakenError: Another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, last = folder / NAME, last_holder(folder)  # read first: a process that closes the file gives up its lock
    with path.open("a+") as file:
        if _beats_elsewhere(last) or not _take(file):
            raise FolderTakenError(f"{folder} is being written by {last or 'a new job'}, so nothing is started there.")
        us = {"host": socket.gethostname(), "process": os.getpid(), "slot": slot}
        _write(file, us)
        stop = threading.Event()
        threading.Thread(target=_beat, args=(path, stop), daemon=True).start()
        try:
            yield
        finally:
            stop.set()
            # the file stays: it says that the last writes were ours, and to remove it while another process opens it
            # would make two locks
            _write(file, us | {"left": True})


def holder(folder: Path) -> Holder | None:
    """The process that writes ``folder`` now; not for a folder that this process itself holds."""
    last = last_holder(folder)
    if last is None or last.left:
        return None
    if _beats_elsewhere(last):
        return last
    if fcntl is None:
        return last if time.time() - last.beat < DEAD_S else None
    with suppress(OSError), (folder / NAME).open("r+") as file:
        return None if _take(file) else last
    return None


def last_holder(folder: Path) -> Holder | None:
    """The last process that has had ``folder``, whether it has it now, has left or has died; ``None`` if none has."""
    path = folder / NAME
    try:
        content, beat = read_json(path, keys=("host", "process", "slot"), remedy=""), path.stat().st_mtime
    except (UserError, OSError):
        return None
    return Holder(content["host"], content["process"], content["slot"], beat, content.get("left", False))


def _take(file: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _beats_elsewhere(last: Holder | None) -> bool:
    """Whether a job of another machine is alive, as far as its heartbeat tells."""
    return last is not None and not last.left and last.host != socket.gethostname() and time.time() - last.beat < DEAD_S


def _write(file: IO[str], content: Mapping[str, Any]) -> None:
    with suppress(OSError):
        file.seek(0)
        file.truncate()
        file.write(json.dumps(content))
        file.flush()


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        with suppress(OSError):
            os.utime(path)
