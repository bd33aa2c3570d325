"""One job of a study in this process: every engine starts jobs through here, and so can a person."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_livseg.core.errors import UserError, explain, is_fault
from nnunet_livseg.core.files import read_json, write_json
from nnunet_livseg.core.names import did_you_mean
from nnunet_livseg.imaging.label_maps import read_label_map
from nnunet_livseg.study import job_state
from nnunet_livseg.study.folder_lock import FolderTakenError, holding
from nnunet_livseg.study.prepare_dataset import prepare_dataset
from nnunet_livseg.study.study_jobs import REPORT, EnsemblePrediction, StudyPlan, Training, preparation
from nnunet_livseg.training.checkpoints import FINAL, TO_BE_CONTINUED

SLOT = "LIVSEG_STUDY_SLOT"  # environment: the processor or GPU of this machine that an engine has given the job
_GIB = 2**30


def job_names(plan: StudyPlan) -> list[str]:
    """All jobs of a study."""
    return [*map(preparation, plan.datasets), *plan.by_name, *plan.predictions, REPORT]


def run_job(plan: StudyPlan, name: str) -> None:
    """Do one job; at once where it is done.

    Raises:
        UserError: There is no such job, another process does it, its dataset is not prepared or its folds are not
            trained, or nnU-Net's input is wrong.
        SystemExit: The training or prediction is to be continued.
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
        elif name in plan.predictions:
            _predict(plan, plan.predictions[name])
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
    _ignore_submitit()
    with holding(place, slot=os.environ.get(SLOT, "")):
        job_state.forget_failure(plan, training.name)
        validate_only = (place / FINAL).is_file()
        command = training.command(plan.study.device, "--val" if validate_only else "--c")
        print("$", *command, flush=True)
        try:
            _nnunet_train(command)
        finally:
            _note_cost(plan, training)


def _predict(plan: StudyPlan, prediction: EnsemblePrediction) -> None:
    """The ensemble's prediction of the test cases; goes on with those that an interrupted job has left whole."""
    if job_state.is_predicted(prediction):
        return
    state = job_state.prediction_state(plan, prediction)
    if state.word == job_state.RUNNING:
        raise FolderTakenError(f"{prediction.name} is running: {state.remark}.")
    untrained = [one.name for one in prediction.trainings if not job_state.is_validated(one.folder)]
    if untrained:
        raise UserError(f"a fold of {prediction.name} is not trained.\n  Run its job first: {untrained[0]}")
    _ignore_submitit()
    with _leaving_when_told(), holding(prediction.folder, slot=os.environ.get(SLOT, "")):
        job_state.forget_failure(plan, prediction.name)
        checkpoints = job_state.checkpoints_of(prediction)
        _keep_what_is_whole(prediction, checkpoints)
        job_state.note_prediction(prediction, checkpoints, finished=False)
        command = prediction.command(plan.study.device)
        print("$", *command, flush=True)
        _nnunet_predict(command)
        missing = [path.name for path in job_state.predicted_files(prediction) if not path.is_file()]
        if missing:
            raise UserError(f"nnUNetv2_predict has ended without {missing[0]}.\n  Its output says why.")
        job_state.note_prediction(prediction, checkpoints, finished=True)


@contextmanager
def _leaving_when_told() -> Iterator[None]:
    """Leave at a signal that ends jobs; processes that nnU-Net forks end at it as ever."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    earlier = {number: signal.signal(number, _leave) for number in numbers}
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_end_as_ever)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _leave(*_: object) -> None:
    raise SystemExit(TO_BE_CONTINUED)


def _end_as_ever() -> None:
    """In a forked worker that waits for work: a handler of Python might never run there, and its pool would wait."""
    for name in ("SIGTERM", "SIGUSR1"):
        if signal.getsignal(getattr(signal, name)) is _leave:
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def _keep_what_is_whole(prediction: EnsemblePrediction, checkpoints: dict[str, list[int]]) -> None:
    """Remove predictions of other checkpoints and what a kill has cut: nnU-Net goes by the names of files only."""
    record = job_state.prediction_record(prediction)
    stale = bool(record) and record["checkpoints"] != checkpoints
    for path in job_state.predicted_files(prediction):
        if path.is_file() and (stale or not _is_readable(path)):
            path.unlink()


def _is_readable(path: Path) -> bool:
    try:
        read_label_map(path)
    except UserError:
        return False
    return True


def _nnunet_predict(command: list[str]) -> None:
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point

    _run_here(predict_entry_point, command)


def _ignore_submitit() -> None:
    if hasattr(signal, "SIGUSR2"):  # submitit's, which Slurm sends to every process of a job; we get SIGUSR1 for it
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _nnunet_train(command: list[str]) -> None:
    from nnunetv2.run.run_training import run_training_entry

    _run_here(run_training_entry, command)


def _run_here(entry: Callable[[], None], command: list[str]) -> None:
    """A command of nnU-Net in this process, so that the lock of the folder ends when its work does."""
    from nnunet_livseg.startup import register

    register()
    sys.argv = command
    entry()


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
