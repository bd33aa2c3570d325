"""How far a job is, read from nnU-Net's folders: trainings that were started by hand count as well."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import as_read, read_json, write_json, write_text
from nnunet_livseg.core.nnunet_folders import folder
from nnunet_livseg.data.raw_dataset import RawDataset
from nnunet_livseg.study.folder_lock import BEAT_S, NAME, holder, last_holder
from nnunet_livseg.study.study_jobs import EnsemblePrediction, StudyPlan, Training, preparation
from nnunet_livseg.training.checkpoints import BEST, FINAL, LATEST

QUIET_S = 900  # a training that somebody else has started counts as running until it has not written for so long
DONE, RUNNING, QUEUED, FAILED, BEGUN, WAITING = "done", "running", "queued", "failed", "begun", "waiting"
WORDS = (DONE, RUNNING, QUEUED, FAILED, BEGUN, WAITING)
LAST_LINES = 8
PREDICTION = "livseg_prediction.json"  # beside the predicted test cases: by which checkpoints, and whether it has ended


@dataclass(frozen=True)
class JobState:
    """One of ``WORDS``, and a remark."""

    word: str
    remark: str = ""
    slot: str = ""  # that a running job of this study takes
    slurm: str = ""  # id in Slurm's queue


def training_state(plan: StudyPlan, training: Training) -> JobState:
    """State of one training."""
    place = training.folder
    if is_validated(place):
        return JobState(DONE)
    if found := _running_or_failed(plan, training):
        return found
    if (place / FINAL).is_file():
        return JobState(BEGUN, "trained, but not validated")
    begun = any((place / name).is_file() for name in (LATEST, BEST))
    return JobState(BEGUN, "has a checkpoint") if begun else JobState(WAITING)


def _running_or_failed(plan: StudyPlan, job: Training | EnsemblePrediction) -> JobState | None:
    if found := holder(job.folder):
        return JobState(RUNNING, str(found), found.slot)
    if minutes := _written_by_others(job.folder):
        return JobState(RUNNING, f"by something else, which wrote there {minutes} min ago")
    reason = failure(plan, job.name)
    return JobState(FAILED, reason) if reason else None


def is_validated(place: Path) -> bool:
    """Whether a fold is trained and its validation cases are predicted; nnU-Net writes their summary last."""
    summary = place / "validation" / "summary.json"
    try:
        with summary.open("rb") as file:
            file.seek(-2, 2)
            whole = file.read() == b"\n}"  # of the outermost object: the others are indented
    except OSError:
        return False
    return whole and (place / FINAL).is_file()


def _written_by_others(place: Path) -> int:
    """Minutes, at least 1, since something without our lock has written a fold; 0 if that is long ago, or was ours."""
    written = max((path.stat().st_mtime for path in _files(place)), default=0.0)
    ours = last_holder(place)
    if time.time() - written > QUIET_S or (ours is not None and written < ours.beat + 3 * BEAT_S):
        return 0
    return max(1, round((time.time() - written) / 60))


def _files(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (path for path in place.iterdir() if path.is_file() and path.name != NAME)


# --- test cases -------------------------------------------------------------------------------------------------------


def prediction_state(plan: StudyPlan, prediction: EnsemblePrediction) -> JobState:
    """State of the prediction of test cases."""
    if is_predicted(prediction):
        return JobState(DONE)
    if found := _running_or_failed(plan, prediction):
        return found
    files = predicted_files(prediction)
    count = sum(path.is_file() for path in files)
    return JobState(BEGUN, f"{count} of {len(files)} cases") if count else JobState(WAITING)


def is_predicted(prediction: EnsemblePrediction) -> bool:
    """Whether all test cases are predicted, by the checkpoints that the folds have now."""
    record = prediction_record(prediction)
    return (
        record.get("finished", False)
        and record["checkpoints"] == checkpoints_of(prediction)
        and all(path.is_file() for path in predicted_files(prediction))
    )


def predicted_files(prediction: EnsemblePrediction) -> list[Path]:
    """Where nnU-Net writes the label map of each test case."""
    raw = RawDataset.open(folder("nnUNet_raw") / prediction.trainings[0].dataset)
    cases = dict.fromkeys(raw.split_name(path)[0] for path in raw.files("imagesTs"))
    return [prediction.folder / f"{case}{raw.file_ending}" for case in cases if case]


def prediction_record(prediction: EnsemblePrediction) -> dict:
    """What is recorded of a prediction; empty if nothing is, as of one that was made by hand."""
    try:
        return read_json(prediction.folder / PREDICTION, keys=("checkpoints", "finished"), remedy="")
    except UserError:
        return {}


def note_prediction(prediction: EnsemblePrediction, checkpoints: dict[str, list[int]], *, finished: bool) -> None:
    """Record by which checkpoints the files in the folder were made, and whether they are all there."""
    write_json(prediction.folder / PREDICTION, {"checkpoints": checkpoints, "finished": finished})


def checkpoints_of(prediction: EnsemblePrediction) -> dict[str, list[int]]:
    """Fold to size and time of change of its checkpoint, as far as it has one."""
    paths = {training.fold: training.folder / FINAL for training in prediction.trainings}
    found = {fold: path.stat() for fold, path in paths.items() if path.is_file()}
    return {fold: [stat.st_size, stat.st_mtime_ns] for fold, stat in found.items()}


# --- preparation ------------------------------------------------------------------------------------------------------


def preparation_state(plan: StudyPlan, dataset: str) -> JobState:
    """State of a dataset's plans and preprocessed data."""
    place = folder("nnUNet_preprocessed") / dataset
    if is_prepared(plan, dataset):
        return JobState(DONE)
    if place.is_dir() and (found := holder(place)):
        return JobState(RUNNING, str(found), found.slot)
    reason = failure(plan, preparation(dataset))
    return JobState(FAILED, reason) if reason else JobState(WAITING)


def is_prepared(plan: StudyPlan, dataset: str) -> bool:
    """Whether this study's plans of a dataset were written and its data preprocessed, by a job of this study."""
    try:
        recorded = read_json(_record(plan, dataset), remedy="")
    except UserError:
        return False
    place = folder("nnUNet_preprocessed") / dataset
    return recorded == _wanted(plan) and all((place / f"{spec.name}.json").is_file() for spec in plan.plans)


def note_prepared(plan: StudyPlan, dataset: str) -> None:
    """Record that a dataset is prepared."""
    write_json(_record(plan, dataset), _wanted(plan))


def _record(plan: StudyPlan, dataset: str) -> Path:
    return plan.study.folder / "prepared" / f"{dataset}.json"


def _wanted(plan: StudyPlan) -> dict:
    return as_read({spec.name: vars(spec.overrides) for spec in plan.plans})


# --- files of a job ---------------------------------------------------------------------------------------------------


def file_stem(job: str) -> str:
    """A job's name as the name of a file."""
    return job.replace("/", "--")


def log_file(plan: StudyPlan, job: str) -> Path:
    """Where a job's output goes, of all its attempts."""
    return plan.study.folder / "logs" / f"{file_stem(job)}.log"


def cost_file(plan: StudyPlan, job: str) -> Path:
    """Where a training's memory is recorded."""
    return plan.study.folder / "costs" / f"{file_stem(job)}.json"


def failure(plan: StudyPlan, job: str) -> str:
    """Why the last attempt at a job failed; empty if it did not."""
    path = _failure_file(plan, job)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def note_failure(plan: StudyPlan, job: str, reason: str) -> None:
    """Record why a job failed."""
    write_text(_failure_file(plan, job), reason)


def forget_failure(plan: StudyPlan, job: str) -> None:
    """A new attempt begins."""
    _failure_file(plan, job).unlink(missing_ok=True)


def _failure_file(plan: StudyPlan, job: str) -> Path:
    return plan.study.folder / "failed" / f"{file_stem(job)}.txt"


def last_lines(log: Path, count: int = LAST_LINES) -> str:
    """The end of a log."""
    try:
        text = log.read_bytes()[-20_000:].decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])
