"""A CT as people hand it over: channels that must lie on one grid, options that must mean something."""

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import SPACING_MM, as_image, ct_array, rotated, write

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.inference.ct_input import read_ct

FLAT = np.full((4, 512, 512), -1000, np.int16)


@pytest.mark.parametrize(
    "other",
    [{"spacing_mm": (2, 0.709, 0.709)}, {"direction": rotated((0, 0, 0.5))}, {"origin_mm": (-17.08, -23, -110)}],
    ids=["spacing", "direction", "origin"],
)
def test_channels_whose_corners_lie_apart_are_refused(other):
    """0.009 mm per pixel and half a degree look like rounding, but add up to 6 and 3 mm at the far corner."""
    first = as_image(FLAT, spacing_mm=(2, 0.7, 0.7))
    with pytest.raises(UserError, match=r"channel 1 is on another grid than channel 0 .*corners up to [\d.]+ mm apart"):
        read_ct((first, as_image(FLAT, **{"spacing_mm": (2, 0.7, 0.7)} | other)))


def test_channels_that_differ_by_rounding_are_one_ct():
    """A header with four decimals against one with six."""
    first = as_image(FLAT, spacing_mm=(2, 0.703125, 0.703125), direction=rotated())
    other = as_image(
        FLAT, spacing_mm=(2, 0.7031, 0.7031), direction=rotated((10, -20, 30.001)), origin_mm=(-17.01, -23, -110)
    )
    assert len(read_ct((first, other)).images) == 2


@pytest.mark.parametrize("kind", ["file", "image", "array"])
def test_options_of_dicom_are_refused_for_volumes(tmp_path, kind):
    """An intercept that is silently left out measures a CT 1024 HU too high."""
    image = as_image(ct_array())
    given = {"file": write(image, tmp_path / "ct.nii.gz"), "image": image, "array": sitk.GetArrayFromImage(image)}[kind]
    options = {"spacing_mm": SPACING_MM} if kind == "array" else {}
    with pytest.raises(
        UserError, match=r"is one volume.*, whose values are used as they are: the intercept -1024 is for"
    ):
        read_ct(given, intercept=-1024, **options)
    with pytest.raises(UserError, match=r"is one volume.*, so there is no series '3' to choose"):
        read_ct(given, series=3, **options)
    nothing_to_fill = read_ct(given, series=None, intercept=None, interpolate=True, **options)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(nothing_to_fill.image), ct_array())


def test_options_that_would_mean_nothing_are_refused():
    """A misspelled option, and a voxel size for an image that has its own."""
    with pytest.raises(TypeError, match="intercpt"):
        read_ct(as_image(ct_array()), intercpt=-1024)
    with pytest.raises(UserError, match="spacing_mm is for arrays"):
        read_ct(as_image(ct_array()), spacing_mm=SPACING_MM)
