"""Two-stage prediction with thresholds in place of trained models: what each stage sees, and where its result lands."""

import gzip
import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.imaging.images import read_scan
from nnunet_livseg.inference import two_stage
from nnunet_livseg.inference.devices import best_device
from nnunet_livseg.inference.two_stage import Options, predict_two_stage, stage_model

from .conftest import as_image, ct_of, drawing

CUT = {"mode": "crop", "margin_mm": 4.0}


def model_folder(place, name):
    return place / f"{name}__Plans__2d"


def model(place, name):
    return stage_model(model_folder(place, name))


@pytest.fixture
def place(drawn, tmp_path):
    """Images and two model folders; the liver model knows one label, and phases are channels."""
    content = json.loads((drawn / "dataset.json").read_text())
    for name, labels, more in (
        ("liver", {"background": 0, "liver": 1}, {}),
        ("tumor", content["labels"], {"livseg": {"two_stage": CUT}}),
    ):
        folder = model_folder(tmp_path, name)
        (folder / "fold_0").mkdir(parents=True)
        (folder / "fold_0" / "checkpoint_final.pth").touch()
        (folder / "plans.json").write_text('{"configurations": {"2d": {}}}')
        (folder / "dataset.json").write_text(json.dumps(content | {"labels": labels} | more))
    return tmp_path


@pytest.fixture
def stages(monkeypatch):
    """What the models were given: thresholds at 0 and 100 HU answer for them. The spine is no part of the liver."""
    given = []

    def predict(cases, out, model, options):
        name = model.folder.name.split("__")[0]
        given.append((name, cases, options))
        out.mkdir(parents=True, exist_ok=True)
        for case in cases:
            image = sitk.ReadImage(str(case.images[0]))
            hu = sitk.GetArrayFromImage(image)
            found = (hu > 0).astype(np.uint8) + (hu > 100) * (name == "tumor")
            labels = sitk.GetImageFromArray(found.astype(np.uint8))
            labels.CopyInformation(image)
            sitk.WriteImage(labels, str(out / f"{case.name}.nii.gz"))
            given[-1] += (hu,)

    monkeypatch.setattr(two_stage, "_predict", predict)
    return given


def segment(place, **options):
    models = {
        "liver": model(place, "liver"),
        "tumor": model(place, "tumor"),
    } | options
    return predict_two_stage(place / "Dataset301_Drawn/imagesTr", place / "out", **models)


def test_the_result_is_on_the_grid_of_the_image(place, stages):
    image = place / "Dataset301_Drawn/imagesTr/b_0000.nii.gz"
    assert segment(place) == []
    result = sitk.ReadImage(str(place / "out/b.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result), drawing(3))
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        expected = getattr(sitk.ReadImage(str(image)), geometry)()
        assert getattr(result, geometry)() == pytest.approx(expected)
    assert (place / "out/liver/b.nii.gz").is_file()
    assert not list((place / "out").glob(".two-stage-*"))


def test_the_second_stage_sees_the_box_and_the_scales_are_its_own(place, stages):
    segment(place, options=Options("cpu", scales=(0.5, 1.0)))
    (first, _, plain, *whole), (second, _, scaled, *cut) = stages
    assert (first, plain.scales, whole[0].shape) == ("liver", (1.0,), (12, 24, 40))
    assert (second, scaled.scales, cut[0].shape) == ("tumor", (0.5, 1.0), (6, 14, 28))


def test_masking_as_the_model_was_trained(place, stages):
    content = json.loads((model_folder(place, "tumor") / "dataset.json").read_text())
    content["livseg"]["two_stage"]["mode"] = "mask"
    (model_folder(place, "tumor") / "dataset.json").write_text(json.dumps(content))
    segment(place)
    assert set(stages[1][3].ravel()) == {-1024, 60, 200}
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(place / "out/a.nii.gz"))), drawing())


def test_a_case_without_a_liver_is_background(place, stages):
    path = place / "Dataset301_Drawn/imagesTr/none_0000.nii.gz"
    sitk.WriteImage(as_image(np.full((12, 24, 40), -100, np.int16)), str(path))
    assert segment(place) == ["none"]
    assert [case.name for case in stages[1][1]] == ["a", "b"]
    result = sitk.ReadImage(str(place / "out/none.nii.gz"))
    assert result.GetSize() == (40, 24, 12) and not sitk.GetArrayFromImage(result).any()


def test_livers_that_are_there_already(place, stages):
    """They have the labels of the dataset.json beside them, or else the tumor model's."""
    assert segment(place, liver=place / "Dataset301_Drawn/labelsTr") == ["none"]
    assert [name for name, *_ in stages] == ["tumor"]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(place / "out/a.nii.gz"))), drawing())


def test_livers_are_never_overwritten(place, stages):
    out = (place / "Dataset301_Drawn/labelsTr").rename(place / "out")
    with pytest.raises(UserError, match="out holds the predicted livers, which the results would overwrite"):
        segment(place, liver=place / "Dataset301_Drawn" / ".." / "out")
    assert stages == [] and len(list(out.iterdir())) == 3


def test_livers_stored_from_the_other_side_are_refused(place, stages):
    path = place / "Dataset301_Drawn/labelsTr/a.nii.gz"
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(path)), (True, False, False)), str(path))
    with pytest.raises(UserError, match=r"a\.nii\.gz does not lie where its image lies"):
        segment(place, liver=path.parent)


def test_a_header_that_had_to_be_repaired_says_nothing_of_the_livers_place(place, stages):
    """The liver model's result has the image's header as ITK reads it."""
    path = place / "Dataset301_Drawn/imagesTr/a_0000.nii.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[80:84] = (-np.frombuffer(raw[80:84], "<f4")).tobytes()
    path.write_bytes(gzip.compress(raw))
    assert read_scan(path).repairs
    segment(place)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(place / "out/a.nii.gz"))), drawing())


def test_two_phases_of_which_the_liver_model_takes_the_first(place, stages):
    images = place / "Dataset301_Drawn/imagesTr"
    content = json.loads((model_folder(place, "tumor") / "dataset.json").read_text())
    content["channel_names"] = {"0": "CT", "1": "CT"}
    (model_folder(place, "tumor") / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a_0001.nii.gz is missing; the tumor model needs this channel \(CT\)"):
        segment(place)
    for name in ("a", "b", "none"):
        sitk.WriteImage(as_image(ct_of(drawing())), str(images / f"{name}_0001.nii.gz"))
    segment(place)
    assert [len(case.images) for case in stages[0][1]] == [1, 1, 1]
    assert [len(case.images) for case in stages[1][1]] == [2, 2, 2]


def test_what_does_not_fit_is_refused_before_anything_is_predicted(place, stages):
    tumor = json.loads((model_folder(place, "tumor") / "dataset.json").read_text())
    described = model_folder(place, "liver") / "dataset.json"
    with pytest.raises(UserError, match=r"nowhere is no trained model: it has no plans\.json"):
        segment(place, tumor=stage_model(place / "nowhere"))
    with pytest.raises(UserError, match="the tumor model was trained on whole images"):
        segment(place, tumor=model(place, "liver"))
    described.write_text(json.dumps(tumor | {"labels": {"background": 0, "tumor": 1}}))
    with pytest.raises(UserError, match="no label is the liver by its name"):
        segment(place)
    described.write_text(json.dumps(tumor | {"channel_names": {"0": "CT", "1": "CT"}}))
    with pytest.raises(UserError, match=r"the liver model takes 2 channels as \.nii\.gz, the tumor model 1"):
        segment(place)
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        predict_two_stage(
            place / "nowhere",
            place / "out",
            liver=model(place, "liver"),
            tumor=model(place, "tumor"),
        )
    with pytest.raises(UserError, match=r"holds no images named CASE_0000\.nii\.gz"):
        predict_two_stage(
            place,
            place / "out",
            liver=model(place, "liver"),
            tumor=model(place, "tumor"),
        )
    assert stages == []


def test_the_second_model_of_a_cascade_is_refused(place, stages):
    cascade = model_folder(place, "tumor").rename(place / "T__P__3d_cascade_fullres")
    plans = {"configurations": {"3d_cascade_fullres": {"previous_stage": "3d_lowres"}}}
    (cascade / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UserError, match="T__P__3d_cascade_fullres is the second model of nnU-Net's cascade"):
        segment(place, tumor=stage_model(cascade))


@pytest.mark.parametrize("step_size", ["0", "-1", "2", "nan"])
def test_step_sizes_out_of_range_are_refused(place, stages, step_size, capsys):
    folders = ["-i", place / "Dataset301_Drawn/imagesTr", "-o", place / "out", "--livers", place]
    models = ["-m", model_folder(place, "tumor")]
    assert main(["two-stage", "predict", *map(str, folders + models), "-step_size", step_size]) == 1
    assert "it is a share of the patch, above 0 and at most 1" in capsys.readouterr().err


def test_the_device_is_the_best_that_is_here_and_another_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Options().device == best_device()
    with pytest.raises(UserError, match="there is no device cuda here"):
        Options("cuda")


def test_the_command(place, stages, capsys):
    images, out = place / "Dataset301_Drawn/imagesTr", place / "out"
    models = ["--liver-model", str(model_folder(place, "liver")), "-m", str(model_folder(place, "tumor"))]
    further = ["--liver-folds", "0", "-f", "0", "--scales", "0.5", "1", "-device", "cpu"]
    assert main(["two-stage", "predict", "-i", str(images), "-o", str(out), *models, *further]) == 0
    assert stages[1][2] == Options("cpu", scales=(0.5, 1.0))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(out / "b.nii.gz"))), drawing(3))
    assert main(["two-stage", "predict", "-i", str(images), "-o", str(out), *models[2:]]) == 1
    assert "give either --liver-model or --livers" in capsys.readouterr().err
