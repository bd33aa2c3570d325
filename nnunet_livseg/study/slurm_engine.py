"""Jobs of a study on Slurm through submitit: arrays that wait for each other and come back after a pre-emption."""

import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json, write_json
from nnunet_livseg.study import job_state
from nnunet_livseg.study.job_state import DONE, QUEUED, RUNNING, JobState
from nnunet_livseg.study.slurm_scripts import MOST, TEST, JobStage, sbatch_options, stages
from nnunet_livseg.study.study_file import Slurm
from nnunet_livseg.study.study_jobs import REPORT, StudyPlan

MOST_TIMEOUTS = 1000  # a training of weeks is continued as often as it needs


@dataclass
class SlurmJob:
    """What submitit runs on a node: the job as a process of its own, which is told when time is up."""

    command: list[str]
    log: Path
    _process: Any = field(default=None, repr=False)

    def __call__(self) -> int:
        """Run the job to its end.

        Raises:
            RuntimeError: It failed; the message shows its last lines.
        """
        with self.log.open("ab") as file:
            self._process = subprocess.Popen(self.command, stdout=file, stderr=subprocess.STDOUT)
        status = self._process.wait()
        if status:
            raise RuntimeError(f"exit status {status}:\n{job_state.last_lines(self.log)}")
        return status

    def checkpoint(self) -> Any:
        """Called by submitit before Slurm ends the job: let it save and leave, and ask for another one."""
        from submitit.helpers import DelayedSubmission

        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._process.pid, signal.SIGUSR1)
            # this runs as a signal handler, most likely inside the other wait, whose lock it would wait for
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(SlurmJob(self.command, self.log))


def submit(plan: StudyPlan, states: Mapping[str, JobState], *, cluster: str = "slurm") -> dict[str, str]:
    """Submit what is neither done nor running nor queued; returns job ids by job.

    Args:
        plan: The study.
        states: Of all jobs, with those that are queued.
        cluster: As submitit calls it; ``local`` runs each stage here and waits for it.

    Raises:
        UserError: submitit or Slurm is not here.
    """
    executor = _executor(plan, cluster)
    ids: dict[str, str] = {}
    after, ended = "", []  # what the next stage waits for; arrays that may also fail before the report
    waiting = {name: state for name, state in states.items() if state.word != QUEUED}
    todo = [stage for stage in stages(plan, waiting) if stage.jobs]
    if all(stage.name == REPORT for stage in todo):
        return {}
    for stage in todo:
        arrays: list[str] = []
        for names, dependency in _groups(plan, stage, after, states, ids):
            executor.update_parameters(**_parameters(plan, stage, dependency, cluster))
            with executor.batch():
                submitted = [executor.submit(_slurm_job(plan, name)) for name in names]
            ids |= {name: job.job_id for name, job in zip(names, submitted, strict=True)}
            write_json(_record(plan), _known(plan) | ids)
            arrays.append(submitted[0].job_id.partition("_")[0])
            if cluster == "local":
                for job in submitted:
                    job.wait()
        ended += arrays if stage.long else []
        if arrays:
            after = "afterany:" + ":".join(ended) if stage.long else "afterok:" + ":".join(arrays)
    return ids


def _groups(
    plan: StudyPlan, stage: JobStage, after: str, states: Mapping[str, JobState], ids: Mapping[str, str]
) -> Iterator[tuple[Sequence[str], str]]:
    """Jobs that are submitted as one array, and its dependency; each prediction waits for its own trainings."""
    if stage.name != TEST:
        for start in range(0, len(stage.jobs), MOST):
            yield stage.jobs[start : start + MOST], after
        return
    known = {name: state.slurm for name, state in states.items() if state.slurm} | ids
    for job in stage.jobs:
        needed = [name for name in plan.needed_by(job) if states[name].word != DONE]
        if all(name in known for name in needed):  # else one was started by hand: a later call submits this one
            yield [job], "afterok:" + ":".join(known[name] for name in needed) if needed else ""


def _executor(plan: StudyPlan, cluster: str) -> Any:
    try:
        import submitit
    except ImportError:
        raise UserError(
            "jobs go to Slurm through submitit, which is not installed."
            "\n  Install it: pip install 'nnunet-livseg[slurm]'. Or write plain scripts: livseg study sbatch FILE"
        ) from None
    try:
        folder = plan.study.folder / "submitit"
        return submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=MOST_TIMEOUTS)
    except RuntimeError as error:
        raise UserError(
            f"there is no Slurm on this machine ({error}).\n  Run this where sbatch is, or write plain scripts there:"
            " livseg study sbatch FILE. Without the table [slurm], the study runs on this machine."
        ) from None


def _slurm_job(plan: StudyPlan, name: str) -> SlurmJob:
    log = job_state.log_file(plan, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "nnunet_livseg.cli", "study", "job", str(plan.study.path), name]
    return SlurmJob(command, log)


def _parameters(plan: StudyPlan, stage: JobStage, after: str, cluster: str) -> dict[str, Any]:
    slurm = plan.study.slurm or Slurm()
    common = {"name": f"{plan.study.path.stem}-{stage.name}", "timeout_min": max(1, round(slurm.hours * 60))}
    if cluster == "local":
        return common
    options = {key.replace("-", "_"): value for key, value in sbatch_options(plan, stage).items()}
    own = ("job_name", "time", "cpus_per_task", "mem", "partition", "signal", "gpus_per_node")
    more = {key: value for key, value in options.items() if key not in own}
    if after:
        more |= {"dependency": after, "kill_on_invalid_dep": "yes"}
    found = {"cpus_per_task": slurm.cpus, "slurm_mem": options.get("mem"), "slurm_additional_parameters": more}
    found |= {"slurm_signal_delay_s": slurm.warning_s, "slurm_array_parallelism": slurm.at_once or MOST}
    found["slurm_gpus_per_node"] = options.get("gpus_per_node")
    if slurm.partition:
        found["slurm_partition"] = slurm.partition
    if slurm.setup:
        found["slurm_setup"] = list(slurm.setup)
    return common | found


# --- what is queued ---------------------------------------------------------------------------------------------------


def with_queued(plan: StudyPlan, states: Mapping[str, JobState]) -> dict[str, JobState]:
    """``states``, where a job that Slurm has accepted and not ended is queued."""
    known = _known(plan)
    alive = _alive() if known else set()
    changed = {
        name: replace(state, slurm=known[name])
        if state.word == RUNNING
        else JobState(QUEUED, f"Slurm job {known[name]}", slurm=known[name])
        for name, state in states.items()
        if state.word != DONE and known.get(name) in alive
    }
    return {**states, **changed}


def _record(plan: StudyPlan) -> Path:
    return plan.study.folder / "slurm_jobs.json"


def _known(plan: StudyPlan) -> dict[str, str]:
    return read_json(_record(plan), remedy="Remove it.") if _record(plan).is_file() else {}


def _alive() -> set[str]:
    """Ids of this user's jobs in Slurm's queue, each task of an array by itself."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"squeue does not answer ({error}), so it is not known which jobs are queued.\n  Try again later."
        ) from None
    return set(found.stdout.split())
