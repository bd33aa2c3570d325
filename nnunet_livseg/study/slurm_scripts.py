"""Job scripts for Slurm that need no Python where they are submitted: ``sh submit.sh`` on the login node."""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_livseg.core.files import write_text
from nnunet_livseg.core.nnunet_folders import VARIABLES
from nnunet_livseg.study.job_state import DONE, RUNNING, JobState
from nnunet_livseg.study.study_file import Slurm
from nnunet_livseg.study.study_jobs import REPORT, StudyPlan, preparation
from nnunet_livseg.training.checkpoints import TO_BE_CONTINUED

TEST = "test"  # the stage whose jobs wait for their own trainings only
MOST = 1000  # tasks of an array; Slurm's own limit, MaxArraySize, is 1001 unless a site changes it


@dataclass(frozen=True)
class JobStage:
    """Jobs that may run at the same time, after those of the stages before them.

    Attributes:
        name: prepare, train, test or report.
        jobs: Names of the jobs.
        long: Whether they need a GPU, and are warned before they are ended.
    """

    name: str
    jobs: Sequence[str]
    long: bool = False


def stages(plan: StudyPlan, states: Mapping[str, JobState]) -> list[JobStage]:
    """What is to be done, in four stages: prepare, train, test, report."""
    todo = [name for name, state in states.items() if state.word not in (DONE, RUNNING)]
    datasets = {preparation(dataset) for dataset in plan.datasets}
    return [
        JobStage("prepare", [name for name in todo if name in datasets]),
        JobStage("train", [name for name in todo if name in plan.by_name], long=True),
        JobStage(TEST, [name for name in todo if name in plan.predictions], long=True),
        JobStage(REPORT, [REPORT]),
    ]


def write_scripts(plan: StudyPlan, states: Mapping[str, JobState]) -> Path:
    """Write a script per stage and ``submit.sh``; returns the latter."""
    folder = plan.study.folder / "slurm"
    (plan.study.folder / "logs").mkdir(parents=True, exist_ok=True)
    submit = ["#!/bin/sh", "# submits the jobs of this study, each stage after the one before it", "set -e"]
    submit += ['cd "$(dirname "$0")"', "after="]
    tasks: dict[str, str] = {}  # job to its id, as the shell puts it together
    trained: list[str] = []  # arrays of trainings
    for stage in stages(plan, states):
        names = []
        for name, jobs in _arrays(stage):
            write_text(folder / f"{name}.txt", "".join(f"{job}\n" for job in jobs))
            write_text(folder / f"{name}.sbatch", job_script(plan, stage, name, len(jobs)))
            tasks |= {job: f"${{{name}}}_{number}" for number, job in enumerate(jobs)}
            names.append(name)
        if stage.name == TEST:
            submit += _submission_of_tests(plan, stage, states, tasks, trained)
        else:
            submit += _submission(names, "afterany" if stage.long else "afterok")
            trained += names if stage.long else []
    write_text(folder / "submit.sh", "\n".join(submit) + "\n")
    return folder / "submit.sh"


def _arrays(stage: JobStage) -> Iterator[tuple[str, Sequence[str]]]:
    for number, start in enumerate(range(0, len(stage.jobs), MOST)):
        yield f"{stage.name}{number or ''}", stage.jobs[start : start + MOST]


def _submission(names: Sequence[str], next_waits: str) -> list[str]:
    """Lines that submit arrays after the stage before, and make the next one wait for them."""
    if not names:
        return []
    lines = [f"{name}=$(sbatch --parsable $after {name}.sbatch)" for name in names]
    return [*lines, _after(next_waits, names)]


def _after(kind: str, names: Sequence[str]) -> str:
    return f"after=--dependency={kind}:" + ":".join(f"${{{name}}}" for name in names)


def _submission_of_tests(
    plan: StudyPlan,
    stage: JobStage,
    states: Mapping[str, JobState],
    tasks: Mapping[str, str],
    trained: Sequence[str],
) -> Iterator[str]:
    """Lines that submit each prediction after its own trainings, and make the report wait until all have ended."""
    submitted = []
    for name, jobs in _arrays(stage):
        for number, job in enumerate(jobs):
            needed = [one for one in plan.needed_by(job) if states[one].word != DONE]
            if not all(one in tasks for one in needed):
                yield f"# {job}: a training of it is running; write the scripts again when that has ended"
                continue
            after = f"--dependency=afterok:{':'.join(tasks[one] for one in needed)} " if needed else ""
            yield f"{name}_{number}=$(sbatch --parsable {after}--array={number} {name}.sbatch)"
            submitted.append(f"{name}_{number}")
    if submitted:
        yield _after("afterany", [*trained, *submitted])


def job_script(plan: StudyPlan, stage: JobStage, name: str, count: int) -> str:
    """A script whose task N does the job in line N of the list beside it, and asks to be started again if it must."""
    slurm = plan.study.slurm or Slurm()
    lines = [f"#SBATCH --{key}={value}" for key, value in sbatch_options(plan, stage).items()]
    limit = f"%{slurm.at_once}" if stage.long and slurm.at_once else ""
    lines += [
        f"#SBATCH --array=0-{count - 1}{limit}",
        "#SBATCH --output=/dev/null",
        "#SBATCH --kill-on-invalid-dep=yes",
    ]
    folders = [f"export {key}={shlex.quote(os.environ[key])}" for key in VARIABLES if os.environ.get(key)]
    place = plan.study.folder
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "#SBATCH --requeue",
            *folders,
            *slurm.setup,
            f'job=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(place / "slurm" / f"{name}.txt"))})',
            f'log={shlex.quote(str(place / "logs"))}/"${{job//\\//--}}.log"',
            f'srun {" ".join(program(slurm))} study job {shlex.quote(str(plan.study.path))} "$job" >>"$log" 2>&1',
            "status=$?",
            f'if [ $status -eq {TO_BE_CONTINUED} ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
            "exit $status",
            "",
        ]
    )


def program(slurm: Slurm) -> list[str]:
    """How a job calls livseg: by name if the file sets an environment up, else by this very Python."""
    return ["livseg"] if slurm.setup else [shlex.quote(sys.executable), "-m", "nnunet_livseg.cli"]


def sbatch_options(plan: StudyPlan, stage: JobStage) -> dict[str, str]:
    """Options of ``sbatch`` by name."""
    slurm = plan.study.slurm or Slurm()
    options = {"job-name": f"{plan.study.path.stem}-{stage.name}", "time": _time(slurm.hours)}
    options["cpus-per-task"] = str(slurm.cpus)
    if slurm.memory_gb:
        options["mem"] = f"{slurm.memory_gb}G"
    if slurm.partition:
        options["partition"] = slurm.partition
    if stage.long:
        options["signal"] = f"USR1@{slurm.warning_s}"
        if slurm.gpus and plan.study.device == "cuda":
            options["gpus-per-node"] = str(slurm.gpus)
    return options | {key: str(value) for key, value in slurm.options.items()}


def _time(hours: float) -> str:
    minutes = max(1, round(hours * 60))
    return f"{minutes // 60}:{minutes % 60:02d}:00"
