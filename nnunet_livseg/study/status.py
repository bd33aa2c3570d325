"""All jobs of a study and how far they are, for people and for programs."""

from collections import Counter
from collections.abc import Mapping

from nnunet_livseg.core.names import shell_path
from nnunet_livseg.study.job_state import (
    DONE,
    FAILED,
    WORDS,
    JobState,
    log_file,
    prediction_state,
    preparation_state,
    training_state,
)
from nnunet_livseg.study.study_jobs import StudyPlan, preparation


def all_states(plan: StudyPlan) -> dict[str, JobState]:
    """State of every job by its name, in the order in which they run."""
    prepared = {preparation(dataset): preparation_state(plan, dataset) for dataset in plan.datasets}
    trained = {training.name: training_state(plan, training) for training in plan.trainings}
    return prepared | trained | {name: prediction_state(plan, one) for name, one in plan.predictions.items()}


def state_rows(states: Mapping[str, JobState]) -> list[dict[str, str]]:
    """The states as JSON."""
    return [{"job": name, "state": state.word, "remark": state.remark} for name, state in states.items()]


def status_text(plan: StudyPlan, states: Mapping[str, JobState]) -> str:
    """A line per job, what does not exist, what failed with its last lines, and the counts."""
    width = max(map(len, WORDS))
    lines = []
    for name, state in states.items():
        remark = f"  ({state.remark})" if state.remark and state.word != FAILED else ""
        lines.append(f"{state.word:<{width}}  {name}{remark}")
    lines += [f"{'-':<{width}}  {label}: {reason}" for label, reason in plan.left_out.items()]
    lines += failed_text(plan, states)
    counts = Counter(state.word for state in states.values())
    summed = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
    return "\n".join([*lines, "", f"{len(states)} jobs: {summed}", *_next(plan, counts)])


def failed_text(plan: StudyPlan, states: Mapping[str, JobState]) -> list[str]:
    """Every failed job with its last lines and its log."""
    lines = []
    for name, state in states.items():
        if state.word == FAILED:
            said = "\n".join(f"    {line}" for line in state.remark.splitlines())
            lines += ["", f"{name} failed:", said, f"  Its whole output: {log_file(plan, name)}"]
    return lines


def _next(plan: StudyPlan, counts: Mapping[str, int]) -> list[str]:
    todo = sum(count for word, count in counts.items() if word != DONE)
    command = f"livseg study {'run' if todo else 'report'} {shell_path(plan.study.path)}"
    again = "; what failed is tried again" if counts.get(FAILED) else ""
    return [f"next: {command}{again}"]
