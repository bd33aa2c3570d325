"""Patient data leave the input only on request; inputs that no SEG can refer to are refused by name."""

import sys
import warnings
import zipfile

import numpy as np
import pydicom
import pytest
from dicom_samples import (
    FRAME_OF_REFERENCE,
    IDENTITY,
    NOT_OURS,
    array,
    blobs,
    both_files,
    labels_of,
    rebuilt,
    result,
    series,
)
from io_samples import SPACING_MM, ct_array, dicom_slices, enhanced, save_slices

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.dicom import dicom_files, read_series
from nnunet_livseg.report.dicom_seg import write_seg


def identified(folder):
    image, info = series(folder, **IDENTITY, **NOT_OURS)
    return result(image, info, blobs(ct_array().shape))


def test_nothing_of_the_patient_is_written_unasked(tmp_path):
    """Any value of the source, whatever its tag and however deep: the bytes of the files are searched."""
    made = identified(tmp_path / "study")
    source = made.series.files[0].read_bytes()
    for path in both_files(made, tmp_path):
        content = path.read_bytes()
        for keyword, value in {**IDENTITY, **NOT_OURS}.items():
            if len(value) > 1:  # the sex's one letter is everywhere
                assert value.encode() in source, keyword
                assert value.encode() not in content, f"{keyword} in {path.name}"
        written = pydicom.dcmread(path)
        assert not written.PatientID and not written.PatientName and not written.PatientSex
        assert written.PatientIdentityRemoved == "YES"
        assert written.StudyInstanceUID == made.series.study_uid


def test_patient_and_study_are_copied_on_request(tmp_path):
    made = identified(tmp_path / "study")
    for path in both_files(made, tmp_path, identifiers=True):
        content, written = path.read_bytes(), pydicom.dcmread(path)
        for keyword, value in IDENTITY.items():
            assert str(written[keyword].value) == value, keyword
        for keyword, value in NOT_OURS.items():
            assert value.encode() not in content, f"{keyword} in {path.name}"
        assert "PatientIdentityRemoved" not in written


def test_names_in_other_alphabets_survive(tmp_path):
    name = "Ерёмин^Пётр"
    image, info = series(tmp_path / "study", SpecificCharacterSet="ISO_IR 144", PatientName=name)
    made = result(image, info, blobs(ct_array().shape))
    for path in both_files(made, tmp_path, identifiers=True):
        assert str(pydicom.dcmread(path).PatientName) == name


def test_identity_that_breaks_the_standard_is_copied_as_it_is(tmp_path):
    """Sex 'W' and dates with dots stop highdicom; a PACS still files the patient under them."""
    with pydicom.config.disable_value_validation():
        image, info = series(tmp_path / "study", PatientSex="W", PatientBirthDate="07.02.1931", StudyDate="2019-03-04")
    made = result(image, info, blobs(ct_array().shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's about the dates
        for path in both_files(made, tmp_path, identifiers=True):
            assert pydicom.dcmread(path).PatientSex == "W" and b"07.02.1931" in path.read_bytes()


def test_files_of_a_zip_must_be_open(tmp_path):
    image, info = series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in (tmp_path / "study").iterdir():
            archive.write(path, path.name)
    image, info = read_series(tmp_path / "study.zip")
    made = result(image, info, labels)
    with pytest.raises(UserError, match=r"(?s)12 files of the series are gone.* write the SEG inside `dicom_files`"):
        write_seg(made, tmp_path / "seg.dcm")
    assert not list(tmp_path.glob("*seg*"))
    with dicom_files(tmp_path / "study.zip") as files:
        write_seg(made, tmp_path / "seg.dcm", files=files)
    np.testing.assert_array_equal(labels_of(rebuilt(pydicom.dcmread(tmp_path / "seg.dcm"), info, labels.shape)), labels)
    with pytest.raises(UserError, match="1 of 12 source slices are not among the files given"):
        write_seg(made, tmp_path / "seg.dcm", files=sorted((tmp_path / "study").iterdir())[:11])


def test_resampled_series_are_refused_by_name(tmp_path):
    image, info = series(tmp_path / "study", drift=(0.0, 0.8))
    made = result(image, info, np.ones(array(image).shape, np.uint8))
    with pytest.raises(UserError, match=r"interpolated while reading.* \(gantry tilt of 17\.7 degrees"):
        write_seg(made, tmp_path / "seg.dcm")


def test_other_inputs_are_refused(tmp_path):
    image, info = series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    with pytest.raises(UserError, match="the input was not DICOM"):
        write_seg(result(image, None, labels), tmp_path / "seg.dcm")
    slices = dicom_slices(ct_array())
    save_slices(slices, tmp_path / "bare")
    image, info = read_series(tmp_path / "bare")
    with pytest.raises(UserError, match="12 of 12 source slices have no FrameOfReferenceUID"):
        write_seg(result(image, info, labels), tmp_path / "seg.dcm")
    for one in slices:
        one.FrameOfReferenceUID = f"1.2.3.{one.InstanceNumber}"
    save_slices(slices, tmp_path / "torn")
    image, info = read_series(tmp_path / "torn")
    with pytest.raises(UserError, match="12 different FrameOfReferenceUIDs"):
        write_seg(result(image, info, labels), tmp_path / "seg.dcm")


def test_a_series_over_several_multiframe_files_is_refused(tmp_path):
    ct = ct_array()
    (tmp_path / "study").mkdir()
    for part in range(2):
        half = enhanced(ct[6 * part : 6 * part + 6])
        half.SOPInstanceUID = half.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3.{part}"
        half.FrameOfReferenceUID = FRAME_OF_REFERENCE
        for place in half.PerFrameFunctionalGroupsSequence:
            place.PlanePositionSequence[0].ImagePositionPatient[2] += 6 * part * SPACING_MM[0]
        half.save_as(tmp_path / f"study/{part}", enforce_file_format=True)
    image, info = read_series(tmp_path / "study")
    np.testing.assert_array_equal(array(image), ct)
    with pytest.raises(UserError, match="spread over several multi-frame files"):
        write_seg(result(image, info, blobs(ct.shape)), tmp_path / "seg.dcm")


def test_missing_highdicom_names_the_command(tmp_path, monkeypatch):
    image, info = series(tmp_path / "study")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UserError, match=r"need highdicom: pip install 'nnunet-livseg\[dicom\]'"):
        write_seg(result(image, info, blobs(ct_array().shape)), tmp_path / "seg.dcm")
