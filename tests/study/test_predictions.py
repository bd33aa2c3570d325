"""Test cases: predicted when all folds are trained, resumed from what is whole, and made anew after a new training."""

import os
import signal
import time

import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.study import job_state, run_job
from nnunet_livseg.study.study_file import read_study
from nnunet_livseg.study.study_jobs import plan_study

from .conftest import DATASET, dataset_of, finish, write

STUDY = 'datasets = [901]\nrows = ["dpcnet", "sfan"]\nfolds = [1, 0]\ndevice = "cpu"\ntest = true\n'
CASES = ("unseen_000", "unseen_001")


@pytest.fixture
def plan(place):
    """A study whose trainings have ended."""
    dataset_of(place, 2)
    for case in CASES:
        (place.folder / "nnUNet_raw" / DATASET / "imagesTs").mkdir(exist_ok=True)
        (place.folder / "nnUNet_raw" / DATASET / "imagesTs" / f"{case}_0000.nii.gz").touch()
    plan = plan_study(read_study(place.study(STUDY)))
    for training in plan.trainings:
        finish(training)
    return plan


@pytest.fixture
def prediction(plan):
    return next(iter(plan.predictions.values()))


class Predictor:
    """In nnU-Net's place: writes the cases that are not there, and dies in the middle of one if it is told to."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.wrote, self.dies_at = folder, [], None
        monkeypatch.setattr(run_job, "_nnunet_predict", self)

    def __call__(self, command):
        assert command[command.index("-f") + 1 : command.index("-device")] == ["0", "1"]
        for case in CASES:
            path = self.folder / f"{case}.nii.gz"
            if path.exists():
                continue
            write(path, 1)
            if case == self.dies_at:
                path.write_bytes(path.read_bytes()[:-9])
                raise KeyboardInterrupt
            self.wrote.append(case)


def word(plan, prediction):
    return job_state.prediction_state(plan, prediction).word


def test_an_ensemble_waits_for_its_folds_and_is_made_once(plan, prediction, monkeypatch):
    nnunet = Predictor(prediction.folder, monkeypatch)
    assert prediction.name == f"{DATASET}/DPCNetTrainer__DPCNetPlans__3d_fullres/test_folds_0_1"
    assert len(plan.predictions) == 2 and plan.needed_by(prediction.name) == [one.name for one in prediction.trainings]
    final = prediction.trainings[1].folder / "checkpoint_final.pth"
    final.unlink()
    with pytest.raises(UserError, match=f"Run its job first: {prediction.trainings[1].name}"):
        run_job.run_job(plan, prediction.name)
    final.touch()
    run_job.run_job(plan, prediction.name)
    run_job.run_job(plan, prediction.name)
    assert nnunet.wrote == [*CASES] and word(plan, prediction) == "done"


def test_what_a_kill_has_cut_is_predicted_again_and_the_rest_is_kept(plan, prediction, monkeypatch):
    nnunet = Predictor(prediction.folder, monkeypatch)
    nnunet.dies_at = CASES[1]
    with pytest.raises(KeyboardInterrupt):
        run_job.run_job(plan, prediction.name)
    state = job_state.prediction_state(plan, prediction)
    assert (state.word, state.remark) == ("begun", "2 of 2 cases")
    nnunet.dies_at = None
    run_job.run_job(plan, prediction.name)
    assert nnunet.wrote == [*CASES] and word(plan, prediction) == "done"


def test_a_cut_at_any_byte_is_seen(tmp_path):
    path = tmp_path / "case.nii.gz"
    write(path, 1)
    whole = path.read_bytes()
    assert run_job._is_readable(path)
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        assert not run_job._is_readable(path), f"{length} of {len(whole)} bytes"


def test_another_training_makes_the_predictions_stale(plan, prediction, monkeypatch):
    nnunet = Predictor(prediction.folder, monkeypatch)
    run_job.run_job(plan, prediction.name)
    (prediction.trainings[0].folder / "checkpoint_final.pth").write_text("trained again")
    assert word(plan, prediction) == "begun"
    run_job.run_job(plan, prediction.name)
    assert nnunet.wrote == [*CASES, *CASES] and word(plan, prediction) == "done"


def test_predictions_by_hand_count_when_nothing_writes_there(plan, prediction, monkeypatch):
    nnunet = Predictor(prediction.folder, monkeypatch)
    for case in CASES:
        write(prediction.folder / f"{case}.nii.gz", 1)
    assert word(plan, prediction) == "running"
    long_ago = time.time() - 2 * job_state.QUIET_S
    for path in prediction.folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    run_job.run_job(plan, prediction.name)
    assert nnunet.wrote == [] and word(plan, prediction) == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nnU-Net forks workers where that exists")
def test_a_prediction_leaves_at_a_signal_and_its_workers_end_as_ever():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="75"), run_job._leaving_when_told():
        worker = os.fork()
        if worker == 0:
            os._exit(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
        assert os.waitpid(worker, 0)[1] == 0
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_prediction_without_a_case_is_not_done(plan, prediction, monkeypatch):
    monkeypatch.setattr(run_job, "_nnunet_predict", lambda command: None)
    with pytest.raises(UserError, match=r"has ended without unseen_000\.nii\.gz"):
        run_job.run_job(plan, prediction.name)
    assert word(plan, prediction) == "failed"


def test_a_dataset_without_test_cases_is_refused(place):
    dataset_of(place, 2)
    with pytest.raises(UserError, match="imagesTs has none"):
        plan_study(read_study(place.study(STUDY)))
