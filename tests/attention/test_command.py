"""``livseg attention`` on model folders as nnU-Net writes them: files, geometry, pictures, and what is refused."""

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.inference.attention_case import deepest
from nnunet_livseg.inference.attention_maps import attention_maps
from nnunet_livseg.inference.attention_sheet import Plane
from nnunet_livseg.networks.mfcnet import MFCNet

from .conftest import ct, model_folder


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "case.nii.gz"
    sitk.WriteImage(ct(border=2), str(path))
    return path


def test_all_files_on_the_grid_of_the_image(image, tmp_path, capsys):
    model = model_folder(tmp_path, "dpcnet", 3, order=(2, 0, 1), spacing_mm=(1.2, 4.0, 2.0))
    out = tmp_path / "out"
    assert main(["attention", str(image), "-m", str(model), "-o", str(out), "--point", "9", "30", "20"]) == 0
    said = capsys.readouterr().out
    assert "looked at voxel 9 30 20 (z y x): as given" in said and "16 maps in" in said
    table = json.loads((out / "attention.json").read_text())
    assert table["case"] == "case" and table["fold"] == "0" and table["point"]["voxel_zyx"] == [9, 30, 20]
    box = tuple(
        slice(first, first + count)
        for first, count in zip(table["patch"]["first_voxel_zyx"], table["patch"]["voxels_zyx"], strict=True)
    )
    listed = {row["file"] for row in table["maps"]} | {"attention.json", "attention.png", "prediction.nii.gz"}
    assert listed == {path.name for path in out.iterdir()}
    reference = sitk.ReadImage(str(image))
    for row in table["maps"]:
        if row["file"].endswith(".csv"):
            continue
        written = sitk.ReadImage(str(out / row["file"]))
        assert written.GetSize() == reference.GetSize()
        for of in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(written, of)() == pytest.approx(getattr(reference, of)(), abs=1e-4)
        voxels = sitk.GetArrayFromImage(written)
        inside = voxels[box]
        assert row["min"] - 1e-6 <= inside.min() and inside.max() <= row["max"] + 1e-6 and inside.max() > 0
        voxels[box] = 0
        assert not voxels.any(), "something outside the patch"
    assert Image.open(out / "attention.png").size[0] > 500


def test_vectors_of_sfan(image, tmp_path):
    out = tmp_path / "out"
    model = model_folder(tmp_path, "sfan", 2, spacing_mm=(2.0, 2.0))
    assert main(["attention", str(image), "-m", str(model), "-o", str(out)]) == 0
    rows = list(csv.DictReader((out / "vectors.csv").open()))
    assert {row["name"] for row in rows} == {f"sat_level{i}" for i in range(4)} | {f"gca_level{i}" for i in range(5)}
    assert [int(row["index"]) for row in rows if row["name"] == "sat_level1"] == list(range(6))
    assert all(0 <= float(row["value"]) <= 1 for row in rows)


def test_phases_of_a_2d_network_lie_in_one_slice(tmp_path):
    model = model_folder(tmp_path, "sam-urim", 2, channels=2, spacing_mm=(2.0, 2.0))
    images = [tmp_path / "venous.nii.gz", tmp_path / "arterial.nii.gz"]
    for seed, path in enumerate(images):
        sitk.WriteImage(ct(seed=seed), str(path))
    case = attention_maps(images, model, point=(13, 30, 35))
    names = [one.name for one in case.maps]
    assert names[:4] == ["sam_level4_phase0", "sam_level4_phase1", "sam_level3_phase0", "sam_level3_phase1"]
    assert case.maps[1].phase == "phase 1 (CT)" and names[-1] == "confidence_level2"
    for image, path in zip(case.channels.values(), images, strict=True):
        assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    weights = sum(sitk.GetArrayFromImage(case.on_image(one.values)) for one in case.maps[:2])
    assert weights[13].max() == pytest.approx(1) and weights[case.grid.box].min() == pytest.approx(1)
    assert not np.delete(weights, 13, axis=0).any()


def test_rows_of_attention_belong_to_the_point(image, tmp_path, monkeypatch):
    # of few channels, a fresh network's attention is as good as uniform
    monkeypatch.setitem(MFCNet.__init__.__kwdefaults__, "width", 64)
    model = model_folder(tmp_path, "mfcnet", 2, spacing_mm=(1.5, 1.0))
    rows = []
    for point in ((10, 4, 6), (10, 14, 22)):  # at the border: both in the same patch
        case = attention_maps([image], model, point=point)
        assert case.maps[-1].name == "channel_context_level1"
        rows += [one.values for one in case.maps if one.name == "spatial_context_level1"]
    assert rows[0].shape == (1, 8, 12) and rows[0].sum() == pytest.approx(1)
    assert not np.allclose(*rows)


def read_by(reader, model):
    path = model / "plans.json"
    path.write_text(path.read_text().replace("SimpleITKIO", reader))
    return model


@pytest.mark.parametrize("reader", ["SimpleITKIOWithReorient", "NibabelIOWithReorient"])
@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAI", "PIR", "SAL"])  # as read; twice flipped; twice sideways
@pytest.mark.parametrize("given", [True, False], ids=["point-given", "point-predicted"])
def test_maps_lie_in_the_same_place_of_the_patient_however_the_file_is_turned(given, axes, reader, tmp_path):
    """The turning readers show the network one and the same array; it is the other one's that is read as it is."""
    image = ct(border=2)
    image[:, :, :6] = image[:, 50:, :] = 0  # cropped more at some ends than at others
    plain = sitk.DICOMOrient(image, "RAS")
    stored = sitk.DICOMOrient(image, axes)
    options = {"order": (2, 0, 1), "spacing_mm": (1.2, 4.0, 2.0)}
    model = model_folder(tmp_path / "plain", "dpcnet", 3, **options)
    turning = read_by(reader, model_folder(tmp_path / "turning", "dpcnet", 3, **options))
    expected = attention_maps([plain], model, point=(8, 35, 20) if given else None)
    mm = plain.TransformIndexToPhysicalPoint(expected.point[::-1])
    case = attention_maps([stored], turning, point=stored.TransformPhysicalPointToIndex(mm)[::-1] if given else None)
    assert stored.TransformIndexToPhysicalPoint(case.point[::-1]) == pytest.approx(mm, abs=1e-6)
    for one, other in zip(expected.maps, case.maps, strict=True):
        assert np.array_equal(one.values, other.values)
        if not one.is_vector:
            back = sitk.DICOMOrient(case.on_image(other.values), "RAS")
            assert back.GetOrigin() == pytest.approx(plain.GetOrigin(), abs=1e-6)
            known = sitk.GetArrayFromImage(expected.on_image(one.values))
            assert known.any() and np.allclose(sitk.GetArrayFromImage(back), known, atol=1e-5 * known.max())


def test_the_point_is_the_middle_of_what_the_network_predicts(image, tmp_path):
    """A fresh network predicts something or other; the point must lie in it."""
    model = model_folder(tmp_path, "sfan", 3)
    case = attention_maps([str(image)], str(model))
    structure = next(name for name in ("tumor", "liver") if name in case.reason)
    predicted = np.isin(sitk.GetArrayFromImage(case.on_image(case.labels, labels=True)), case.structures[structure])
    z, y, x = case.point
    assert predicted[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].any()


def test_deepest_voxel_of_the_largest_part():
    mask = np.zeros((9, 20, 20), bool)
    mask[2:7, 3:8, 4:9] = True  # 125 voxels
    mask[1:8, 12:20, 18] = True  # flat
    assert deepest(mask) == (4, 5, 6)


PERMUTED = (0, 1, 0, 0, 0, 1, -1, 0, 0)  # stored as sagittal slices: the array's axes run left, head, back


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1), PERMUTED])
def test_the_sheet_shows_the_patients_right_on_the_left(direction, tmp_path):
    """However the file stores its axes: bright on the patient's right is bright on the left of the picture."""
    image = ct((40, 40, 40), spacing_mm=(1.0, 1.0, 1.0))
    image.SetDirection(direction)
    image.SetOrigin((0, 0, 0))
    image.SetOrigin([-mm for mm in image.TransformContinuousIndexToPhysicalPoint((19.5, 19.5, 19.5))])
    voxels = sitk.GetArrayFromImage(image)
    for z, y, x in np.ndindex(voxels.shape):
        if image.TransformIndexToPhysicalPoint((x, y, z))[0] < -5:  # the patient's right, as x grows to the left
            voxels[z, y, x] = 1000
    bright = sitk.GetImageFromArray(voxels)
    bright.CopyInformation(image)
    model = model_folder(tmp_path, "sfan", 3, spacing_mm=(1.0, 1.0, 1.0))
    case = attention_maps([bright], model, point=(20, 20, 20))
    plane = Plane(case)
    picture = plane.of_image(bright)
    assert plane.name == "axial plane" and plane.sides == ("R", "L")
    assert picture[:, 0].mean() > 900 and picture[:, -1].mean() < 100
    column = round(plane.point[1])
    own = bright.TransformIndexToPhysicalPoint((20, 20, 20))[0]
    assert abs(column - np.flatnonzero(picture.mean(0) < 500)[0] - (own + 5)) <= 1.5


@pytest.mark.parametrize(("order", "name"), [((0, 1, 2), "axial"), ((1, 0, 2), "coronal"), ((2, 0, 1), "sagittal")])
def test_the_plane_of_a_2d_network_is_its_own(order, name, tmp_path):
    image = ct((48, 48, 48), spacing_mm=(2.0, 1.0, 1.0))
    image.SetDirection(np.eye(3).ravel())
    model = model_folder(tmp_path, "sam-urim", 2, channels=2, order=order, spacing_mm=(1.0, 1.0))
    case = attention_maps([image, image], model, point=(10, 20, 30))
    plane = Plane(case)
    assert plane.name == f"{name} plane"
    found = plane.of_image(image)[plane.point]
    assert found == sitk.GetArrayFromImage(image)[10, 20, 30]


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--point", "99", "0", "0"], "the point 99 0 0 is outside the image of 20 x 60 x 70 voxels"),
        (["-f", "3"], "SFANTrainer.* has no checkpoint_final.pth of fold 3; trained: fold_0"),
        (["-chk", "checkpoint_best.pth"], "has no fold with checkpoint_best.pth"),
        (["-device", "cuda"], "there is no device cuda here"),
    ],
)
def test_refused_arguments(args, message, image, tmp_path, capsys, monkeypatch):
    import re

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    model = model_folder(tmp_path, "sfan", 3)
    assert main(["attention", str(image), "-m", str(model), "-o", str(tmp_path / "out"), *args]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_network_without_attention(image, tmp_path):
    model = model_folder(tmp_path, "dpcnet-unet", 3)
    with pytest.raises(UserError, match=r"DPCNetUNetTrainer__\S+: this network has no attention.*\n.*DPCNetTrainer"):
        attention_maps([image], model)


def test_a_reader_of_pictures(image, tmp_path):
    model = read_by("NaturalImage2DIO", model_folder(tmp_path, "sfan", 3))
    with pytest.raises(UserError, match="trained on images that nnU-Net reads with NaturalImage2DIO: 2D pictures"):
        attention_maps([image], model)


def test_a_model_of_cts_cut_to_the_liver(image, tmp_path):
    model = model_folder(tmp_path, "sfan", 3)
    path = model / "dataset.json"
    cutting = {"two_stage": {"mode": "mask", "margin_mm": 20.0}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"livseg": cutting}))
    with pytest.raises(UserError, match=r"SFANTrainer__\S+ was trained on CTs cropped to the liver .*\n.*whole"):
        attention_maps([image], model)


def test_channels_that_do_not_fit(image, tmp_path):
    model = model_folder(tmp_path, "sam-urim", 2, channels=2)
    with pytest.raises(UserError, match=r"has 1 channel\(s\), but SAMURIMTrainer\S+ was trained on 2 \(CT, CT\)"):
        attention_maps([image], model)
    with pytest.raises(UserError, match="channel 1 is on another grid than channel 0"):
        attention_maps([image, ct((20, 60, 71))], model)


def test_the_second_model_of_a_cascade(image, tmp_path):
    first = model_folder(tmp_path, "sfan", 3)
    second = first.with_name(first.name.replace("3d_fullres", "3d_cascade"))
    second.mkdir()
    for path in first.iterdir():
        (second / path.name).symlink_to(path)
    (second / "plans.json").unlink()
    plans = json.loads((first / "plans.json").read_text())
    plans["configurations"]["3d_cascade"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    (second / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UserError, match="3d_cascade is the second model of nnU-Net's cascade"):
        attention_maps([image], second)


def test_no_model(image, tmp_path):
    with pytest.raises(UserError, match=r"is not a model folder: it has no plans\.json"):
        attention_maps([image], tmp_path)
