"""A training that is told to stop, or is killed, goes on from its newest checkpoint and leaves nothing behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path, remove_leftovers
from nnunet_livseg.trainers import TRAINERS
from nnunet_livseg.training.checkpoints import write_checkpoint
from nnunet_livseg.training.interrupts import TO_BE_CONTINUED, StopSignals

from .conftest import RandomBatches, WithRandomBatches, make, plans

# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_the_first_signal_is_noted_and_earlier_handlers_come_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == name
    assert signal.getsignal(number) is before


def test_a_handler_of_somebody_else_stays(monkeypatch):
    came = []
    before = signal.signal(signal.SIGUSR1, lambda *_: came.append("theirs"))
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
        assert came == ["theirs"] and signals.received is None
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_outside_the_main_thread_nothing_is_set():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def train():
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGUSR1, 0)])
def test_data_loading_processes_end_at_sigterm_and_go_on_at_sigusr1(number, code):
    """nnU-Net ends its own with SIGTERM; they are forked and have the handler of the training."""
    with StopSignals() as signals:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1,))
        child.start()
        time.sleep(0.2)
        os.kill(child.pid, number)
        child.join(10)
    assert child.exitcode == code and signals.received is None


# --- a training that is told to stop ----------------------------------------------------------------------------------


class Told(WithRandomBatches):
    """Goes before a trainer: a signal comes with a certain batch."""

    at: ClassVar = {"train": None, "validation": None}
    workers_die = False

    def get_dataloaders(self):
        told, loaders = self, super().get_dataloaders()

        class Batches(RandomBatches):
            def __next__(self):
                if self.given == told.at[self.name]:
                    os.kill(os.getpid(), signal.SIGTERM)
                    if told.workers_die:
                        raise RuntimeError("One or more background workers are no longer alive. Exiting.")
                return super().__next__()

        made = [Batches(self, loader.scales) for loader in loaders]
        made[0].name, made[1].name = "train", "validation"
        return made


# before which batch the signal comes, and how many epochs are complete then
STOPS = {
    "in the first epoch": ({"train": 1}, 0),
    "in a later epoch": ({"train": 3}, 1),
    "in a validation": ({"validation": 2}, 1),
    "in the last validation": ({"validation": 5}, 2),
}


@pytest.mark.parametrize("workers_die", [False, True], ids=["workers live", "workers die"])
@pytest.mark.parametrize(("at", "complete"), STOPS.values(), ids=STOPS)
def test_the_step_is_finished_and_the_training_goes_on_later(place, at, complete, workers_die):
    content = plans(epochs=3, iterations=2, validation_iterations=2)
    attributes = {"at": {"train": None, "validation": None, **at}, "workers_die": workers_die}
    trainer = make(type("ToldTrainer", (Told, TRAINERS["DPCNetTrainer"]), attributes), content)
    with pytest.raises(SystemExit) as left:
        trainer.run_training()
    assert left.value.code == TO_BE_CONTINUED == 75
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    log = Path(trainer.log_file).read_text()
    assert f"SIGTERM: stopping here. checkpoint_latest.pth has the weights of this moment; epoch {complete} will" in log
    latest = Path(trainer.output_folder) / "checkpoint_latest.pth"
    saved = torch.load(latest, weights_only=False)
    assert saved["current_epoch"] == complete
    assert {len(values) for values in saved["logging"].values()} == {complete}
    torch.testing.assert_close(saved["network_weights"], trainer.network.state_dict())
    again = make(type("ToldTrainer", (WithRandomBatches, TRAINERS["DPCNetTrainer"]), {}), content, resume=True)
    again.load_checkpoint(str(latest))
    again.run_training()
    assert {len(values) for values in again.logger.get_checkpoint().values()} == {3}
    assert sorted(p.name for p in latest.parent.glob("*.pth")) == ["checkpoint_best.pth", "checkpoint_final.pth"]


def test_a_signal_at_the_very_end_leaves_the_validation_to_c(place):
    class Late(WithRandomBatches):
        def on_train_end(self):
            super().on_train_end()
            os.kill(os.getpid(), signal.SIGUSR1)

    trainer = make(type("LateTrainer", (Late, TRAINERS["DPCNetTrainer"]), {}), plans(epochs=1))
    with pytest.raises(SystemExit, match=str(TO_BE_CONTINUED)):
        trainer.run_training()
    assert (
        "SIGUSR1: stopping here. The training is complete, but its validation is not"
        in Path(trainer.log_file).read_text()
    )
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").exists()


def test_an_error_without_a_signal_is_an_error(place):
    class Broken(WithRandomBatches):
        def validation_step(self, batch):
            raise RuntimeError("a mistake")

    trainer = make(type("BrokenTrainer", (Broken, TRAINERS["DPCNetTrainer"]), {}), plans(epochs=1))
    with pytest.raises(RuntimeError, match="a mistake"):
        trainer.run_training()


DDP = """
import os, signal, sys, torch, torch.distributed as dist
from types import SimpleNamespace
from nnunet_livseg.training.interrupts import AskedToLeave, StopSignals

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
trainer = SimpleNamespace(is_ddp=True, device=torch.device("cpu"))
with StopSignals() as signals:
    for step in range(20):
        if rank == 1 and step == 7:
            os.kill(os.getpid(), signal.SIGUSR1)
        try:
            signals.raise_if_asked(trainer)
        except AskedToLeave:
            break
print("left at", step)
"""


def test_all_ddp_processes_leave_at_the_same_step(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", DDP]
    meeting = f"file://{tmp_path / 'meeting'}"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen([*command, str(rank), meeting], **options) for rank in range(2)]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert said.splitlines()[-1] == "left at 7", said


# --- checkpoints ------------------------------------------------------------------------------------------------------


def written(text):
    return lambda name: Path(name).write_text(text)


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_the_newest_checkpoint_is_the_one_that_c_takes(tmp_path, monkeypatch, links):
    """nnU-Net's --c takes the latest, and the best only where there is no latest."""
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", lambda self, target: (_ for _ in ()).throw(PermissionError("FAT")))
    latest, best = tmp_path / "checkpoint_latest.pth", tmp_path / "checkpoint_best.pth"
    for name, text in ((latest, "epoch 1"), (best, "epoch 2"), (best, "epoch 3"), (latest, "epoch 4"), (best, "5")):
        write_checkpoint(name, written(text))
        assert (latest if latest.exists() else best).read_text() == text
        assert not list(tmp_path.glob(".incomplete-*"))
    write_checkpoint(latest, written("epoch 6"))
    assert best.read_text() == "5", "the best must not change with the latest"


def test_best_checkpoints_do_not_put_off_the_latest(place):
    """Case 01: with a Dice that rises in every epoch, a kill cost all but the first ones."""
    trainer = make(type("RisingTrainer", (WithRandomBatches, TRAINERS["DPCNetTrainer"]), {}), plans(epochs=5))
    seen, folder = [], Path(trainer.output_folder)
    after = trainer.on_epoch_end

    def on_epoch_end():
        trainer._best_ema = None if trainer.current_epoch % 2 else 2.0  # a new best in every second epoch
        if trainer.current_epoch == 4:
            trainer._last_saved -= 3600  # longer ago than checkpoint_minutes
        after()
        newest = folder / "checkpoint_latest.pth"
        seen.append(torch.load(newest, weights_only=False)["current_epoch"] if newest.exists() else None)

    trainer.on_epoch_end = on_epoch_end
    trainer.num_epochs = 6
    trainer.run_training()
    assert seen == [None, 2, 2, 4, 5, 6]
    assert trainer.save_every == 50, "a save that was due must not leave another rule behind"


def test_files_of_killed_processes_go_and_those_of_others_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with atomic_path(tmp_path / "mine.pth") as mine:
        own = mine.name.split("-")
        names = {
            mine.name: True,
            "-".join([*own[:2], str(dead.pid), "x.pth"]): False,
            "-".join([*own[:2], str(os.getppid()), "x.pth"]): True,
            f".incomplete-elsewhere-{dead.pid}-x.pth": True,
            ".incomplete-old_name.pth": True,
            "checkpoint_final.pth": True,
        }
        for name in names:
            (tmp_path / name).touch()
        remove_leftovers(tmp_path)
        assert {name: (tmp_path / name).exists() for name in names} == names
        for name in tmp_path.iterdir():
            os.utime(name, (0, 0))  # of another machine, and long ago
        remove_leftovers(tmp_path)
        kept = {name for name, stays in names.items() if stays} - {*list(names)[3:5]}
        assert {p.name for p in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_while_it_writes_leaves_nothing_for_long(tmp_path, number):
    code = (
        "import sys, time; from nnunet_livseg.core.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path: path.write_text('half'); print('writing', flush=True); time.sleep(60)"
    )
    path = tmp_path / "checkpoint_latest.pth"
    path.write_text("whole")
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(number)
    process.wait()
    assert path.read_text() == "whole" and len(list(tmp_path.iterdir())) == 2
    write_checkpoint(path, written("next"))
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_text() == "next"


def test_a_new_training_says_that_an_earlier_one_is_in_its_folder(place):
    trainer = TRAINERS["DPCNetTrainer"]
    first = type("TwiceTrainer", (WithRandomBatches, trainer), {})
    make(first, plans(epochs=1)).run_training()
    second = make(first, plans(epochs=1))
    second.run_training()
    assert "checkpoint_final.pth in this folder is of an earlier training" in Path(second.log_file).read_text()


def test_a_full_disk_at_the_last_moment_is_said(place, monkeypatch):
    attributes = {"at": {"train": 1, "validation": None}}
    trainer = make(type("ToldTrainer", (Told, TRAINERS["DPCNetTrainer"]), attributes))
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"could not be written: .*No space left"):
        trainer.run_training()
