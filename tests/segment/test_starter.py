"""The model in the package: livseg segment without -m, and the liver's box for models of one's own."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import as_image
from known_model import drawing, make_model

from nnunet_livseg import segment
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.phantom import write_dataset
from nnunet_livseg.inference import starter_model as starter
from nnunet_livseg.inference.quality import PRESETS
from nnunet_livseg.inference.segmenter import WHOLE_SEGMENTED, Segmenter

LOAD = """
import sys
from nnunet_livseg.inference.segmenter import Segmenter
segmenter = Segmenter(device="cpu")
for one in (segmenter, segmenter.liver_model):
    print(type(one.predictor.nnunet.network).__name__)
print("nnunetv2.training.nnUNetTrainer.nnUNetTrainer" in sys.modules)
"""
TRAINED_ON = {"slice_mm": 5, "liver_hu": [60, 160], "liver_ml": 1000}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A CT with a liver of usual size, and its labels."""
    size, spacing_mm = (48, 64, 80), (4.0, 4.0, 4.0)
    raw = write_dataset(
        tmp_path_factory.mktemp("phantom") / "Dataset901_Phantom", cases=1, size=size, spacing_mm=spacing_mm
    )
    return [sitk.ReadImage(next((raw / folder).iterdir())) for folder in ("imagesTr", "labelsTr")]


def test_the_model_in_the_package_finds_the_liver_of_a_phantom_each_time_in_the_same_voxels(phantom):
    image, labels = phantom
    found = segment(image, device="cpu")
    assert found.provenance.settings["post-processing"] == "tumor-in-liver=0.35, largest-liver, smallest-lesion=50"
    liver, reference = sitk.GetArrayFromImage(found.labels) > 0, sitk.GetArrayFromImage(labels) > 0
    assert 2 * np.sum(liver & reference) / (liver.sum() + reference.sum()) > 0.5
    turned = segment(sitk.DICOMOrient(image, "RSA"), device="cpu")
    again = sitk.GetArrayFromImage(sitk.DICOMOrient(turned.labels, "LPS"))
    assert np.array_equal(again, sitk.GetArrayFromImage(found.labels)), "a mirrored CT was not turned back"
    weights = sum(path.stat().st_size for path in starter.FOLDER.rglob("*.*"))
    assert weights < 5e6
    assert not [path for path in starter.FOLDER.rglob("*.*") if path.suffix not in (".json", ".safetensors")]
    assert str(starter.FOLDER.parents[2]) not in next(starter.FOLDER.glob("*/plans.json")).read_text()


def test_both_models_are_loaded_without_nnunets_trainers_whose_import_takes_seconds():
    run = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["DPCNet", "DPCNet", "False"]


def test_a_copy_of_the_starter_model_finds_the_liver_as_the_one_in_the_package_does(tmp_path):
    """An exported copy could run in no engine, as no command names the model that finds its liver."""
    copy = shutil.copytree(starter.starter_model(), tmp_path / "copy")
    with pytest.raises(UserError, match=r"cannot read whole ones.*\n.*the starter model find the liver: --crop alone"):
        Segmenter(copy, device="cpu")
    found = Segmenter(copy, quality="balanced", device="cpu", crop=True, postprocess=True)
    assert found.settings() == Segmenter(device="cpu").settings()


def test_a_package_without_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(starter, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="the starter model is missing in"):
        Segmenter(device="cpu")


def test_a_model_of_ones_own_looks_at_the_livers_box_alone(phantom, tmp_path):
    """Thresholds say tumor everywhere above 0 HU: what they say outside the box is not looked at."""
    image, _ = phantom
    model = make_model(tmp_path, spacing_mm=(4.0, 4.0, 4.0))
    whole, box = (segment(image, model, device="cpu", quality="fast", crop=crop) for crop in (False, None))
    voxels = [sitk.GetArrayFromImage(result.labels) for result in (whole, box)]
    inside = voxels[1] > 0
    assert 0 < inside.sum() < np.sum(voxels[0] > 0)
    assert np.array_equal(voxels[0][inside], voxels[1][inside])
    assert "liver first" in box.provenance.settings and "liver first" not in whole.provenance.settings
    assert PRESETS["fast"].crop and not PRESETS["standard"].crop


def test_where_it_finds_no_liver_the_whole_ct_is_segmented(tmp_path):
    image, model = as_image(drawing()[0]), make_model(tmp_path)
    found, expected = (segment(image, model, device="cpu", quality="fast", crop=crop) for crop in (True, False))
    assert WHOLE_SEGMENTED in found.notes
    assert np.array_equal(*(sitk.GetArrayFromImage(result.labels) for result in (found, expected)))


def test_a_model_for_cropped_cts_or_mr_gets_no_box_by_itself(tmp_path):
    for name, options in {
        "mr": {"channels": ("MRI",)},
        "coarse": {"dataset": {"livseg": {"grid": {"orientation": "LPS", "average_to_mm": 2.0}}}},
    }.items():
        assert Segmenter(make_model(tmp_path / name, **options), quality="fast", device="cpu").liver_model is None


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({}, ""),
        ({"spacing": (0.7, 0.8, 7.5)}, "slices lie 7.5 mm apart"),
        ({"cut": 2}, "the liver reaches the edge of the CT"),
        ({"hu": -40}, "the liver has 20 HU (is it without contrast, or fatty?)"),
        ({"hu": 140}, "the liver has 200 HU (is it another contrast phase?)"),
        ({"nothing": True}, ""),
    ],
)
def test_what_the_model_has_never_seen_is_noted(change, note):
    hu, labels = drawing()
    image = as_image((hu + change.get("hu", 0))[change.get("cut", 0) :].astype(np.int16))
    if "spacing" in change:
        image.SetSpacing(change["spacing"])
    liver = labels[change.get("cut", 0) :] > 0
    liver &= "nothing" not in change
    cut_off = "cut" in change
    notes = starter.beyond_training({"livseg": {"trained_on": TRAINED_ON}}, image, liver, cut_off=cut_off)
    assert (notes[0].startswith(note) and len(notes) == 1) if note else not notes
    assert not starter.beyond_training({}, image, liver, cut_off=cut_off)
    assert json.loads(next(starter.FOLDER.glob("*/dataset.json")).read_text())["livseg"]["trained_on"].keys() == (
        TRAINED_ON.keys()
    )
