"""A study as it comes from a PACS: which series it shows, how they are named, chosen and written."""

import errno
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import ct_array, dicom_slices, rotated, save_slices

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.dicom import contrast_phase, dicom_files, list_series, read_series
from nnunet_livseg.data.dicom.listing import choose
from nnunet_livseg.data.dicom.study_files import unpack


@pytest.fixture
def study(tmp_path):
    """Localizer, two contrast phases and a dose report, all in one folder."""
    folder = tmp_path / "study"
    ct = ct_array()
    save_slices(dicom_slices(ct[:1], series=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), folder)
    arterial = {"SeriesDescription": "Abd late arterial 2.5", "ContrastBolusAgent": "X", "AcquisitionTime": "101500"}
    save_slices(dicom_slices(ct, series=4, **arterial), folder)
    venous = {"SeriesDescription": "Abd 2.5", "ContrastBolusAgent": "X", "AcquisitionTime": "101535.5"}
    save_slices(dicom_slices(ct + 30, series=5, ContrastBolusStartTime="101425", **venous), folder)
    report = dicom_slices(ct[:1], series=9, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22")
    for keyword in ("PixelData", "Rows", "Columns", "ImagePositionPatient"):
        delattr(report[0], keyword)
    save_slices(report, folder)
    (folder / "DICOMDIR").write_bytes(b"x")
    return folder


def test_list_tells_what_every_series_is(study, livseg):
    status, printed = livseg("dicom", "list", study)
    assert status == 0
    lines = printed.splitlines()
    assert [" ".join(line.split()[:3]) for line in lines[1:]] == ["1 CT 1", "4 CT 12", "5 CT 12", "9 SR 1"]
    assert "[not usable: localizer (scout view)]" in lines[1] and "[not usable: modality SR, not CT]" in lines[4]
    assert "2.5 x 0.8 x 0.7" in lines[2] and " arterial " in lines[2] and " portal venous " in lines[3]
    assert "Secret" not in printed  # the patient


def test_list_as_json(study, livseg):
    listed = json.loads(livseg("dicom", "list", study, "--json")[1])
    assert [one["phase"] for one in listed] == ["", "arterial", "portal venous", ""]
    assert listed[2]["phase_reason"] == "70 s after the injection began"
    assert listed[1]["spacing_mm"] == pytest.approx([2.5, 0.8, 0.7])


def test_chosen_series_is_written_with_a_record(study, tmp_path, livseg):
    status, _ = livseg("dicom", "convert", study, "--series", 5, "-o", tmp_path / "pv.nii.gz")
    assert status == 0
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "pv.nii.gz"))), ct_array() + 30)
    text = (tmp_path / "pv.json").read_text()
    assert json.loads(text)["phase"] == "portal venous"
    assert "1.2.826" not in text and "Secret" not in text  # identifiers only on request
    livseg("dicom", "convert", study, "--series", 5, "-o", tmp_path / "pv.nii.gz", "--identifiers")
    record = json.loads((tmp_path / "pv.json").read_text())
    assert record["series_uid"] == "1.2.826.0.1.5" and len(record["instances"]) == 12


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("PixelSpacing", ([0.703149, 0.7], [0.70315, 0.7])),  # at 4 decimals 0.7031 and 0.7032
        (
            "ImageOrientationPatient",
            tuple([c, s, 0, -s, c, 0] for c, s in ((0.9923448, 0.123499), (0.9923446, 0.123501))),
        ),
    ],
)
def test_jitter_about_a_rounding_edge_does_not_part_a_series(tmp_path, keyword, values):
    """Every second slice of 12 missing, in two series that both look whole."""
    slices = dicom_slices(ct_array())
    for z, one in enumerate(slices):
        setattr(one, keyword, values[z % 2])
    save_slices(slices, tmp_path / "study")
    image, info = read_series(tmp_path / "study")
    assert info.key == "3"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), ct_array())


@pytest.mark.parametrize("other", [{"spacing_mm": (2.5, 0.8, 0.702)}, {"direction": rotated((0, 0, 0.3))}, {"crop": 4}])
def test_different_stacks_of_one_series_are_listed_apart(tmp_path, other):
    """Two reconstructions stacked into one volume with the voxel size of the first."""
    ct, crop = ct_array(), other.get("crop", 0)
    geometry = {key: value for key, value in other.items() if key != "crop"}
    save_slices(dicom_slices(ct), tmp_path / "study" / "a")
    save_slices(dicom_slices(ct[:, crop:] + 40, **geometry), tmp_path / "study" / "b")
    for key, expected in (("3a", ct), ("3b", ct[:, crop:] + 40)):
        image, _ = read_series(tmp_path / "study", key)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)


def test_zip_reads_as_its_folder(study, tmp_path):
    """Also in subfolders, with the rubbish that macOS adds."""
    (study / "__MACOSX").mkdir()
    (study / "__MACOSX/._I004000").write_bytes(b"junk")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "study")
    packed, info = read_series(tmp_path / "packed.zip", "4")
    image, _ = read_series(study, "1.2.826.0.1.4")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(packed), sitk.GetArrayFromImage(image))
    assert not info.files[0].exists()  # and the unpacked copy is gone


def test_a_time_of_day_in_a_name_leaves_no_folder(tmp_path):
    """A colon is dangerous behind a Windows drive alone."""
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("CT 12:30:45/I001", b"x")
    unpack(tmp_path / "study.zip", tmp_path / "out")
    assert (tmp_path / "out/CT 12:30:45/I001").read_bytes() == b"x"
    with zipfile.ZipFile(tmp_path / "drive.zip", "w") as archive:
        archive.writestr("C:evil.dcm", b"x")
    with pytest.raises(UserError, match=r"'C:evil\.dcm', which would be written outside"):
        unpack(tmp_path / "drive.zip", tmp_path / "out")


def test_masks_that_compress_extremely_are_no_bomb(tmp_path):
    """MASKS_DICOM.zip of 3D-IRCADb-01 is almost all zeros: 200 MiB of 0.6 MiB."""
    with zipfile.ZipFile(tmp_path / "masks.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("liver/image_0", bytes(120 * 2**20))
    unpack(tmp_path / "masks.zip", tmp_path / "out")
    assert (tmp_path / "out/liver/image_0").stat().st_size == 120 * 2**20


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_trouble_with_the_disk_is_not_blamed_on_the_zip(tmp_path, monkeypatch, number):
    """The command line tells these by their number and says what to do."""
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("a", b"x")

    def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shutil, "copyfileobj", fails)
    with pytest.raises(OSError) as raised:
        unpack(tmp_path / "study.zip", tmp_path / "out")
    assert raised.value.errno == number


def test_files_without_preamble_are_read(tmp_path):
    """Exports of the 1990s lack the 128 bytes and `DICM`."""
    from pydicom import dcmwrite
    from pydicom.uid import ImplicitVRLittleEndian

    (tmp_path / "old").mkdir()
    for z, one in enumerate(dicom_slices(ct_array())):
        del one.file_meta
        dcmwrite(tmp_path / f"old/{z}", one, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert ImplicitVRLittleEndian.encode() not in (tmp_path / "old/0").read_bytes()
    image, _ = read_series(tmp_path / "old")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), ct_array())


@pytest.mark.parametrize(
    ("description", "phase"),
    [
        ("Leber nativ 3.0", "native"),
        ("Abdomen w/o contrast", "native"),
        ("CT ABD ART PHASE", "arterial"),
        ("late arterial", "arterial"),
        ("HAP 1.25mm", "arterial"),
        ("Portal venous 5.0 B30f", "portal venous"),
        ("ABD_PV_2.5", "portal venous"),
        ("Oberbauch portalvenös", "portal venous"),
        ("Abdomen venoso", "portal venous"),
        ("Delayed 5 min", "delayed"),
        ("late phase", "delayed"),
        ("Recon 3: LIVER 2 PHASE (C/A/P)", ""),
        ("Part 1 heart", ""),
        ("arterial + venous", ""),
    ],
)
def test_phase_from_description(description, phase):
    """`part` and `heart` are not arterial; two phases in one description decide nothing."""
    assert contrast_phase.from_description(description)[0] == phase


def test_phase_from_timing():
    assert contrast_phase.from_injection(30)[0] == "arterial"
    assert contrast_phase.from_injection(70)[0] == "portal venous"
    assert contrast_phase.from_injection(240)[0] == "delayed"
    assert contrast_phase.from_injection(None) == contrast_phase.from_injection(50) == ("", "")
    order = contrast_phase.from_order([36_035.0, None, 36_000.0, 36_180.0])
    assert [phase for phase, _ in order] == ["portal venous", "", "arterial", "delayed"]
    assert contrast_phase.from_order([36_000.0, 36_600.0]) == [("", "")] * 2  # ten minutes apart: no bolus timing
    assert contrast_phase.seconds("101530.5") == contrast_phase.seconds("20200101101530.5") == 36_930.5
    assert contrast_phase.seconds("1015") is None


def test_choose_names_what_there_is(study):
    with dicom_files(study) as files:
        series = list_series(files)
    assert choose(series, "4").description == choose(series, 4).description == "Abd late arterial 2.5"
    with pytest.raises(UserError, match=r"there is no series '7'\. There are:(.|\n)*late arterial"):
        choose(series, "7")
    with pytest.raises(UserError, match="series 1 cannot be read as a CT volume: localizer"):
        read_series(study, "1")


def test_without_pydicom_the_message_says_what_to_install(study, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"pip install 'nnunet-livseg\[dicom\]'"):
        read_series(study)


@pytest.mark.parametrize("share", [0, 0.2])
def test_damaged_files_are_counted_and_named(tmp_path, livseg, share):
    """Cut in the header, or empty: the series ends earlier, and nothing else tells."""
    slices = dicom_slices(ct_array())
    save_slices(slices[:-2], tmp_path / "study")
    slice_suffix = next((tmp_path / "study").iterdir()).suffix
    (tmp_path / "study" / "notes.txt").write_text("not DICOM")
    for name in ("empty.txt", ".hidden"):
        (tmp_path / "study" / name).touch()
    for number, one in enumerate(slices[-2:]):
        path = tmp_path / "study" / f"last{number}{slice_suffix}"
        one.save_as(path, enforce_file_format=True)
        path.write_bytes(path.read_bytes()[: int(share * 1000)])
    _, printed = livseg("dicom", "list", tmp_path / "study")
    assert "2 DICOM files are damaged and may be slices that are missing above: " in printed
    status, printed = livseg("dicom", "convert", tmp_path / "study", "-o", tmp_path / "out.nii.gz")
    assert status == 0 and "2 DICOM files are damaged; slices may be missing at the ends" in printed
