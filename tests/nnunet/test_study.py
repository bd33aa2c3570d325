"""A study through nnU-Net's own training: killed in the middle, and finished by the same command."""

import os
import signal
import time
from pathlib import Path

import pytest

STUDY = """
datasets = [901]
rows = ["sfan"]
configurations = ["2d"]
folds = [0]
seeds = [0]
device = "cpu"
test = true
[settings]
epochs = 5
iterations = 2
validation_iterations = 1
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the job in /proc")
def test_a_killed_study_and_its_job_go_on_with_the_same_command(workplace):
    workplace.without_recipe("Dataset901_Phantom")
    file = workplace.folder / "small.toml"
    file.write_text(STUDY)
    fold = workplace.results / "Dataset901_Phantom" / "SFANTrainer__SmallSFANPlansSeed0__2d" / "fold_0"
    study = workplace.start("livseg", "study", "run", file)
    until = time.monotonic() + 600
    while not (fold / "checkpoint_latest.pth").is_file():
        assert study.poll() is None and time.monotonic() < until, study.stdout.read()
        time.sleep(0.2)
    study.kill()
    study.wait()
    assert "running" in workplace.run("livseg", "study", "status", file)  # the job outlives the study
    lock = (fold / "livseg_job.lock").read_text()
    os.kill(int(lock.partition('"process": ')[2].partition(",")[0]), signal.SIGKILL)
    workplace.run("livseg", "study", "run", file)
    logs = sorted(fold.glob("training_log_*.txt"), key=lambda path: path.stat().st_mtime)
    assert len(logs) == 2 and "Epoch 0" in logs[0].read_text() and "Epoch 0" not in logs[1].read_text()
    assert (fold / "validation" / "summary.json").is_file()
    report = (workplace.folder / "small" / "report.md").read_text()
    assert report.count("| sfan | 1 |") == 2 and "## Dataset901_Phantom, test cases" in report
    assert [path.name for path in (fold.parent / "test_folds_0").glob("*.nii.gz")] == ["unseen_000.nii.gz"]
    assert "3 jobs: 3 done" in workplace.run("livseg", "study", "status", file)
