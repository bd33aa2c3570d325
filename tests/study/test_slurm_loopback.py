"""A study on a real Slurm that runs on this machine alone: pytest --long -m long tests/study

It needs root and Debian's packages slurm-wlm and munge.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import DATASET, TINY, Place, jobs_below, kill

LOOPBACK = Path(__file__).with_name("slurm_loopback.sh")
STUDY = f"""
datasets = [901]
rows = ["dpcnet-unet", "sfan"]
folds = [0]
seeds = [0]
test = true
{TINY}
[slurm]
cpus = 1
memory_gb = 0
gpus = 0
hours = 1
"""
PATIENCE_S = 3000


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of a Slurm that runs while the test does."""
    pytest.importorskip("submitit")
    if not shutil.which("slurmctld") or os.geteuid() != 0:
        pytest.skip("needs root, slurm-wlm and munge")
    folder = tmp_path / "slurm"
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    subprocess.run(["bash", LOOPBACK, "start", folder], check=True)
    yield folder
    subprocess.run(["bash", LOOPBACK, "stop", folder], check=True)


def kill_controller(folder):
    """As a crash of the machine it runs on; then it is started again."""
    kill(int((folder / "slurmctld.pid").read_text()))
    time.sleep(2)
    subprocess.run(["slurmctld"], check=True)


def wait_for(condition, what):
    until = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < until, what
        time.sleep(2)
    return found


def placed(folder):
    place = Place(folder).phantoms(5, test_cases=1)
    place.env |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
    return place


def queue(*options):
    return subprocess.run(["squeue", "-h", *options], capture_output=True, text=True).stdout.split()


@pytest.mark.long
def test_plain_scripts_come_back_when_their_time_is_up(slurm, tmp_path):
    place = placed(tmp_path / "place")
    file = place.study(STUDY.replace('"dpcnet-unet", ', ""))
    place.run("sbatch", file)
    study = place.folder / "study"
    subprocess.run(["sh", study / "slurm" / "submit.sh"], env=place.env, check=True)
    models = place.folder / "nnUNet_results" / DATASET
    begun = {
        "train": lambda: any("Epoch 0" in log.read_text() for log in models.glob("*/fold_0/training_log_*.txt")),
        "test": lambda: any(models.glob("*/test_folds_0/livseg_prediction.json")),
    }
    for stage, has_begun in begun.items():
        wait_for(has_begun, f"{stage} has not begun")
        (job,) = queue("--name", f"study-{stage}", "-o", "%A")
        subprocess.run(["scancel", "--signal=USR1", job], check=True)  # as Slurm does before the time limit
        wait_for(lambda stage=stage: "PENDING" in queue("--name", f"study-{stage}", "-o", "%T"), "it has not come back")
    wait_for(lambda: not queue(), "the queue is not empty")
    logs = [path.read_text() for path in (study / "logs").glob("*fold*.log")]
    assert len(logs) == 2 and all(log.count("\n$ nnUNetv2_") + log.startswith("$ nnUNetv2_") == 2 for log in logs)
    assert (study / "report.md").read_text().count("| sfan | 1 |") == 2


@pytest.mark.long
def test_a_study_survives_the_death_of_a_job_and_of_the_controller(slurm, tmp_path):
    place = placed(tmp_path / "place")
    file = place.study(STUDY)

    def states():
        return {row["job"]: row["state"] for row in json.loads(place.run("status", file, "--json"))}

    assert "submitted 6 jobs" in place.run("run", file)
    assert "nothing to submit" in place.run("run", file)  # all are queued or running
    trains = [name for name in states() if "fold_" in name]
    wait_for(lambda: "running" in [states()[name] for name in trains], "no training has begun")
    for process in jobs_below(place):
        kill(process)
    kill_controller(slurm)
    submitted = 1
    while set(now := states().values()) != {"done"}:
        if not {"running", "queued"} & set(now):
            place.run("run", file)  # what was killed
            submitted += 1
        assert submitted < 5, states()
        time.sleep(5)
    wait_for(lambda: not queue(), "the queue is not empty")
    written = place.run("report", file)
    assert written.count("| dpcnet-unet | 1 |") == written.count("| sfan | 1 |") == 2  # validation and test cases
    assert (place.folder / "study" / f"scores_{DATASET}.csv").is_file()
    assert submitted > 1  # it has seen a killed job
