"""Measurements of a segmented CT against phantoms whose truth is known, in straight and oblique patients."""

import math

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.data.phantom import make_case
from nnunet_livseg.patient.measure import measure

STRUCTURES = {"liver": (1, 2), "tumor": (2,)}
OBLIQUE = [math.cos(0.4), -math.sin(0.4), 0, math.sin(0.4), math.cos(0.4), 0, 0, 0, 1]
FLIPPED = [-1.0, 0, 0, 0, 1, 0, 0, 0, -1]


def as_image(array, *, spacing_mm=(5.0, 2.0, 1.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin((-10.0, 20.0, 300.0))
    image.SetDirection([float(value) for value in direction])
    return image


@pytest.fixture(scope="module")
def phantom():
    return make_case(5, (48, 96, 96), tumors=(4, 4), tumor_diameter_mm=(24, 44))


def test_lesions_of_a_phantom_have_its_volumes_places_and_densities(phantom):
    grid = phantom.grid
    image, labels = (as_image(array, spacing_mm=grid.spacing_mm) for array in (phantom.image[0], phantom.label))
    found, numbered = measure(image, labels, STRUCTURES)
    voxel_ml = math.prod(grid.spacing_mm) / 1000
    assert found.liver_ml == pytest.approx(np.count_nonzero(phantom.label) * voxel_ml)
    assert found.tumor_burden == pytest.approx(np.count_nonzero(phantom.label == 2) / np.count_nonzero(phantom.label))
    truth = sorted(phantom.tumors, key=lambda tumor: -tumor.voxels)
    assert [lesion.volume_ml for lesion in found.lesions] == pytest.approx([tumor.volume_ml for tumor in truth])
    for lesion, tumor in zip(found.lesions, truth, strict=True):
        x, y, z = image.TransformPhysicalPointToContinuousIndex(lesion.center_mm)
        assert (z, y, x) == pytest.approx(tumor.center_voxel)
        assert lesion.mean_hu == pytest.approx(tumor.mean_hu[0])
        mask = phantom.lesion == tumor.lesion
        assert lesion.sd_hu == pytest.approx(phantom.image[0][mask].std())
        assert (sitk.GetArrayFromImage(numbered)[mask] == lesion.number).all()
        assert mask[lesion.box].sum() == mask.sum()


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), OBLIQUE, FLIPPED])
def test_diameters_of_an_ellipsoid_are_its_axes_wherever_the_patient_lies(direction):
    spacing = (2.0, 1.0, 1.0)
    z, y, x = np.ogrid[:40, :60, :60]
    ball = ((z - 20) * 2.0 / 30) ** 2 + ((y - 30) / 20) ** 2 + ((x - 30) / 12) ** 2 <= 1
    labels = as_image(ball.astype(np.uint8) * 2, spacing_mm=spacing, direction=direction)
    (lesion,) = measure(labels, labels, STRUCTURES)[0].lesions
    assert lesion.diameter.length_mm == pytest.approx(60, abs=2.0)  # within a voxel's size
    assert lesion.axial_diameter.length_mm == pytest.approx(40, abs=1.0)
    assert lesion.axial_diameter.slice_index == 20
    for diameter in (lesion.diameter, lesion.axial_diameter):
        assert math.dist(*diameter.ends_mm) == pytest.approx(diameter.length_mm)
    for end in lesion.axial_diameter.ends_mm:  # both ends lie in the slice, at the ellipsoid's rim
        index = labels.TransformPhysicalPointToContinuousIndex(end)
        assert index[2] == pytest.approx(20)
        assert abs(index[1] - 30) == pytest.approx(20, abs=1)


@pytest.mark.parametrize("code", ["LIA", "PIL", "RAS"])
def test_axial_is_axial_however_the_slices_are_stacked(code):
    """The plane of a coronal or sagittal stack taken for the axial one: another number for the same patient."""
    z, y, x = np.ogrid[:40, :60, :60]
    ball = ((z - 20) * 2.0 / 30) ** 2 + ((y - 30) / 20) ** 2 + ((x - 30) / 12) ** 2 <= 1
    labels = as_image(ball.astype(np.uint8) * 2, spacing_mm=(2.0, 1.0, 1.0))
    stacked = sitk.DICOMOrient(labels, code)
    (one,), (other,) = (measure(image, image, STRUCTURES)[0].lesions for image in (labels, stacked))
    assert other.axial_diameter.length_mm == pytest.approx(one.axial_diameter.length_mm)
    for end in other.axial_diameter.ends_mm:
        assert labels.TransformPhysicalPointToContinuousIndex(end)[2] == pytest.approx(20)
        axis = next(i for i, letter in enumerate(code) if letter in "IS")
        index = stacked.TransformPhysicalPointToContinuousIndex(end)[axis]
        assert index == pytest.approx(other.axial_diameter.slice_index)


def test_lesions_that_touch_by_an_edge_only_are_two_and_equal_ones_keep_their_order():
    array = np.zeros((3, 4, 4), np.uint8)
    array[1, 0:2, 0:2], array[1, 2:4, 2:4], array[0, 3, 0] = 2, 2, 1
    found, numbered = measure(as_image(array), as_image(array), STRUCTURES)
    assert [lesion.volume_ml for lesion in found.lesions] == pytest.approx([0.04, 0.04])
    assert sitk.GetArrayFromImage(numbered)[1, 0, 0] == 1


def test_confidence_is_the_mean_over_the_lesion():
    array = np.zeros((4, 6, 6), np.uint8)
    array[1:3, 1:3, 1:3] = 2
    probability = np.linspace(0, 1, array.size, dtype=np.float16).reshape(array.shape)
    votes = np.where(array == 2, 0.75, 0).astype(np.float16)
    maps = {"tumor_probability": probability, "tumor_votes": votes}
    (lesion,) = measure(as_image(array), as_image(array), STRUCTURES, **maps)[0].lesions
    assert lesion.confidence == pytest.approx(probability[array == 2].astype(float).mean())
    assert lesion.agreement == 0.75
    own = np.where(array == 2, 0.9, 0).astype(np.float32)
    (lesion,) = measure(as_image(array), as_image(array), STRUCTURES, **maps, ensemble_vote=own)[0].lesions
    assert lesion.agreement == pytest.approx(0.75 / 0.9)


@pytest.mark.parametrize(("axis", "index"), [(0, 0), (0, -1), (1, 0), (1, -1), (2, 0), (2, -1)])
def test_a_structure_at_any_face_of_the_image_is_cut_off(axis, index):
    array = np.zeros((5, 6, 7), np.uint8)
    np.moveaxis(array, axis, 0)[index].flat[len(array) + 3] = 1
    assert measure(as_image(array), as_image(array), STRUCTURES)[0].truncated == ("liver",)


def test_nothing_found_is_zero_and_unknown_is_none():
    nothing = as_image(np.zeros((3, 4, 4), np.uint8))
    found, numbered = measure(nothing, nothing, STRUCTURES)
    assert (found.liver_ml, found.tumor_ml, found.tumor_burden, found.lesions) == (0, 0, None, ())
    assert math.isnan(found.structures["liver"].mean_hu) and not sitk.GetArrayFromImage(numbered).any()
    found, numbered = measure(nothing, nothing, {"liver": (1,)})
    assert (found.lesions, found.tumor_ml, numbered) == (None, None, None)
