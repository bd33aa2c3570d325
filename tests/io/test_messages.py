"""Messages that the list of malformed inputs does not bring out: wrong options, odd sources, unlikely files."""

import gzip
import json
import shutil

import nibabel
import numpy as np
import pytest
from io_samples import as_image, ct_array, dicom_slices, label_array, save_slices, write

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.convert import ircadb, msd, phase_table, plain_folder
from nnunet_livseg.data.dicom import read_series, study_files
from nnunet_livseg.data.dicom.geometry import stack
from nnunet_livseg.data.dicom.headers import read_slices
from nnunet_livseg.imaging.images import read_volume


@pytest.fixture
def own(tmp_path):
    """Two sound cases as folders and as a table."""
    for name in ("a", "b"):
        write(ct_array(), tmp_path / f"own/images/{name}.nii.gz")
        write(label_array(), tmp_path / f"own/labels/{name}.nii.gz")
    rows = ["image,label", *(f"images/{n}.nii.gz,labels/{n}.nii.gz" for n in "ab")]
    (tmp_path / "own/cases.csv").write_text("\n".join(rows))
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--id", 0), "dataset numbers begin at 1"),
        (("--id", 3, "--name", "My__Set"), "use letters, digits, - and single _ only"),
        (("--id", 3, "--map", "3"), "write pairs such as"),
        (("--id", 3, "--map", "3=7"), "7 is not a label of the dataset"),
        (("--id", 3, "--exclude", "c"), "--exclude c: there is no such case. Cases are named like a, b"),
        (("--id", 3, "--cv-folds", 3), "there are only 2 patients"),
    ],
)
def test_options_of_convert(own, tmp_path, livseg, options, message):
    status, printed = livseg("convert", "folder", own, "--cv-folds", 2, "--out", tmp_path / "raw", *options)
    assert status == 1 and message in printed
    assert not (tmp_path / "raw").exists()


def test_without_nnunet_raw_the_variable_is_named(own, livseg, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    status, printed = livseg("convert", "folder", own, "--id", 3, "--cv-folds", 2)
    assert status == 1 and "nnUNet_raw is not set" in printed


def test_a_damaged_record_is_named(own, tmp_path, livseg):
    command = ("convert", "folder", own / "cases.csv", "--id", 3, "--cv-folds", 2, "--out", tmp_path / "raw")
    assert livseg(*command)[0] == 0
    (tmp_path / "raw/Dataset003_Liver/conversion.json").write_text("{")
    status, printed = livseg(*command)
    assert status == 1 and "conversion.json is damaged" in printed and "Delete it" in printed


def test_file_systems_without_links_are_told_to_copy(own, tmp_path, livseg, monkeypatch):
    from pathlib import Path

    def refuse(self, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    command = ("convert", "folder", own, "--id", 3, "--cv-folds", 2, "--out", tmp_path / "raw", "--workers", 1)
    assert "does not support symbolic links" in livseg(*command)[1]
    assert livseg(*command, "--copy")[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label,age\n", r"unknown columns \['age'\]"),
        ("image,label\n", "has no rows below its header"),
        ("image,label,part\nimages/a.nii.gz,labels/a.nii.gz,val\n", "part is 'val', but must be train or test"),
        ("image,label,part\nimages/a.nii.gz,,train\n", "a training case needs a label"),
        ("image,label\n,labels/a.nii.gz\n", "line 2: no image is given"),
    ],
)
def test_tables_of_cases(own, text, message):
    (own / "cases.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        plain_folder.find(own / "cases.csv")


def test_a_table_saved_by_a_spreadsheet_in_another_encoding(own):
    (own / "cases.csv").write_bytes("image,label\nLäber.nii.gz,a\n".encode("latin-1"))
    with pytest.raises(UserError, match="Save it as CSV UTF-8"):
        plain_folder.find(own / "cases.csv")


def test_plain_folders(own):
    shutil.copy(own / "images/a.nii.gz", own / "images/a_0000.nii.gz")
    with pytest.raises(UserError, match="would become the same case"):
        plain_folder.find(own)
    (own / "images/a_0000.nii.gz").rename(own / "images/c.nii.gz")
    with pytest.raises(UserError, match=r"c\.nii\.gz has no label of the same name(.|\n)*1 of 3 images"):
        plain_folder.find(own)
    (own / "images/c.nii.gz").rename(own / "labels/c.nii.gz")
    with pytest.raises(UserError, match=r"c\.nii\.gz has no image of the same name"):
        plain_folder.find(own)
    shutil.rmtree(own / "labels")
    with pytest.raises(UserError, match=r"no folders 'images' and 'labels' \(found: cases\.csv, images\)"):
        plain_folder.find(own)


def test_msd_sources(tmp_path):
    with pytest.raises(UserError, match=r"contains no dataset.json. Give the unpacked folder Task03_Liver"):
        msd.find(tmp_path)
    listed = {"training": [{"image": "i.nii.gz", "label": "l.nii.gz"}], "labels": {"0": "background", "1": "liver"}}
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    with pytest.raises(UserError, match=r"lists i\.nii\.gz, but .* does not exist"):
        msd.find(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({**listed, "modality": {"0": "MRI"}}))
    with pytest.raises(UserError, match="says the modality is 'MRI', not CT"):
        msd.find(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"liver": 1}}))
    with pytest.raises(UserError, match=r"has no 'training', so it is not a Decathlon dataset.json"):
        msd.find(tmp_path)


def test_ircadb_sources(tmp_path):
    with pytest.raises(UserError, match=r"contains no folders or zips named 3Dircadb1\.1"):
        ircadb.find(tmp_path)
    patient = tmp_path / "3Dircadb1.1"
    (patient / "PATIENT_DICOM").mkdir(parents=True)
    with pytest.raises(UserError, match=r"contains neither MASKS_DICOM nor MASKS_DICOM\.zip"):
        ircadb.PatientMasks(patient).read()
    (patient / "MASKS_DICOM/liver").mkdir(parents=True)
    with pytest.raises(UserError, match="mask folder liver contains no DICOM images"):
        ircadb.PatientMasks(patient).read()
    slices = dicom_slices((label_array() > 0) * 255, intercept=0)
    save_slices(slices[:4] + slices[6:], patient / "MASKS_DICOM/liver")
    with pytest.raises(UserError, match="mask liver: 2 slices are missing"):
        ircadb.PatientMasks(patient).read()
    shutil.rmtree(patient / "MASKS_DICOM")
    save_slices(slices, patient / "MASKS_DICOM/liver")
    save_slices(slices[:5], patient / "MASKS_DICOM/livertumor")
    with pytest.raises(UserError, match=r"mask livertumor has shape \(5, 40, 48\), but the liver has \(12, 40, 48\)"):
        ircadb.PatientMasks(patient).read()
    shutil.copytree(patient, tmp_path / "zipped")
    (tmp_path / "3Dircadb1.1.zip").write_bytes(b"")
    with pytest.raises(UserError, match="patient 1 is there twice"):
        ircadb.find(tmp_path)


def test_volumes_that_are_no_volumes(tmp_path):
    (tmp_path / "a.nrrd").write_text("NRRD0004\nnonsense")
    with pytest.raises(UserError, match=r"a\.nrrd cannot be read as a volume(.|\n)*The reader said"):
        read_volume(tmp_path / "a.nrrd")
    with pytest.raises(UserError, match=r"files ending in '\.mat' are not read"):
        (tmp_path / "a.mat").write_text("x")
        read_volume(tmp_path / "a.mat")
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nowhere.nii")
    with pytest.raises(UserError, match="the file behind this link is gone"):
        read_volume(tmp_path / "gone.nii")


def test_a_singular_affine_is_refused(tmp_path):
    broken = nibabel.Nifti1Image(ct_array().T, None)
    broken.header.set_sform(np.diag([0.7, 0.8, 0, 1]), 1)
    nibabel.save(broken, tmp_path / "a.nii.gz")
    raw = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    raw[80:92] = np.array([0.7, 0.8, -2.5], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(UserError, match="the header's affine is singular"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ImagePositionPatient": [0, 0, 0]}, "all slices lie at the same position"),
        ({"PixelSpacing": [0, 0.7]}, "PixelSpacing is not positive"),
    ],
)
def test_stacks_without_a_geometry(tmp_path, change, message):
    slices = dicom_slices(ct_array(), **change)
    save_slices(slices, tmp_path)
    with pytest.raises(UserError, match=message):
        stack([one for path in tmp_path.iterdir() for one in read_slices(path)])
    with pytest.raises(UserError, match=f"no series here can be read(.|\n)*{message}"):
        read_series(tmp_path)


def test_slices_of_two_planes_are_no_stack(tmp_path):
    axial, coronal = dicom_slices(ct_array()), dicom_slices(ct_array())
    for one in coronal:
        one.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    save_slices(axial[:6], tmp_path / "a")
    save_slices(coronal[6:], tmp_path / "b")
    with pytest.raises(UserError, match="the slices lie in different planes"):
        stack([one for path in tmp_path.rglob("I*") for one in read_slices(path)])


def test_several_frames_in_a_plain_ct_file(tmp_path):
    """Not allowed by DICOM for this class: which frame lies where is not stated."""
    slices = dicom_slices(ct_array())
    for one in slices:
        one.NumberOfFrames, one.PixelData = 2, one.PixelData * 2
    save_slices(slices, tmp_path)
    with pytest.raises(UserError, match=r"contains pixels of shape \(2, 40, 48\), but a CT slice is one gray picture"):
        read_series(tmp_path)


def test_a_zip_that_does_not_fit_on_the_disk(tmp_path, monkeypatch):
    save_slices(dicom_slices(ct_array()), tmp_path / "study")
    shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "study")
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(study_files.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="set TMPDIR to a larger disk"):
        read_series(tmp_path / "study.zip")


@pytest.mark.parametrize(
    ("text", "primary", "message"),
    [
        ("case,a,b\n", None, "has no rows below its header"),
        ("case,a,b\nx,a.nii,a.nii\nx,a.nii,a.nii\n", None, "case x is there twice"),
        ("case,a,b\nx,a.nii,a.nii\n", "c", "--primary c: there is no such phase in .*; it has a, b"),
        ("case,a,b\nx,a.nii,c.nii\n", None, r"line 2: .*c\.nii does not exist"),
    ],
)
def test_tables_of_phases(tmp_path, text, primary, message):
    write(ct_array(), tmp_path / "a.nii")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        phase_table.find(tmp_path / "t.csv", primary)


def test_options_of_align(tmp_path, livseg):
    a, b = (write(ct_array(), tmp_path / f"{name}.nii") for name in "ab")
    (tmp_path / "t.csv").write_text("case,a,b\nx,a.nii,b.nii\n")
    for command, message in (
        ((a, b), "give the folder for the aligned case with -o"),
        ((tmp_path / "t.csv",), "give its number with --id"),
        ((tmp_path / "none.csv", "--id", 4), "does not exist"),
        ((a, b, "-o", tmp_path / "out", "--labels", a), "--labels: 1 files for 2 phases; give one for each"),
        ((a, b, "-o", tmp_path / "out", "--method", "tumor-center"), "needs the reference labels of both phases"),
    ):
        status, printed = livseg("align", *command)
        assert status == 1 and message in printed
        assert not (tmp_path / "out").exists()


def test_tumor_center_of_a_table_needs_both_labels(tmp_path, livseg):
    for name in ("a", "b"):
        write(ct_array(), tmp_path / f"{name}.nii")
    write(as_image(label_array()), tmp_path / "l.nii")
    rows = [f"{case},a.nii,b.nii,l.nii" for case in ("x", "y")]
    (tmp_path / "t.csv").write_text("\n".join(["case,a,b,label", *rows]))
    command = ("align", tmp_path / "t.csv", "--id", 4, "--raw", tmp_path, "--cv-folds", 2, "--method", "tumor-center")
    assert "tumor-center alignment needs the labels of both phases" in livseg(*command)[1]
    (tmp_path / "t.csv").write_text("\n".join(["case,a,b,label,label_b", *(f"{row},l.nii" for row in rows)]))
    status, printed = livseg(*command)
    assert status == 0 and "tumor-center (uses reference labels)" in printed
    record = json.loads((tmp_path / "Dataset004_LiverPhases/conversion.json").read_text())["cases"][0]
    assert record["phase_1"]["uses_ground_truth"] and "in the reference labels" in record["notes"][0]


def test_output_names(tmp_path, livseg):
    save_slices(dicom_slices(ct_array()), tmp_path / "study")
    (tmp_path / "out.nii.gz").mkdir()
    status, printed = livseg("dicom", "convert", tmp_path / "study", "-o", tmp_path / "out.nii.gz")
    assert status == 1 and "is a folder; name the file to write" in printed
