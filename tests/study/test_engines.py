"""Engines: a job that fails is named and keeps its log, scripts and submissions wait for each other."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.study import job_state, slurm_engine
from nnunet_livseg.study.job_state import JobState
from nnunet_livseg.study.local_engine import LocalEngine
from nnunet_livseg.study.prepare_dataset import prepare_dataset
from nnunet_livseg.study.slurm_engine import SlurmJob, submit
from nnunet_livseg.study.slurm_scripts import write_scripts
from nnunet_livseg.study.status import all_states, failed_text
from nnunet_livseg.study.study_file import read_study
from nnunet_livseg.study.study_jobs import plan_study, preparation

from .conftest import DATASET, dataset_of, finish

STUDY = 'datasets = [901]\nrows = ["dpcnet", "sfan"]\nfolds = [0]\ndevice = "cpu"\nplans = "OtherPlans"\n'


def plan_of(place, text=STUDY):
    (place.folder / "nnUNet_raw" / DATASET).mkdir(exist_ok=True)
    return plan_study(read_study(place.study(text)))


def plan_with_test_cases(place, text):
    dataset_of(place, 2)
    images = place.folder / "nnUNet_raw" / DATASET / "imagesTs"
    images.mkdir()
    (images / "unseen_000_0000.nii.gz").touch()
    return plan_of(place, f"test = true\n{text}")


def test_folds_that_do_not_exist_are_refused_before_the_work(place):
    """nnU-Net divides the cases by chance for them: patients in both parts, and other cases than the other folds."""
    plan = plan_of(place, STUDY.replace("[0]", "[0, 1]").replace('plans = "OtherPlans"\n', ""))
    preprocessed = place.folder / "nnUNet_preprocessed" / DATASET
    preprocessed.mkdir()
    (preprocessed / "nnUNetPlans.json").write_text("{}")
    (preprocessed / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    with pytest.raises(UserError, match=r"asks for fold 1, but .* has only fold 0.*\n.*folds = \[0\] into the study"):
        prepare_dataset(plan, DATASET)


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


TAKES_GPU = """#!/bin/sh
echo "$CUDA_VISIBLE_DEVICES $LIVSEG_STUDY_SLOT" > "$0.$CUDA_VISIBLE_DEVICES"
for _ in $(seq 100); do
  [ $(ls "$0".* | wc -l) = 2 ] && exit 1
  sleep 0.1
done
"""


@pytest.mark.skipif(os.name == "nt", reason="a program of sh in Python's place")
@pytest.mark.parametrize(("visible", "gpus"), [(None, ["0", "1"]), ("5,GPU-7a", ["5", "GPU-7a"])])
def test_two_trainings_run_at_the_same_time_each_on_a_gpu_of_its_own(place, monkeypatch, visible, gpus):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    program = place.folder / "python"
    program.write_text(TAKES_GPU)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(job_state, "is_prepared", lambda *_: True)
    plan, said = plan_of(place, STUDY.replace('"cpu"', '"cuda"\ngpus = 2')), []
    LocalEngine(plan, said.append).run()
    assert [line.split()[1] for line in said] == ["starts", "starts", "failed", "failed"]  # each waits for the other
    assert [(place.folder / f"python.{gpu}").read_text().split() for gpu in gpus] == [[gpu, gpu] for gpu in gpus]


@pytest.mark.skipif(os.name == "nt", reason="a program of sh in Python's place")
def test_a_job_that_ends_well_without_a_result_has_failed(place, monkeypatch):
    program = place.folder / "python"
    program.write_text("#!/bin/sh\necho nothing to do\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    plan, said = plan_of(place), []
    LocalEngine(plan, said.append).run()
    assert [line.split()[1] for line in said] == ["starts", "failed"]
    assert "nothing to do" in all_states(plan)[preparation(DATASET)].remark


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


def test_scripts_make_each_prediction_wait_for_its_own_trainings(place, sbatch):
    plan = plan_with_test_cases(place, STUDY.replace("[0]", "[0, 1]") + SLURM)
    for training in plan.trainings:
        if training.method.row == "dpcnet" or training.fold == "0":
            finish(training)
    script = write_scripts(plan, all_states(plan))
    subprocess.run(["sh", str(script)], env=os.environ | {"PATH": f"{sbatch}:{os.environ['PATH']}"}, check=True)
    assert (sbatch / "calls").read_text().splitlines() == [
        "--parsable prepare.sbatch",
        "--parsable --dependency=afterok:1 train.sbatch",
        "--parsable --array=0 test.sbatch",
        "--parsable --dependency=afterok:2_0 --array=1 test.sbatch",
        "--parsable --dependency=afterany:2:3:4 report.sbatch",
    ]
    assert script.with_name("test.txt").read_text().split() == list(plan.predictions)
    running = {plan.trainings[0].name: JobState("running")}
    again = write_scripts(plan, all_states(plan) | running).read_text()
    assert "test_folds_0_1: a training of it is running" in again and again.count(" test.sbatch") == 1
    assert "signal=USR1@180" in script.with_name("test.sbatch").read_text()


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


class Submitted(list):
    """In the place of submitit's executor: notes what is submitted with which dependency."""

    def update_parameters(self, *, name, slurm_additional_parameters, **_):
        self.name, self.after = name, slurm_additional_parameters.get("dependency", "")

    def batch(self):
        self.append((self.name.partition("-")[2], self.after))
        return nullcontext()

    def submit(self, job):
        return SimpleNamespace(job_id=f"{len(self)}_{job.command[-1].partition('fold_')[2]}")


def test_a_prediction_waits_on_slurm_for_its_own_trainings(place, monkeypatch):
    plan, submitted = plan_with_test_cases(place, STUDY.replace("[0]", "[0, 1]") + "[slurm]\n"), Submitted()
    monkeypatch.setattr(slurm_engine, "_executor", lambda *_: submitted)
    states = all_states(plan)
    for training in plan.trainings:
        if training.method.row == "dpcnet":
            states[training.name] = JobState("running", slurm="77")
        elif training.fold == "0":
            states[training.name] = JobState("done")
    submit(plan, states)
    assert submitted == [
        ("prepare", ""),
        ("train", "afterok:1"),
        ("test", "afterok:77:77"),
        ("test", "afterok:2_1"),
        ("report", "afterany:2:3:4"),
    ]
    for training in plan.trainings:  # a training that was started by hand has no number that one could wait for
        states[training.name] = JobState("running" if training.method.row == "dpcnet" else "done")
    submitted.clear()
    submit(plan, states)
    assert [stage for stage, _ in submitted] == ["prepare", "test", "report"]


def test_without_slurm_it_says_what_to_do(place, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(place.folder))
    plan = plan_of(place, STUDY + "[slurm]\n")
    with pytest.raises(UserError, match=re.escape("livseg study sbatch FILE")):
        submit(plan, all_states(plan))
