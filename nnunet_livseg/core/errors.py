"""Errors that are meant for the person at the keyboard, and one text for all others."""

import errno
import logging
import traceback

log = logging.getLogger(__name__)

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EROFS, errno.EACCES, errno.EPERM}
_WRONG_PATH = {errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR}
_MACHINE = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_shown: set[str] = set()  # tracebacks that this process has logged


class UserError(ValueError):
    """Something about the input is wrong: the message says what, why it matters and what to do.

    The command line shows the message without a traceback and exits with status 1; every other exception is a bug and
    keeps its traceback.
    """


class DoneButError(UserError):
    """The main result is complete, but something beside it is missing; the command line exits with status 3."""


class WriteError(UserError):
    """A file could not be written completely; writing other files would not help."""


class OptionError(UserError, TypeError):
    """A keyword argument that a function does not have."""


class WorkerDied(RuntimeError):
    """A worker process was killed from outside, most often for its memory."""


def is_fault(error: BaseException) -> bool:
    """Whether ``error`` is a bug of this package, not a problem of input, disk or memory."""
    if isinstance(error, OSError):
        return error.errno not in FULL | _NOT_ALLOWED | _WRONG_PATH | _MACHINE
    return not isinstance(error, (UserError, WorkerDied)) and not _is_out_of_memory(error)


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's own error, or torch's, which is a RuntimeError on a CPU and a kind of it on a GPU."""
    in_torch = isinstance(error, RuntimeError) and ("out of memory" in str(error) or "alloc" in str(error))
    return isinstance(error, MemoryError) or in_torch


def explain(error: BaseException) -> str:
    """Why something failed: one text for messages, tables and logs, of this process and of its workers.

    A bug asks for a report, and its traceback is logged, once.
    """
    if isinstance(error, (UserError, WorkerDied)):
        return str(error)
    if _is_out_of_memory(error):
        return "there was not enough memory for it.\n  Run fewer at once, or use a larger machine."
    if not is_fault(error):
        return f"{error.strerror or error}{_place(error)}\n  Nothing incomplete was kept. {_remedy(error)}"
    _show_traceback(error)
    return f"a fault of this program ({type(error).__name__}: {error}). {asks_for_report()}"


def asks_for_report() -> str:
    """The request for a bug report that follows a traceback."""
    return "Please report it, with its traceback and what livseg doctor prints."


def explain_case(error: BaseException) -> str:
    """``explain`` for one case of many.

    Raises:
        OSError: A disk or a folder failed, which concerns every case.
        WriteError: Likewise.
    """
    if isinstance(error, (OSError, WriteError)):
        raise error
    return explain(error)


def _place(error: OSError) -> str:
    """The file; where one would have become another, that one: the first is a temporary file of ours."""
    file = error.filename2 or error.filename
    return f": {file}" if file else ""


def _remedy(error: OSError) -> str:
    if error.errno in FULL:
        return "The disk is full, or a quota or limit is reached: make room, and run again."
    if error.errno in _NOT_ALLOWED:
        return "Check the permissions, or choose another folder, and run again."
    if error.errno in _WRONG_PATH:
        return "Check the path, and run again."
    return "Check disk, network drive and memory of this machine, and run again."


def _show_traceback(error: BaseException) -> None:
    text = getattr(error, "traceback_text", None)  # of a worker: exceptions lose theirs on the way between processes
    text = text or "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if text not in _shown:
        _shown.add(text)
        log.error("%s", text.rstrip())
