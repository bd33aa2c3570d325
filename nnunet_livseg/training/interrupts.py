"""Signals that end a job: a training is told to stop, and stops between two steps.

Slurm and other schedulers send SIGTERM, or SIGUSR1 where asked to, some time before they kill a job. The first one is
only noted; the trainer asks for it between two steps, writes its checkpoint and leaves with ``TO_BE_CONTINUED``.
"""

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

import torch
import torch.distributed as dist
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_livseg.training.checkpoints import LATEST, TO_BE_CONTINUED


class AskedToLeave(Exception):
    """Leaves nnU-Net's training loop."""


class StopSignals:
    """Notes the signals that ask a process to end, while it is entered; afterwards the earlier handlers are back.

    A handler that was set before stays, and outside the main thread, where Python allows no handlers, nothing
    is noted.

    Attributes:
        received: Name of the first signal that came, or ``None``.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._process = os.getpid()
        self._earlier: dict[int, signal.Handlers] = {}

    def __enter__(self) -> "StopSignals":
        self.received, self._process = None, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in _stop_signals():
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._earlier[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._earlier:
            signal.signal(*self._earlier.popitem())

    def ask(self, trainer: nnUNetTrainer) -> bool:
        """Whether to leave now; all of DDP's processes ask at the same step and get the same answer."""
        asked = self.received is not None
        if trainer.is_ddp:
            flag = torch.tensor(float(asked), device=trainer.device)
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            asked = bool(flag)
        return asked

    def raise_if_asked(self, trainer: nnUNetTrainer) -> None:
        """Leave nnU-Net's training loop, if it is time to.

        Raises:
            AskedToLeave: It is.
        """
        if self.ask(trainer):
            raise AskedToLeave

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            self.received = self.received or signal.Signals(number).name
        elif number == signal.SIGTERM:  # a data-loading process, forked with this handler: it ends as ever
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        # else: SIGUSR1 to the whole job; data loading goes on until the training has finished its step


def save_and_leave(trainer: nnUNetTrainer, signals: StopSignals) -> NoReturn:
    """Save the weights beside the log of the complete epochs, so that ``--c`` repeats the running one; then leave.

    A training with a seed saves nothing: its result must not depend on when it was interrupted.
    """
    if trainer.recipe.seed is not None:
        leave(trainer, signals, "A training with a seed continues from its last complete checkpoint.")
    for values in trainer.logger.get_checkpoint().values():
        del values[trainer.current_epoch :]
    trainer.current_epoch -= 1  # save_checkpoint adds one
    trainer.save_checkpoint(str(Path(trainer.output_folder, LATEST)))
    trainer.current_epoch += 1
    state = f"{LATEST} has the weights of this moment; epoch {trainer.current_epoch} will be repeated."
    leave(trainer, signals, "Nothing is saved: checkpoints are off." if trainer.disable_checkpointing else state)


def leave(trainer: nnUNetTrainer, signals: StopSignals, state: str) -> NoReturn:
    """End the process with an exit status that tells its caller to continue with ``--c``.

    Raises:
        SystemExit: Always.
    """
    name = signals.received or "A signal to another process"
    trainer.print_to_log_file(f"{name}: stopping here. {state} Continue with --c (exit status {TO_BE_CONTINUED}).")
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()
    raise SystemExit(TO_BE_CONTINUED)


def _stop_signals() -> list[int]:
    names = ["SIGTERM", "SIGUSR1"]
    if multiprocessing.parent_process() is not None:
        names.append("SIGINT")  # which torch lets DDP's processes have when the process that started them has died
    return [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows has no SIGUSR1
