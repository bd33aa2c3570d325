"""Engines: a job that fails is named and keeps its log, scripts and submissions wait for each other."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.study import job_state
from nnunet_livseg.study.local_engine import LocalEngine
from nnunet_livseg.study.slurm_engine import SlurmJob, submit
from nnunet_livseg.study.slurm_scripts import write_scripts
from nnunet_livseg.study.status import all_states, failed_text
from nnunet_livseg.study.study_file import read_study
from nnunet_livseg.study.study_jobs import plan_study, preparation

from .conftest import DATASET

STUDY = 'datasets = [901]\nrows = ["dpcnet", "sfan"]\nfolds = [0]\ndevice = "cpu"\nplans = "OtherPlans"\n'


def plan_of(place, text=STUDY):
    (place.folder / "nnUNet_raw" / DATASET).mkdir(exist_ok=True)
    return plan_study(read_study(place.study(text)))


def test_a_failed_job_is_named_and_nothing_that_needs_it_is_started(place):
    plan, said = plan_of(place), []
    LocalEngine(plan, said.append).run()
    assert [line.split()[1:3] for line in said] == [["starts", f"{DATASET}/prepare"], ["failed", f"{DATASET}/prepare:"]]
    states = all_states(plan)
    assert [state.word for state in states.values()] == ["failed", "waiting", "waiting"]
    text = "\n".join(failed_text(plan, states))
    assert "there are no plans OtherPlans" in text
    log = job_state.log_file(plan, preparation(DATASET))
    assert str(log) in text and "there are no plans OtherPlans" in log.read_text()


SLURM = """
[slurm]
partition = "gpu"
hours = 1.5
at_once = 3
options = {account = "liver"}
setup = ["module load cuda"]
"""


@pytest.fixture
def sbatch(place):
    """A program in Slurm's place that notes how it is called and gives ids."""
    folder = place.folder / "bin"
    folder.mkdir()
    program = folder / "sbatch"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\necho $(wc -l < {folder}/calls)\n')
    program.chmod(0o755)
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="the scripts are for bash")
def test_scripts_wait_for_each_other_and_start_again_after_a_signal(place, sbatch):
    plan = plan_of(place, STUDY.replace("cpu", "cuda") + SLURM)
    script = write_scripts(plan, all_states(plan))
    env = os.environ | {"PATH": f"{sbatch}:{os.environ['PATH']}"}
    subprocess.run(["sh", str(script)], env=env, check=True)
    assert (sbatch / "calls").read_text().splitlines() == [
        "--parsable prepare.sbatch",
        "--parsable --dependency=afterok:1 train.sbatch",
        "--parsable --dependency=afterany:2 report.sbatch",
    ]
    train = script.with_name("train.sbatch").read_text()
    for option in (
        "time=1:30:00",
        "partition=gpu",
        "account=liver",
        "array=0-1%3",
        "signal=USR1@180",
        "gpus-per-node=1",
    ):
        assert f"#SBATCH --{option}\n" in train
    for name, body in {"srun": 'echo "$@" >&2; exit 75', "scontrol": f'echo "$@" >> {sbatch}/again'}.items():
        (sbatch / name).write_text(f"#!/bin/sh\n{body}\n")
        (sbatch / name).chmod(0o755)
    script.with_name("train.sbatch").write_text(train.replace("module load cuda\n", ""))
    task = env | {"SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "42"}
    assert subprocess.run(["bash", script.with_name("train.sbatch")], env=task).returncode == 75
    assert (sbatch / "again").read_text() == "requeue 42\n"
    name = plan.trainings[1].name
    assert f"livseg study job {plan.study.path} {name}" in job_state.log_file(plan, name).read_text()


TAUGHT = """
import os, signal, sys, time
from pathlib import Path
done = Path(sys.argv[1])
def leave(*_):
    done.touch()
    sys.exit(75)
signal.signal(signal.SIGUSR1, leave)
print("attempt", flush=True)
if not done.exists():
    os.kill(os.getppid(), signal.SIGUSR2)  # as Slurm does before it takes the node away
    time.sleep(60)
"""


def test_a_job_of_submitit_saves_when_it_is_told_and_comes_back(tmp_path):
    submitit = pytest.importorskip("submitit")
    executor = submitit.AutoExecutor(tmp_path / "submitit", cluster="local")
    log, taught = tmp_path / "log.txt", tmp_path / "job.py"
    taught.write_text(TAUGHT)
    job = executor.submit(SlurmJob([sys.executable, str(taught), str(tmp_path / "done")], log))
    assert job.result() == 0
    assert log.read_text().split() == ["attempt", "attempt"]


def test_a_study_goes_through_submitit_stage_by_stage(place):
    pytest.importorskip("submitit")
    plan = plan_of(place, STUDY + "[slurm]\n")
    ids = submit(plan, all_states(plan), cluster="local")
    assert list(ids) == [preparation(DATASET), *plan.by_name, "report"]
    states = all_states(plan)
    assert [state.word for state in states.values()] == ["failed"] * 3  # there is nothing to train with
    assert "is not prepared for this study" in states[plan.trainings[0].name].remark
    assert (plan.study.folder / "report.html").is_file()


def test_without_slurm_it_says_what_to_do(place, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(place.folder))
    plan = plan_of(place, STUDY + "[slurm]\n")
    with pytest.raises(UserError, match=re.escape("livseg study sbatch FILE")):
        submit(plan, all_states(plan))
