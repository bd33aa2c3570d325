"""What stands beside label map and measurements may fail; those two are written first and stay."""

import csv
import json

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from io_samples import as_image, dicom_slices, save_slices, write
from known_model import drawing

from nnunet_livseg import segment
from nnunet_livseg.cli import main
from nnunet_livseg.report import dicom_segments, patient_tables, result_folder
from nnunet_livseg.report.result_folder import LABELS, LESION_TABLE, LESIONS, PREVIEW, RECORD, REPORT, SEG, SR

FAST = ("--quality", "fast", "--no-crop", "-device", "cpu")
ALL = {LABELS, LESIONS, LESION_TABLE, RECORD, REPORT, PREVIEW, SEG, SR}


def livseg(*args):
    return main(["segment", *map(str, args)])


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def study(tmp_path):
    save_slices(dicom_slices(drawing()[0], FrameOfReferenceUID="1.2.9"), tmp_path / "study")
    return tmp_path / "study"


FAILING = {  # the function, its error, and the files that are not there
    "SEG": ("write_seg", ValueError("Plane positions of Mustermann must not contain duplicates."), {SEG, SR}),
    "SR": ("write_sr", RuntimeError("too many"), {SR}),
    "report": ("write_report", MemoryError(), {REPORT}),
    "preview": ("write_preview", OSError(28, "No space left on device"), {PREVIEW}),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_failing_extra_costs_nothing_else(name, study, model, tmp_path, monkeypatch, capsys):
    function, error, missing = FAILING[name]
    out, call = tmp_path / "out", (study, "-m", model, "-o", tmp_path / "out", *FAST)

    def fail(*args, **options):
        assert {LABELS, RECORD} <= names(out)  # first of all
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(result_folder, function, fail)
        assert livseg(*call) == 3
    printed = capsys.readouterr()
    assert names(out) == ALL - missing and "liver 4.5 ml" in printed.out
    assert printed.err.count("Traceback") == (0 if name == "preview" else 1)
    assert ("are written, but these files are not" in printed.err and min(missing) in printed.err) or name == "SEG"
    notes = json.loads((out / RECORD).read_text())["notes"]
    assert any("could not be written" in note for note in notes) and not any("Mustermann" in note for note in notes)
    assert livseg(*call) == 0 and names(out) == ALL  # tried again, although the rest was there
    assert livseg(*call) == 0 and "finished before" in capsys.readouterr().out


def test_an_interruption_while_extras_are_made_leaves_the_result(study, model, tmp_path, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(result_folder, "write_seg", stop)
    assert livseg(study, "-m", model, "-o", tmp_path / "out", *FAST) == 130
    assert names(tmp_path / "out") == {LABELS, LESIONS, LESION_TABLE, RECORD}


def test_one_call_from_python_warns(study, model, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise ValueError("no")

    monkeypatch.setattr(result_folder, "write_preview", fail)
    with pytest.warns(UserWarning, match=r"preview\.png could not be written"):
        segment(study, model, output=tmp_path / "out", quality="fast", crop=False, device="cpu")
    assert names(tmp_path / "out") == ALL - {PREVIEW}


def test_slices_that_share_an_identifier(model, tmp_path, capsys):
    slices = dicom_slices(drawing()[0], FrameOfReferenceUID="1.2.9")
    for one in slices[4:6]:
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    save_slices(slices, tmp_path / "study")
    assert livseg(tmp_path / "study", "-m", model, "-o", tmp_path / "out", *FAST) == 0
    assert names(tmp_path / "out") == ALL - {SEG, SR}
    assert "no DICOM objects were written: 2 slices share a SOPInstanceUID" in capsys.readouterr().out


def test_more_lesions_than_are_listed(study, model, tmp_path, monkeypatch, capsys):
    """The largest one by one, the others as one segment; the table file and the record hold all."""
    for module in (dicom_segments, patient_tables, result_folder):
        monkeypatch.setattr(module, "LISTED_LESIONS", 1)
    assert livseg(study, "-m", model, "-o", tmp_path / "out", *FAST) == 0
    out = tmp_path / "out"
    assert names(out) == ALL
    assert "2 lesions: the 1 largest are listed one by one" in capsys.readouterr().out
    seg = pydicom.dcmread(out / SEG)
    labels = ["Liver without tumor", "Lesion 1", "Smaller lesions (1)"]
    assert [one.SegmentLabel for one in seg.SegmentSequence] == labels
    assert seg.pixel_array.sum() == (sitk.GetArrayFromImage(sitk.ReadImage(str(out / LABELS))) > 0).sum()
    report = pydicom.dcmread(out / SR).to_json()
    assert "Smaller lesions (1)" in report and "Lesion 2" not in report
    assert "The 1 largest of 2 lesions." in (out / REPORT).read_text()
    rows = list(csv.DictReader((out / LESION_TABLE).open()))
    record = json.loads((out / RECORD).read_text())["lesions"]
    assert [float(row["volume_ml"]) for row in rows] == [one["volume_ml"] for one in record]
    assert len(rows) == 2 and rows[0]["agreement"] == ""


def test_a_mirrored_patient_is_noted(model, tmp_path, capsys):
    """A body with its liver on the left and its spine in front, by the header."""
    _, y, x = np.indices((12, 40, 48))
    hu = np.where(np.hypot((y - 20) / 18, (x - 24) / 22) < 1, -80, -1000).astype(np.int16)
    hu[np.hypot(y - 14, x - 13) < 7] = 60
    hu[np.hypot(y - 35, x - 24) < 4] = 700
    for name, values in (("right", hu), ("mirrored", hu[:, ::-1, ::-1])):
        ct = write(as_image(np.ascontiguousarray(values), spacing_mm=(2.5, 3, 3)), tmp_path / f"{name}.nii.gz")
        assert livseg(ct, "-m", model, "-o", tmp_path / name, *FAST, "--no-report") == 0
        notes = " ".join(json.loads((tmp_path / name / RECORD).read_text())["notes"])
        said = capsys.readouterr().out
        for words in ("left and right are mirrored", "front and back are mirrored"):
            assert (words in notes) == (words in said) == (name == "mirrored")
    assert sitk.ReadImage(str(tmp_path / "mirrored" / LABELS)).GetSize() == (48, 40, 12)
