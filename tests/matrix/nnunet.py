"""nnU-Net's commands without the seconds of imports that a fresh interpreter costs.

A command is the function behind its name in nnU-Net's installation, called with its command line in a process of its
own that is forked from this one, where nnU-Net is imported already. Worker processes of a command are forked as well,
where nnU-Net would start interpreters. Everything else is what a user's command does; ``tests/nnunet`` runs the
commands themselves.
"""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from multiprocessing.connection import Connection
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, TextIO
from unittest.mock import patch

import matplotlib

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.startup import register

PATIENCE_S = 900  # for one command
SLOWEST_IMPORT = "nnunetv2.training.nnUNetTrainer.primus.primus_trainers"  # by every search for a trainer; loads timm
ENVIRONMENT = {
    "nnUNet_n_proc_DA": "0",  # augmentation in the training process
    "nnUNet_def_n_proc": "1",
    "nnUNet_npp": "0",  # prediction without worker processes
    "nnUNet_nps": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore",
}

PLANNER = {"nnUNet_n_proc_DA": "1"}  # which hands the number of workers to torch, which refuses 0


class CommandFailed(Exception):
    """A command of nnU-Net ended with anything but success or a message for its user."""


@dataclass(frozen=True)
class Workplace:
    """nnU-Net's three folders below one, and its commands there."""

    folder: Path

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def preprocessed(self) -> Path:
        return self.folder / "preprocessed"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def said(self) -> str:
        """What the one command in ``log`` has printed, without the command itself."""
        return self.log.read_text().removeprefix("\n$ ").partition("\n")[2]

    def run(self, command: str, *arguments: object, **environment: object) -> None:
        """Run ``command``, with more variables of the ``environment``; its output is appended to ``log``.

        Raises:
            UserError: The command refused, with this message.
            CommandFailed: It ended with another error, or did not end.
        """
        folders = {f"nnUNet_{folder.name}": folder for folder in (self.raw, self.preprocessed, self.results)}
        variables = {name: str(value) for name, value in {**ENVIRONMENT, **folders, **environment}.items()}
        run([command, *map(str, arguments)], variables, self.log)


def run(words: Sequence[str], variables: Mapping[str, str], log: Path, folder: Path | None = None) -> None:
    """Run a command line in ``folder``; its output is appended to ``log``. ``python FILE`` and ``python -c`` are known.

    Raises:
        UserError, CommandFailed: See ``Workplace.run``.
    """
    with patch.dict(os.environ, ENVIRONMENT):  # nnU-Net reads some of it when it is imported
        function = _function(words)
        import_module(SLOWEST_IMPORT)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_command, args=(function, words, variables, log, folder, there))
    process.start()
    there.close()
    process.join(PATIENCE_S)
    if process.is_alive():
        process.kill()
        raise CommandFailed(f"{words[0]} did not end within {PATIENCE_S} s")
    _raise_what_it_says(here, f"{words[0]} ended with status {process.exitcode}")


def forked_run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: TextIO, **_: Any) -> Any:
    """In place of ``subprocess.run``, for programs of this environment whose output goes to a file."""
    program, *arguments = command
    try:
        run([Path(program).name, *arguments], env, Path(stdout.name), cwd)
    except (UserError, CommandFailed):
        return SimpleNamespace(returncode=1)
    return SimpleNamespace(returncode=0)


def _function(words: Sequence[str]) -> Callable[[], Any]:
    """What the command does."""
    command, *arguments = words
    if command != "python":
        (entry,) = entry_points(group="console_scripts", name=command)
        return entry.load()

    def program() -> None:
        sys.argv = sys.argv[1:]
        if arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(arguments[1], {"__name__": "__main__"})
        else:
            sys.path.insert(0, str(Path(arguments[0]).parent))
            run_path(arguments[0], run_name="__main__")

    return program


def _command(
    function: Callable[[], Any],
    words: Sequence[str],
    variables: Mapping[str, str],
    log: Path,
    folder: Path | None,
    answer: Connection,
) -> None:
    """In the new process: be that command, and answer how it ended."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - lives as long as the process
    print("\n$", *words)
    sys.argv = list(words)
    os.environ.update(variables)
    if folder:
        os.chdir(folder)
    any_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: any_context("fork")
    os.cpu_count = lambda: 1  # threads of torch would not survive the fork
    _save_time()
    register()
    try:
        if status := function():  # as the installed script hands it to sys.exit
            raise SystemExit(status)
    except UserError as refusal:
        print(refusal)
        answer.send((UserError, str(refusal)))
    except BaseException as error:
        traceback.print_exc()
        answer.send((CommandFailed, f"{words[0]}: {type(error).__name__}: {error}"))
    else:
        answer.send(None)


def _save_time() -> None:
    """Draw the progress of an epoch small, and sample a fingerprint's intensities sparsely."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    matplotlib.rcParams["figure.dpi"] = 10  # nnU-Net draws 16 megapixels
    initialize = DatasetFingerprintExtractor.__init__

    def few_samples(self: Any, *args: Any, **options: Any) -> None:
        initialize(self, *args, **options)
        self.num_foreground_voxels_for_intensitystats = 1e5  # 1e8, and a pipe from the worker that draws them

    DatasetFingerprintExtractor.__init__ = few_samples


def _raise_what_it_says(answer: Connection, silent: str) -> None:
    try:
        said = answer.recv()
    except EOFError:
        raise CommandFailed(silent) from None
    if said:
        error, message = said
        raise error(message)
