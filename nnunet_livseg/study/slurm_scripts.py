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

MOST = 1000  # tasks of an array; Slurm's own limit, MaxArraySize, is 1001 unless a site changes it


@dataclass(frozen=True)
class JobStage:
    """Jobs that may run at the same time, after those of the stages before them."""

    name: str
    jobs: Sequence[str]
    trains: bool = False


def stages(plan: StudyPlan, states: Mapping[str, JobState]) -> list[JobStage]:
    """What is to be done, in three stages: prepare, train, report."""
    todo = [name for name, state in states.items() if state.word not in (DONE, RUNNING)]
    datasets = {preparation(dataset) for dataset in plan.datasets}
    prepare = [name for name in todo if name in datasets]
    train = [name for name in todo if name not in datasets]
    return [JobStage("prepare", prepare), JobStage("train", train, trains=True), JobStage(REPORT, [REPORT])]


def write_scripts(plan: StudyPlan, states: Mapping[str, JobState]) -> Path:
    """Write a script per stage and ``submit.sh``; returns the latter."""
    folder = plan.study.folder / "slurm"
    (plan.study.folder / "logs").mkdir(parents=True, exist_ok=True)
    submit = ["#!/bin/sh", "# submits the jobs of this study, each stage after the one before it", "set -e"]
    submit += ['cd "$(dirname "$0")"', "after="]
    for stage in stages(plan, states):
        names = []
        for name, jobs in _arrays(stage):
            write_text(folder / f"{name}.txt", "".join(f"{job}\n" for job in jobs))
            write_text(folder / f"{name}.sbatch", job_script(plan, stage, name, len(jobs)))
            names.append(name)
        submit += _submission(names, "afterany" if stage.name == "train" else "afterok")
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
    return [*lines, f"after=--dependency={next_waits}:" + ":".join(f"${{{name}}}" for name in names)]


def job_script(plan: StudyPlan, stage: JobStage, name: str, count: int) -> str:
    """A script whose task N does the job in line N of the list beside it, and asks to be started again if it must."""
    slurm = plan.study.slurm or Slurm()
    lines = [f"#SBATCH --{key}={value}" for key, value in sbatch_options(plan, stage).items()]
    limit = f"%{slurm.at_once}" if stage.trains and slurm.at_once else ""
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
    if stage.trains:
        options["signal"] = f"USR1@{slurm.warning_s}"
        if slurm.gpus and plan.study.device == "cuda":
            options["gpus-per-node"] = str(slurm.gpus)
    return options | {key: str(value) for key, value in slurm.options.items()}


def _time(hours: float) -> str:
    minutes = max(1, round(hours * 60))
    return f"{minutes // 60}:{minutes % 60:02d}:00"
