"""The tumor model's dataset: what is in it, where livers come from, going on after an interruption, refusals."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.check_dataset import check_dataset
from nnunet_livseg.data.liver_crop_dataset import require_liver, write_region_dataset
from nnunet_livseg.data.raw_dataset import RawDataset
from nnunet_livseg.imaging.liver_crop import LiverCrop, fill_values

from .conftest import as_image, drawing


def write(drawn, out, cutting=LiverCrop(margin_mm=4), **options):  # noqa: B008 - frozen
    return write_region_dataset(RawDataset.open(drawn), out, cutting=cutting, progress=False, **options)


def array(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_cases_are_cut_and_those_without_a_liver_left_out(drawn, tmp_path):
    out = tmp_path / "Dataset302_InLiver"
    assert write(drawn, out) == ["none"]
    made = RawDataset.open(out)
    assert [case.name for case in made.cases()] == ["a", "b"]
    assert made.json["numTraining"] == 2 and made.labels == RawDataset.open(drawn).labels
    assert array(out / "imagesTr/b_0000.nii.gz").shape == array(out / "labelsTr/b.nii.gz").shape == (6, 14, 28)
    np.testing.assert_array_equal(array(out / "labelsTr/b.nii.gz"), drawing(3)[3:9, 9:23, 6:34])
    said = made.json["livseg"]["two_stage"]
    assert said["boxes"]["b"] == [[3, 6], [9, 14], [6, 28]]
    assert (said["mode"], said["margin_mm"], said["source"]) == ("crop", 4, "Dataset301_Drawn")
    assert LiverCrop.from_dataset_json(made.json) == LiverCrop("crop", 4.0)


def test_livers_from_predictions(drawn, tmp_path):
    """Another label value for the liver, a smaller liver than the labels'."""
    livers = tmp_path / "livers"
    livers.mkdir()
    (livers / "dataset.json").write_text(
        json.dumps(json.loads((drawn / "dataset.json").read_text()) | {"labels": {"background": 0, "liver": 3}})
    )
    for name in ("a", "b", "none"):
        predicted = np.where(drawing() > 0, 3, 0).astype(np.uint8)
        predicted[7] = 0
        sitk.WriteImage(as_image(predicted), str(livers / f"{name}.nii.gz"))
    out = tmp_path / "Dataset302_Masked"
    assert write(drawn, out, LiverCrop("mask", 0), livers=livers) == []
    image = array(out / "imagesTr/none_0000.nii.gz")
    assert image.shape == (3, 10, 20)
    assert set(array(out / "imagesTr/a_0000.nii.gz").ravel()) == {60, 200}
    assert list(RawDataset.open(out).labels) == ["background", "liver", "tumor"]


def test_going_on_after_an_interruption(drawn, tmp_path, monkeypatch):
    out = tmp_path / "Dataset302_InLiver"
    kept = (drawn / "labelsTr/b.nii.gz").rename(tmp_path / "b.nii.gz")
    with pytest.raises(UserError, match=r"labelsTr/b\.nii\.gz does not exist"):
        write(drawn, out)
    first = (out / "imagesTr/a_0000.nii.gz").stat().st_mtime_ns
    kept.rename(drawn / "labelsTr/b.nii.gz")
    write(drawn, out)
    assert (out / "imagesTr/a_0000.nii.gz").stat().st_mtime_ns == first
    assert RawDataset.open(out).json["numTraining"] == 2


def test_another_dataset_is_left_alone(drawn, tmp_path):
    out = tmp_path / "Dataset302_InLiver"
    write(drawn, out)
    with pytest.raises(UserError, match="contains another dataset, which stays as it is"):
        write(drawn, out, LiverCrop("mask", 4))
    with pytest.raises(UserError, match="would lie among the files of the input"):
        write(drawn, drawn)
    (tmp_path / "Dataset303_Full").mkdir()
    (tmp_path / "Dataset303_Full" / "file").touch()
    with pytest.raises(UserError, match=r"is not empty .* \(dataset\.json is missing\)"):
        write(drawn, tmp_path / "Dataset303_Full")


def test_wrong_arguments(drawn, tmp_path):
    with pytest.raises(UserError, match=r"InLiver is not a name for nnU-Net.*DatasetNNN_Name"):
        write(drawn, tmp_path / "InLiver")
    out = tmp_path / "Dataset302_InLiver"
    with pytest.raises(UserError, match="there is no crop mode 'box'; known: crop, mask"):
        write(drawn, out, LiverCrop("box"))
    with pytest.raises(UserError, match="the margin around the liver is -1 mm"):
        write(drawn, out, LiverCrop(margin_mm=-1))
    with pytest.raises(UserError, match=r"there is no folder .* with predicted livers"):
        write(drawn, out, livers=tmp_path / "nowhere")
    with pytest.raises(UserError, match="no label is named liver; the labels are background, tumor"):
        require_liver(RawDataset(drawn, {"labels": {"background": 0, "tumor": 1}}), where="x")
    assert not out.exists()


def test_livers_with_values_that_nobody_declared_are_refused(drawn, tmp_path):
    livers = tmp_path / "livers"
    livers.mkdir()
    for name in ("a", "b", "none"):
        sitk.WriteImage(as_image((drawing() > 0) * np.uint8(255)), str(livers / f"{name}.nii.gz"))
    with pytest.raises(UserError, match=r"map .*a\.nii\.gz contains the labels \[255\], but .* only knows \[0, 1, 2\]"):
        write(drawn, tmp_path / "Dataset302_InLiver", livers=livers)


def test_all_kinds_of_tumor_belong_to_the_liver(drawn, tmp_path):
    """Once only the first kind did, and the box was cut without the others."""
    content = json.loads((drawn / "dataset.json").read_text())
    content["labels"] = {"background": 0, "liver": 3, "hcc": 1, "metastasis": 2}
    (drawn / "dataset.json").write_text(json.dumps(content))
    write(drawn, tmp_path / "Dataset302_InLiver")
    said = json.loads((tmp_path / "Dataset302_InLiver" / "dataset.json").read_text())["livseg"]["two_stage"]
    assert said["boxes"]["b"] == [[3, 6], [9, 14], [6, 28]]


def test_no_case_with_a_liver(drawn, tmp_path):
    for name in ("a", "b"):
        (drawn / f"labelsTr/{name}.nii.gz").write_bytes((drawn / "labelsTr/none.nii.gz").read_bytes())
    with pytest.raises(UserError, match="no case of Dataset301_Drawn has a liver"):
        write(drawn, tmp_path / "Dataset302_InLiver")


def test_air_stands_outside_the_liver_in_a_ct_only():
    assert fill_values(["CT", "ct", "MRI"]) == [-1024.0, -1024.0, None]


def test_the_dataset_passes_the_check_and_the_command_writes_it(drawn, tmp_path, capsys):
    out = tmp_path / "Dataset302_InLiver"
    assert main(["two-stage", "data", "-d", str(drawn), "--out", str(out), "--crop-mode", "mask", "--margin", "2"]) == 3
    said = capsys.readouterr().out
    assert "skipped, because no liver was found: none" in said
    assert "nnUNetv2_plan_and_preprocess -d 302" in said
    assert not [finding for finding in check_dataset(out) if finding.severity == "error"]
