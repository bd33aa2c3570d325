"""benchmarks/real_tumors.py: every method is trained in every fold, and every patient is scored once."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.phantom.phantom_dataset import write_dataset

from .matrix.nnunet import forked_run
from .test_results import script

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tumors():
    return script(PROJECT / "benchmarks" / "real_tumors.py")


@pytest.fixture
def budget(tumors):
    length = {"epochs": 1, "iterations": 2, "validation_iterations": 1}
    return tumors.Budget(**length, batch=2, patch=32, spacing_mm=12.0, margin_mm=20.0, features=(4, 8, 8), folds=2)


def test_every_method_has_a_model_folder_of_its_own(tumors):
    jobs = tumors.all_jobs()
    assert jobs[0] == tumors.FIRST
    assert len({tumors.model_of(job) for job in jobs}) == len(jobs)


def test_no_image_is_linked_into_the_repository(tumors, budget, tmp_path):
    with pytest.raises(UserError, match="lies inside the repository"):
        tumors.measure(tmp_path, PROJECT / "work", budget, tumors.all_jobs())
    assert not (PROJECT / "work").exists()


@pytest.mark.slow
def test_the_whole_run_on_phantoms(tumors, budget, tmp_path, monkeypatch):
    """Every patient but one is predicted by the fold that has not seen it, and a second call does nothing."""
    monkeypatch.setattr(sys.modules["workplace"], "subprocess", SimpleNamespace(run=forked_run))
    size = {"size": (16, 32, 32), "spacing_mm": (14.0, 9.0, 9.0)}
    source = write_dataset(tmp_path / "Dataset901_Phantom", cases=5, test_cases=0, progress=False, **size)
    jobs = [tumors.FIRST, tumors.Job("sfan", "paper")]
    found = tumors.measure(source, tmp_path / "work", budget, jobs)
    assert [job["trainer"] for job in found["jobs"]] == ["nnUNetTrainerShort", "SFANTrainer"]
    split = json.loads((tmp_path / "work/nnUNet_preprocessed" / tumors.DATASET / "splits_final.json").read_text())
    *scored, largest = tumors.by_tumor_volume(source / "labelsTr")
    assert all(largest in part["train"] for part in split)
    assert [sorted(job["dice_of_patient"]) for job in found["jobs"]] == 2 * [sorted(scored)]
    assert found["jobs"][0]["against"] is None
    means = [job["scores"]["tumor"]["mean"] for job in found["jobs"]]
    assert found["jobs"][1]["against"]["difference"] == pytest.approx(means[1] - means[0], abs=1e-6)
    assert found["jobs"][1]["livseg"]["loss"] == "weighted_ce"
    assert found["jobs"][1]["livseg"]["recipe"]["foreground"] == 1.0
    for job in jobs:
        model = tmp_path / "work" / "nnUNet_results" / tumors.DATASET / tumors.model_of(job)
        for fold, part in enumerate(split):
            predicted = (model / f"fold_{fold}" / "validation").glob("*.nii.gz")
            assert sorted(path.name.partition(".")[0] for path in predicted) == part["val"]
        final = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
        assert final["inference_allowed_mirroring_axes"] is None
    log = (tmp_path / "work" / "logs" / "nnunet-nnunet_fold_0.log").read_text()
    assert "Epoch 0" in log and "Epoch 1" not in log  # one epoch, as asked

    starts = script(PROJECT / "benchmarks" / "spacor_start.py")
    rows = starts.measure(tmp_path / "work", [3], fold=0, threads=1)
    assert [(row["seed"], row["start"]) for row in rows] == [(3, "as it is"), (3, "near 0.5")]
    assert rows[0]["attention"] != pytest.approx(rows[1]["attention"], abs=1e-3)
    assert rows[1]["attention"] == pytest.approx([0.5] * len(rows[1]["attention"]), abs=0.1)  # two steps change little
    assert len(starts.table(rows).splitlines()) == 4

    shutil.rmtree(tmp_path / "work" / "nnUNet_results")  # as on another machine that has the scores alone
    assert json.dumps(tumors.measure(source, tmp_path / "work", budget, jobs)) == json.dumps(found)
    first = tumors.scores_file(tmp_path / "work" / "scores", jobs[0], 0)
    with pytest.raises(UserError, match=r"is of a training with other settings: .*'epochs': 1, "):
        tumors.stored_scores(SimpleNamespace(settings={"epochs": 2}), first)
    part = tumors.collect(tumors.Workplace(tmp_path / "work", tumors.DATASET, found["budget"]), jobs, [0], first.parent)
    assert [sorted(job["dice_of_patient"]) for job in part["jobs"]] == 2 * [sorted(split[0]["val"])]
