"""What a command of ``livseg`` is, and how it is found and run.

A command is a module of this package. Its docstring's first line is the help text, ``STEP`` names its group in
``livseg --help``; ``add_arguments(parser)`` declares its arguments and ``run(args)`` does the work and returns an exit
status (``None`` is 0). A command that hands what it does not know on to nnU-Net sets ``PASSES_ON = True`` and finds it
in ``args.passed_on``. Commands import nothing heavy at module level, so that ``livseg --help`` answers at once; that is
why they are not registered anywhere else.
"""

import argparse
import atexit
import gc
import importlib
import os
import pkgutil
import select
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

from nnunet_livseg import __version__
from nnunet_livseg.cli.shared_options import DONE_BUT, SYNONYMS
from nnunet_livseg.core.errors import DoneButError, asks_for_report, explain, is_fault
from nnunet_livseg.core.names import did_you_mean

STEPS = ("data in", "plan and train", "predict", "evaluate", "more")  # groups of commands, in the order of the work
USAGE = 2  # exit status: the command line itself is wrong
_ROUNDS = 1000  # of looking for garbage among young objects before all are looked at; torch and nnU-Net make 400,000
_PIPE_CLOSED = 141  # as a shell counts a program that SIGPIPE has ended
STATUSES = "exit status: 0 done, 1 an error that the message explains, 2 wrong usage, 3 done, but something was skipped"
_OWN_SIGNALS = ("study",)  # its trainings take signals, and leave handlers alone that are there before them
_NO_COMMANDS = ("__main__", "dispatch", "shared_options")  # the modules of this package that are none


def commands() -> list[str]:
    """Names of all commands, as typed after ``livseg``."""
    names = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name.replace("_", "-") for name in names if name not in _NO_COMMANDS)


def _module(command: str):
    return importlib.import_module(f"{__package__}.{command.replace('-', '_')}")


def commands_of(step: str) -> list[str]:
    """Names of the commands of one of ``STEPS``."""
    return [command for command in commands() if step == _module(command).STEP]


def summary(command: str) -> str:
    """What a command does, in one line."""
    return (_module(command).__doc__ or "").strip().splitlines()[0]


def _overview() -> str:
    lines = [
        "usage: livseg COMMAND [options]",
        "",
        "Liver and liver-tumor segmentation in CT on nnU-Net.",
        "Training and prediction are nnU-Net's own commands: nnUNetv2_train DATASET 3d_fullres 0 -tr DPCNetTrainer",
    ]
    for step in STEPS:
        lines += ["", f"{step}:"]
        lines += [f"  {command:<12} {summary(command)}" for command in commands_of(step)]
    lines += [
        "",
        "livseg COMMAND --help explains one command; livseg --version prints the version.",
        STATUSES,
    ]
    return "\n".join(lines)


class _Parser(argparse.ArgumentParser):
    """A parser that takes options in full only, so that a wrong one is never taken for another, and is brief."""

    def __init__(self, **settings):
        settings = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **settings}
        super().__init__(**settings)

    def error(self, message):
        self.exit(USAGE, f"{self.prog}: {message}\n  {self.prog} --help explains all options.\n")


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    module = _module(command)
    parser = _Parser(prog=f"livseg {command}", description=module.__doc__, epilog=STATUSES)
    module.add_arguments(parser)
    return parser


def all_parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """A parser and those of its steps, such as ``livseg two-stage predict``."""
    steps = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(one for action in steps for step in action.choices.values() for one in all_parsers(step))]


def _parse(command: str, argv: list[str]) -> argparse.Namespace:
    parser = parser_of(command)
    args, unknown = parser.parse_known_args(argv)
    if getattr(_module(command), "PASSES_ON", False):
        args.passed_on = unknown
    elif unknown:
        step = getattr(args, "step", None)
        asked = next((one for one in all_parsers(parser) if one.prog == f"{parser.prog} {step}"), parser)
        asked.error(_unknown(unknown, list(asked._option_string_actions)))
    return args


def _unknown(arguments: list[str], known: list[str]) -> str:
    wrong = next((text for text in arguments if text.startswith("-")), None)
    if wrong is None:
        return f"unexpected argument {arguments[0]!r}."
    wrong = wrong.partition("=")[0]
    meant = SYNONYMS.get(wrong)
    question = f" Did you mean {meant}?" if meant in known else did_you_mean(wrong, known)
    return f"there is no option {wrong}.{question}"


def main(argv: list[str] | None = None) -> int:
    """Run ``livseg`` with ``argv`` (default: the process's arguments); returns the exit status."""
    if hasattr(sys.stdout, "reconfigure"):  # names of files may hold what its encoding lacks: no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            if sys.stdout is not None:  # as it is where a scheduler has closed it
                sys.stdout.flush()  # a reader that has gone away, as in livseg list | head, is noticed here
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return _PIPE_CLOSED


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"nnunet-livseg {__version__}")
        return 0
    command, rest = argv[0], argv[1:]
    if command not in commands():
        print(f"livseg: there is no command {command!r}.{did_you_mean(command, commands())}", file=sys.stderr)
        print("  livseg --help lists all commands.", file=sys.stderr)
        return USAGE
    args = _parse(command, rest)
    # of a library that nnU-Net imports; nothing that users could do about it
    warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
    try:
        with _rare_collections(), nullcontext() if command in _OWN_SIGNALS else _raising_at_signals():
            return _module(command).run(args) or 0
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as interruption:
        how = f"ended by {interruption.name}" if isinstance(interruption, _ToldToEnd) else "interrupted"
        print(
            f"\nlivseg {command}: {how}. What was finished is kept; run the same command again to go on.",
            file=sys.stderr,
        )
        return 128 + getattr(interruption, "number", signal.SIGINT)
    except Exception as error:
        if is_fault(error):
            print(f"livseg {command}: a fault of this program. {asks_for_report()}", file=sys.stderr)
            raise
        print(f"livseg {command}: {explain(error)}", file=sys.stderr)
        return DONE_BUT if isinstance(error, DoneButError) else 1


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage less often, and not at all in what is still there at the end: over a second of each command."""
    usual = gc.get_threshold()
    gc.set_threshold(*usual[:2], _ROUNDS)
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class _ToldToEnd(KeyboardInterrupt):
    """A signal asks the process to end: it ends as at Ctrl-C, so that no temporary file stays."""

    def __init__(self, number: int) -> None:
        self.number, self.name = number, signal.Signals(number).name


@contextmanager
def _raising_at_signals() -> Iterator[None]:
    """Raise ``_ToldToEnd`` at the first signal; the second one ends the process, and so does the first in a child."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    process, taken = os.getpid(), []

    def raise_at(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != process:
            os.kill(os.getpid(), number)
        raise _ToldToEnd(number)

    if threading.current_thread() is threading.main_thread():  # others may set no handlers
        taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, raise_at)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _reader_is_gone() -> bool:
    """Whether what we print goes nowhere; from then on it goes to the null device, also what is printed at the end."""
    gone = [stream for stream in (sys.stdout, sys.stderr) if stream is not None and _is_closed(stream)]
    for stream in gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(gone)


def _is_closed(stream: TextIO) -> bool:
    if not hasattr(select, "poll"):  # Windows: no other pipe of ours is known to break
        return stream is sys.stdout
    poll = select.poll()
    poll.register(stream, 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))
