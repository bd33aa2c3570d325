"""One job of a study in this process: every engine starts jobs through here, and so can a person."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from nnunet_livseg.core.errors import UserError, explain, is_fault
from nnunet_livseg.core.files import read_json, write_json
from nnunet_livseg.core.names import did_you_mean
from nnunet_livseg.study import job_state
from nnunet_livseg.study.folder_lock import FolderTakenError, holding
from nnunet_livseg.study.prepare_dataset import prepare_dataset
from nnunet_livseg.study.study_jobs import REPORT, StudyPlan, Training, preparation
from nnunet_livseg.training.checkpoints import FINAL

SLOT = "LIVSEG_STUDY_SLOT"  # environment: the processor or GPU of this machine that an engine has given the job
_GIB = 2**30


def job_names(plan: StudyPlan) -> list[str]:
    """All jobs of a study."""
    return [*map(preparation, plan.datasets), *plan.by_name, REPORT]


def run_job(plan: StudyPlan, name: str) -> None:
    """Do one job; at once where it is done.

    Raises:
        UserError: There is no such job, another process does it, its dataset is not prepared, or nnU-Net's input is
            wrong.
        SystemExit: The training is to be continued.
    """
    known = job_names(plan)
    if name not in known:
        raise UserError(f"there is no job {name!r}.{did_you_mean(name, known)}\n  livseg study status lists all.")
    if name == REPORT:
        from nnunet_livseg.study.study_report import write_study_report

        write_study_report(plan, latex=True)
        return
    with _noting_failure(plan, name):
        if name in plan.by_name:
            _train(plan, plan.by_name[name])
        else:
            prepare_dataset(plan, name.partition("/")[0], slot=os.environ.get(SLOT, ""))


@contextmanager
def _noting_failure(plan: StudyPlan, name: str) -> Iterator[None]:
    try:
        yield
    except FolderTakenError:  # the other process says how it ends
        raise
    except Exception as error:
        text = traceback.format_exc() if is_fault(error) else explain(error)
        job_state.note_failure(plan, name, "\n".join(text.strip().splitlines()[-job_state.LAST_LINES :]))
        raise


def _train(plan: StudyPlan, training: Training) -> None:
    place = training.folder
    if job_state.is_validated(place):
        return
    if not job_state.is_prepared(plan, training.dataset):
        raise UserError(
            f"{training.dataset} is not prepared for this study.\n  Run its job first: {preparation(training.dataset)}"
        )
    state = job_state.training_state(plan, training)
    if state.word == job_state.RUNNING:
        raise FolderTakenError(f"{training.name} is running: {state.remark}.")
    if hasattr(signal, "SIGUSR2"):  # submitit's, which Slurm sends to every process of a job; we get SIGUSR1 for it
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    with holding(place, slot=os.environ.get(SLOT, "")):
        job_state.forget_failure(plan, training.name)
        validate_only = (place / FINAL).is_file()
        command = training.command(plan.study.device, "--val" if validate_only else "--c")
        print("$", *command, flush=True)
        try:
            _nnunet_train(command)
        finally:
            _note_cost(plan, training)


def _nnunet_train(command: list[str]) -> None:
    """``nnUNetv2_train`` in this process, so that the lock of the folder ends when the training does."""
    from nnunetv2.run.run_training import run_training_entry

    from nnunet_livseg.startup import register

    register()
    sys.argv = command
    run_training_entry()


def _note_cost(plan: StudyPlan, training: Training) -> None:
    """Record the most memory that any attempt at a training has taken."""
    import torch

    path = job_state.cost_file(plan, training.name)
    now = {"gpu_gib": torch.cuda.max_memory_allocated() / _GIB if torch.cuda.is_available() else 0.0}
    now["host_gib"] = _host_bytes() / _GIB
    before = read_json(path, remedy="Remove it.") if path.is_file() else {}
    write_json(path, {name: round(max(value, before.get(name, 0.0)), 3) for name, value in now.items()})


def _host_bytes() -> int:
    """The most memory that this process has had; 0 where that is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    scale = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
