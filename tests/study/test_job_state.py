"""What nnU-Net's folders say of a job, and the lock of a folder."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from nnunet_livseg.study import folder_lock, job_state
from nnunet_livseg.study.folder_lock import FolderTakenError, holder, holding
from nnunet_livseg.study.study_file import read_study
from nnunet_livseg.study.study_jobs import plan_study

from .conftest import DATASET


@pytest.fixture
def plan(place):
    (place.folder / "nnUNet_raw" / DATASET).mkdir()
    return plan_study(read_study(place.study('datasets = [901]\nrows = ["dpcnet"]\nfolds = [0]')))


def word(plan):
    return job_state.training_state(plan, plan.trainings[0]).word


def test_a_training_by_hand_counts_from_its_first_file_to_its_summary(plan):
    fold, long_ago = plan.trainings[0].folder, time.time() - 2 * job_state.QUIET_S
    assert word(plan) == "waiting"
    (fold / "validation").mkdir(parents=True)
    (fold / "checkpoint_latest.pth").touch()
    assert word(plan) == "running"  # something else has just written there
    os.utime(fold / "checkpoint_latest.pth", (long_ago, long_ago))
    assert word(plan) == "begun"
    (fold / "checkpoint_final.pth").touch()
    os.utime(fold / "checkpoint_final.pth", (long_ago, long_ago))
    summary = json.dumps({"mean": {"1": {"Dice": 0.9}}, "metric_per_case": []}, indent=4)
    (fold / "validation" / "summary.json").write_text(summary[: summary.index("}") + 1])  # a kill has cut it
    assert word(plan) == "begun"
    (fold / "validation" / "summary.json").write_text(summary)
    assert word(plan) == "done"


def test_a_failed_job_is_named_with_its_last_lines_until_it_is_tried_again(plan):
    name = plan.trainings[0].name
    job_state.note_failure(plan, name, "no memory")
    assert job_state.training_state(plan, plan.trainings[0]) == job_state.JobState("failed", "no memory")
    job_state.forget_failure(plan, name)
    assert word(plan) == "waiting"


HOLD = """
import sys, time
from pathlib import Path
from nnunet_livseg.study.folder_lock import holding
with holding(Path(sys.argv[1]), slot="cpu"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_until_its_process_dies_and_no_longer(plan):
    fold = plan.trainings[0].folder
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(fold)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    state = job_state.training_state(plan, plan.trainings[0])
    assert (state.word, state.slot) == ("running", "cpu") and str(process.pid) in state.remark
    with pytest.raises(FolderTakenError, match=f"process {process.pid}"), holding(fold):
        pass
    (fold / "checkpoint_latest.pth").touch()
    process.kill()
    process.wait()
    assert word(plan) == "begun"  # what it wrote last is not taken for somebody else's
    with holding(fold):
        (fold / "checkpoint_latest.pth").touch()
    assert holder(fold) is None
    assert word(plan) == "begun"  # one that was told to leave can come back at once


def test_a_job_of_another_machine_lives_as_long_as_its_heart_beats(plan):
    fold = plan.trainings[0].folder
    fold.mkdir(parents=True)
    lock = fold / folder_lock.NAME
    lock.write_text(json.dumps({"host": f"not-{socket.gethostname()}", "process": 7, "slot": ""}))
    assert word(plan) == "running"
    with pytest.raises(FolderTakenError, match="process 7 of not-"), holding(fold):
        pass
    old = time.time() - 2 * folder_lock.DEAD_S
    os.utime(lock, (old, old))
    assert word(plan) == "waiting"
