"""One training that a cluster interrupts in every way, through nnUNetv2_train in fresh processes."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from nnunet_livseg.core.files import atomic_path
from nnunet_livseg.training.interrupts import TO_BE_CONTINUED

DATASET = "Dataset901_Phantom"
EPOCHS = 12
TRAIN = ("nnUNetv2_train", 901, "2d", 0, "-tr", "DPCNetUNetTrainer", "-device", "cpu")


def epochs_begun(fold):
    """Epochs whose beginning the newest log tells of."""
    logs = sorted(fold.glob("training_log_*.txt"), key=lambda path: path.stat().st_mtime)
    return [int(n) for n in re.findall(r"Epoch (\d+)", logs[-1].read_text())] if logs else []


def interrupt(place, fold, number, *more):
    """Train until a second epoch has begun, send a signal to all processes of the job; returns status and output."""
    before = {path.name for path in fold.glob("training_log_*.txt")}
    process = place.start(*TRAIN, *more, start_new_session=True)
    deadline = time.monotonic() + 300
    while {path.name for path in fold.glob("training_log_*.txt")} == before or len(epochs_begun(fold)) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-3000:]
        time.sleep(0.05)
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=120)
    return process, said


def left_by_a_killed_process(folder):
    """A temporary file whose process has been killed, as ``atomic_path`` names them."""
    with atomic_path(folder / "checkpoint_latest.pth.probe") as path:
        name = path.name
        path.touch()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = folder / name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    left.touch()
    (folder / "checkpoint_latest.pth.probe").unlink()
    return left


def test_usr1_term_and_kill_of_the_whole_job_cost_an_epoch_each(workplace):
    workplace.shorten(DATASET, epochs=EPOCHS, iterations=2, validation_iterations=1, checkpoint_minutes=0)
    workplace.slow_down()
    fold = workplace.results / DATASET / "DPCNetUNetTrainer__nnUNetPlans__2d" / "fold_0"
    for number, name, more in ((signal.SIGUSR1, "SIGUSR1", ()), (signal.SIGTERM, "SIGTERM", ("--c",))):
        process, said = interrupt(workplace, fold, number, *more)
        assert process.returncode == TO_BE_CONTINUED, said[-3000:]
        assert f"{name}: stopping here." in said
        with pytest.raises(ProcessLookupError):  # nor is a data-loading process left
            os.killpg(process.pid, 0)
        reached = torch.load(fold / "checkpoint_latest.pth", weights_only=False)["current_epoch"]
        assert reached in (epochs_begun(fold)[-1], epochs_begun(fold)[-1] + 1)
    process, _ = interrupt(workplace, fold, signal.SIGKILL, "--c")
    assert process.returncode == -signal.SIGKILL
    killed_in = epochs_begun(fold)[-1]
    assert torch.load(fold / "checkpoint_latest.pth", weights_only=False)["current_epoch"] >= killed_in - 1
    left = left_by_a_killed_process(fold)
    time.sleep(1)  # logs are named by the second
    workplace.quick(*TRAIN, "--c")
    assert epochs_begun(fold)[0] in (killed_in - 1, killed_in)
    final = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert {len(values) for values in final["logging"].values()} == {final["current_epoch"]} == {EPOCHS}
    assert not left.exists() and not list(fold.glob(".incomplete-*"))
    assert sorted(path.name for path in fold.glob("*.pth")) == ["checkpoint_best.pth", "checkpoint_final.pth"]
