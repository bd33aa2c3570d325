"""Liver model, region, tumor model, with nnU-Net's real trainings."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.cli.shared_options import DONE_BUT

DATASET, CUT = "Dataset901_Phantom", "Dataset951_InLiver"


@pytest.mark.parametrize("mode", ["crop", "mask"])
def test_both_models_trained_and_used(workplace, tmp_path, mode):
    place = workplace
    train = ("-tr", "SFANTrainer", "-device", "cpu")
    place.quick("livseg", "two-stage", "data", "-d", 901, "--out", place.raw / CUT, "--crop-mode", mode, "--margin", 20)
    place.quick(
        "nnUNetv2_plan_and_preprocess", "-d", 951, "-c", "2d", "-np", 1, "-npfp", 1, "--verify_dataset_integrity"
    )
    place.shorten(CUT)
    place.quick("nnUNetv2_train", 951, "2d", 0, *train)
    # a model trained for two steps finds no liver; the labels of the test cases stand in for it
    livers = tmp_path / "livers"
    livers.mkdir()
    for path in (place.raw / DATASET / "labelsTs").glob("*.nii.gz"):
        (livers / path.name).write_bytes(path.read_bytes())
    (livers / "dataset.json").write_bytes((place.raw / DATASET / "dataset.json").read_bytes())
    tumor = place.results / CUT / "SFANTrainer__nnUNetPlans__2d"
    assert json.loads((tumor / "dataset.json").read_text())["livseg"]["two_stage"]["mode"] == mode
    images, out = place.raw / DATASET / "imagesTs", tmp_path / "out"
    place.quick(
        *("livseg", "two-stage", "predict", "-i", images, "-o", out, "--livers", livers, "-m", tumor),
        *("-device", "cpu", "--scales", 1, "--disable_tta"),
    )
    image = sitk.ReadImage(str(next(images.glob("*_0000.nii.gz"))))
    found = sitk.ReadImage(str(next(out.glob("*.nii.gz"))))
    assert found.GetSize() == image.GetSize()
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, geometry)() == pytest.approx(getattr(image, geometry)())
    if mode == "mask":
        liver = sitk.GetArrayFromImage(sitk.ReadImage(str(next(livers.glob("*.nii.gz"))))) > 0
        assert not np.any(sitk.GetArrayFromImage(found)[~liver])


def test_the_liver_model_runs_first(sfan, tmp_path):
    """One network as both stages: whatever it finds, every case has a result on its grid."""
    place, name = sfan, "SFANTrainer__nnUNetPlans__2d"
    liver = place.results / DATASET / name
    model = shutil.copytree(liver, tmp_path / DATASET / name)
    content = json.loads((model / "dataset.json").read_text())
    cut = {"two_stage": {"mode": "crop", "margin_mm": 10.0}}
    (model / "dataset.json").write_text(json.dumps(content | {"livseg": cut}))
    images, out = place.raw / DATASET / "imagesTs", tmp_path / "out"
    place.quick(
        *("livseg", "two-stage", "predict", "-i", images, "-o", out, "--liver-model", liver, "-m", model),
        *("-device", "cpu", "--disable_tta"),
        statuses=(0, DONE_BUT),  # after two steps it may find no liver
    )
    names = {path.name for path in out.iterdir()}
    assert names == {path.name.replace("_0000", "") for path in images.glob("*_0000.nii.gz")}
