"""Series in, volume out: against the truth they were written from, and against SimpleITK's own series reader."""

import tarfile

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import SPACING_MM, compress_files, ct_array, dicom_slices, rotated, save_slices

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.dicom import dicom_files, list_series, read_series
from nnunet_livseg.inference.ct_input import read_ct


def array(image):
    return sitk.GetArrayFromImage(image)


def itk_series(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize("direction", [np.eye(3), rotated(), np.diag([-1, 1, -1]), np.diag([-1.0, -1, 1])])
@pytest.mark.parametrize("signed", [False, True])
def test_shuffled_series_is_the_ct_it_was_written_from(tmp_path, direction, signed):
    """Files sorted by name or InstanceNumber, or oblique axes dropped."""
    ct = ct_array()
    slices = dicom_slices(ct, direction=direction, signed=signed)
    for one in slices:
        one.InstanceNumber = 100 - one.InstanceNumber  # numbered from the top, as many scanners do
    save_slices(slices, tmp_path / "study")
    image, info = read_series(tmp_path / "study")
    np.testing.assert_array_equal(array(image), ct)
    np.testing.assert_allclose(image.GetSpacing(), SPACING_MM[::-1], rtol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), direction.ravel(), atol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), (-17, -23, -110), atol=1e-4)
    assert [uid for uid, _ in info.instances] == [one.SOPInstanceUID for one in slices]
    expected = itk_series(tmp_path / "study")
    np.testing.assert_array_equal(array(image), array(expected))
    np.testing.assert_allclose(image.GetOrigin(), expected.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(image.GetDirection(), expected.GetDirection(), atol=1e-6)


@pytest.mark.parametrize(
    ("archive", "folder"),
    [("hcc048_portal_venous", "hcc048_pv/dicom"), ("dcmqi_ct3slice", "dcmqi_ct3slice/ct-3slice")],
)
def test_real_series_equal_simpleitk_voxel_for_voxel(real_data, tmp_path, archive, folder):
    with tarfile.open(real_data / "dicom" / f"{archive}.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    expected = itk_series(tmp_path / folder)
    image, info = read_series(tmp_path / folder, padding_hu=None)
    np.testing.assert_array_equal(array(image), array(expected))
    np.testing.assert_allclose(image.GetOrigin(), expected.GetOrigin())
    np.testing.assert_allclose(image.GetSpacing(), expected.GetSpacing())
    assert image.GetDirection() == expected.GetDirection()
    padded, info = read_series(tmp_path / folder)
    np.testing.assert_array_equal(array(padded), np.maximum(array(expected), -1024))
    assert "voxels of padding set to -1024 HU" in " ".join(info.notes)


def test_slope_and_intercept_of_each_slice_are_applied(tmp_path):
    """One slope for all slices; integers where fractions are needed."""
    ct = ct_array((4, 40, 48))
    slices = [dicom_slices(ct, slope=0.5 if z % 2 else 1, intercept=-1024 - z)[z] for z in range(4)]
    save_slices(slices, tmp_path / "study")
    image, _ = read_series(tmp_path / "study")
    assert image.GetPixelID() == sitk.sitkFloat32
    np.testing.assert_allclose(array(image), ct, atol=0.26)


@pytest.mark.parametrize(
    ("empty", "given", "notes"),
    [
        (["RescaleSlope"], None, ("no RescaleSlope in the header; taken as 1",)),
        (["RescaleIntercept"], -1024, ("RescaleIntercept -1024 as given",)),
        (
            ["RescaleSlope", "RescaleIntercept"],
            -1024.0,
            ("no RescaleSlope in the header; taken as 1", "RescaleIntercept -1024 as given"),
        ),
    ],
)
def test_notes_say_what_was_taken_for_an_empty_tag(tmp_path, empty, given, notes):
    """`Stored values taken as they are` though the intercept was applied."""
    save_slices(dicom_slices(ct_array(), **dict.fromkeys(empty, "")), tmp_path / "study")
    image, info = read_series(tmp_path / "study", intercept=given)
    np.testing.assert_array_equal(array(image), ct_array())
    assert info.notes == notes


def test_without_a_rescale_intercept_stored_values_are_taken(tmp_path):
    save_slices(dicom_slices(ct_array(), intercept=0, signed=True, RescaleIntercept=""), tmp_path / "study")
    image, info = read_series(tmp_path / "study")
    np.testing.assert_array_equal(array(image), ct_array())
    assert info.notes == ("no RescaleIntercept in the header; taken as 0",)


@pytest.mark.parametrize("tag", [-2000, 63536])
def test_padding_becomes_air(tmp_path, tag):
    """Padding read as HU -3024; PixelPaddingValue written unsigned for signed pixels."""
    ct = ct_array()
    padded = ct.copy()
    padded[:, :3] = -3024
    slices = dicom_slices(padded, signed=True)
    for one in slices:
        one.add_new(0x00280120, "SS" if tag < 0 else "US", tag)
    save_slices(slices, tmp_path / "study")
    image, info = read_series(tmp_path / "study")
    ct[:, :3] = -1024
    np.testing.assert_array_equal(array(image), ct)
    assert info.notes == (f"{12 * 3 * 48:,} voxels of padding set to -1024 HU",)


def test_padding_inside_the_hounsfield_scale_is_found_by_its_tag(tmp_path):
    """Padding equal to +976 HU would be a bright frame; only the tag gives it away."""
    ct = ct_array()
    ct[:, :3] = 976
    save_slices(dicom_slices(ct, PixelPaddingValue=1990, PixelPaddingRangeLimit=2005), tmp_path / "study")
    image, _ = read_series(tmp_path / "study")
    assert (array(image)[:, :3] == -1024).all()
    np.testing.assert_array_equal(array(image)[:, 3:], ct[:, 3:])


def test_tissue_with_the_value_of_padding_stays(tmp_path):
    """Rescaled copies keep a tag that then means soft tissue: the liver would get holes of air."""
    ct = ct_array()
    ct[:, :3] = ct[:, 20:24, 20:24] = 100
    save_slices(dicom_slices(ct, PixelPaddingValue=1124), tmp_path / "study")
    image, _ = read_series(tmp_path / "study")
    ct[:, :3] = -1024
    np.testing.assert_array_equal(array(image), ct)


def test_missing_slice_is_refused_and_filled_on_request(tmp_path):
    """A gap closed silently shifts everything above it."""
    ct = ct_array()
    slices = dicom_slices(ct)
    del slices[5]
    save_slices(slices, tmp_path / "study")
    with pytest.raises(UserError, match=r"1 slice is missing, at 12\.5 mm above the lowest"):
        read_series(tmp_path / "study")
    image, info = read_series(tmp_path / "study", interpolate=True)
    result = array(image)
    present = [z for z in range(12) if z != 5]
    np.testing.assert_array_equal(result[present], ct[present])
    np.testing.assert_array_equal(result[5], np.rint((ct[4].astype(float) + ct[6]) / 2))
    assert info.resampled and not info.instances


def test_uneven_slice_distances_are_refused_and_evened_on_request(tmp_path):
    """5 mm slices through the liver, 2.5 mm elsewhere: the mean distance fits neither."""
    heights = np.array([0, 2.5, 5, 7.5, 10, 13, 16, 19, 22])
    ramp = np.broadcast_to((heights * 10 - 100)[:, None, None], (9, 20, 24)).astype(np.int16)
    slices = dicom_slices(ramp)
    for one, height in zip(slices, heights, strict=True):
        one.ImagePositionPatient = [-17, -23, -110 + height]
    save_slices(slices, tmp_path / "study")
    with pytest.raises(UserError, match=r"slice distances are uneven \(2\.50 to 3\.00 mm\)"):
        read_series(tmp_path / "study")
    image, _ = read_series(tmp_path / "study", interpolate=True)
    result = array(image)
    step = image.GetSpacing()[2]
    np.testing.assert_allclose(result[:-1, 0, 0], np.arange(len(result) - 1) * step * 10 - 100, atol=1)


def test_positions_rounded_by_the_scanner_are_even(tmp_path):
    """0.75 mm written with one decimal alternates between 0.7 and 0.8 mm."""
    slices = dicom_slices(ct_array(), spacing_mm=(0.75, 0.8, 0.7))
    for z, one in enumerate(slices):
        one.ImagePositionPatient = [-17, -23, round(0.75 * z, 1)]
    save_slices(slices, tmp_path / "study")
    image, info = read_series(tmp_path / "study")
    assert image.GetSpacing()[2] == pytest.approx(0.75, abs=0.01)
    assert not info.resampled


def test_gantry_tilt_is_straightened(tmp_path):
    """Tilted slices stacked at right angles shear the patient: a straight rod along z would lean."""
    z, y, x = np.indices((20, 60, 48))
    drift_mm = 2.5 * np.tan(np.radians(15))
    distance_mm = np.hypot(y * 0.8 + drift_mm * z - 30, x * 0.7 - 16)  # upright in the patient, leaning in the slices
    ct = (-100 + 300 * np.exp(-((distance_mm / 4) ** 2))).astype(np.int16)
    save_slices(dicom_slices(ct, drift=(0, drift_mm), GantryDetectorTilt=15), tmp_path / "study")
    image, info = read_series(tmp_path / "study")
    assert "gantry tilt of 15.0 degrees" in info.notes[0] and info.resampled
    for z, plane in enumerate(array(image)):
        places, weights = np.argwhere(plane > 0)[:, ::-1], plane[plane > 0]
        center = np.average(places, axis=0, weights=weights).tolist()
        x_mm, y_mm, z_mm = image.TransformContinuousIndexToPhysicalPoint((*center, float(z)))
        assert (x_mm, y_mm) == pytest.approx((-17 + 16, -23 + 30), abs=0.05)
        assert z_mm == pytest.approx(-110 + 2.5 * z)
    assert (array(image)[0] == -1024).any()  # outside every slice there is air, not tissue


def test_tilted_oblique_series_keeps_positions(tmp_path):
    """The shear applied along the patient's axes instead of the slices'."""
    z, y, x = np.indices((12, 40, 48))
    ct = np.where(np.hypot(y - 20 + z, x - 20) < 6, 200, -100).astype(np.int16)
    save_slices(dicom_slices(ct, drift=(0.0, 0.8), direction=rotated()), tmp_path / "study")
    image, _ = read_series(tmp_path / "study")
    inside = array(image) > 50
    expected_mm = rotated() @ np.array([20 * 0.7, 20 * 0.8, 11 * 2.5 / 2]) + (-17, -23, -110)
    center = np.argwhere(inside).mean(axis=0)[::-1].tolist()
    np.testing.assert_allclose(image.TransformContinuousIndexToPhysicalPoint(center), expected_mm, atol=0.2)


def test_repeated_slices_are_left_out_once_if_they_are_equal(tmp_path):
    ct = ct_array()
    slices = dicom_slices(ct)
    save_slices(slices, tmp_path / "study" / "a")
    save_slices(slices[3:5], tmp_path / "study" / "b")
    image, info = read_series(tmp_path / "study")
    np.testing.assert_array_equal(array(image), ct)
    assert info.notes == ("2 repeated slices with the same pixels skipped",)


def test_different_images_at_one_position_are_refused(tmp_path):
    """Two reconstructions under one series: whichever file comes first would win."""
    save_slices(dicom_slices(ct_array()), tmp_path / "study" / "a")
    save_slices(dicom_slices(ct_array() + 5)[:4], tmp_path / "study" / "b")
    with pytest.raises(UserError, match="several different images lie at the same position"):
        read_series(tmp_path / "study")


def test_two_phases_under_one_series_number_are_listed_apart(tmp_path):
    """Arterial and venous slices interleaved into one volume."""
    ct = ct_array()
    save_slices(dicom_slices(ct, AcquisitionNumber=1, AcquisitionTime="100000"), tmp_path / "study" / "a")
    save_slices(dicom_slices(ct + 40, AcquisitionNumber=2, AcquisitionTime="100040"), tmp_path / "study" / "b")
    with dicom_files(tmp_path / "study") as files:
        assert [one.key for one in list_series(files)] == ["3a", "3b"]
    for key, expected in (("3a", ct), ("3b", ct + 40)):
        image, _ = read_series(tmp_path / "study", key)
        np.testing.assert_array_equal(array(image), expected)
    with pytest.raises(UserError, match="there are 2 CT series; choose one with --series"):
        read_series(tmp_path / "study")
    with pytest.raises(UserError, match="contains 2 stacks; name one of them"):
        read_series(tmp_path / "study", "1.2.826.0.1.3")


SYNTAXES = {
    "RLELossless": "1.2.840.10008.1.2.5",
    "JPEGLosslessProcess14_1": "1.2.840.10008.1.2.4.70",
    "JPEGLSLossless": "1.2.840.10008.1.2.4.80",
    "JPEG2000Lossless": "1.2.840.10008.1.2.4.90",
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("plugins", [True, False], ids=["pydicom", "simpleitk"])
def test_compressed_slices_are_decoded(tmp_path, monkeypatch, syntax, plugins):
    """By pydicom's plug-ins and, where these lack, by SimpleITK, which would otherwise be asked in vain."""
    import pydicom

    def no_decoder(self):
        raise RuntimeError("no plug-in")

    ct = ct_array()
    save_slices(dicom_slices(ct), tmp_path / "study")
    compress_files(tmp_path / "study", syntax)
    example = pydicom.dcmread(next((tmp_path / "study").iterdir()), stop_before_pixels=True)
    assert example.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
    if not plugins:
        monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(no_decoder))
    image, _ = read_series(tmp_path / "study")
    np.testing.assert_array_equal(array(image), ct)


def test_one_file_of_a_series_and_slices_with_names_of_volumes(tmp_path):
    save_slices(dicom_slices(ct_array()), tmp_path / "study")
    files = sorted((tmp_path / "study").iterdir())
    with pytest.raises(UserError, match=r"is one slice of a series(?s:.*)Give the folder"):
        read_series(files[0])
    for file in files:
        file.rename(file.with_suffix(".nii"))
    assert read_ct(tmp_path / "study").image.GetSize() == ct_array().shape[::-1]


def test_enhanced_multiframe_ct_is_read(tmp_path):
    """Position and rescale sit in functional groups; frames may be in any order."""
    from io_samples import enhanced

    ct = ct_array()
    (tmp_path / "study").mkdir()
    enhanced(ct).save_as(tmp_path / "study" / "multi", enforce_file_format=True)
    image, info = read_series(tmp_path / "study")
    np.testing.assert_array_equal(array(image), ct)
    np.testing.assert_allclose(image.GetSpacing(), SPACING_MM[::-1])
    assert len({frame for _, frame in info.instances}) == len(ct)
