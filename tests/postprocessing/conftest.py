"""Small trainings: label maps of a cross-validation, without a network."""

import json

import pytest
import SimpleITK as sitk

LABELS = {"background": 0, "liver": 1, "tumor": 2}
DATASET = "Dataset901_Drawn"


def write(path, labels, spacing=(1.0, 2.0, 4.0)):
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(spacing[: labels.ndim])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def training(tmp_path, monkeypatch):
    """``make(pairs, n_folds)`` writes (predicted, reference) label maps as the folds of a training; its folder."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))

    def make(pairs, n_folds=2, labels=LABELS, ending=".nii.gz"):
        folder = tmp_path / "results" / DATASET / "DPCNetTrainer__nnUNetPlans__3d_fullres"
        for n, (predicted, reference) in enumerate(pairs):
            write(folder / f"fold_{n % n_folds}" / "validation" / f"c{n}{ending}", predicted)
            write(tmp_path / "raw" / DATASET / "labelsTr" / f"c{n}{ending}", reference)
        (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
        return folder

    return make
