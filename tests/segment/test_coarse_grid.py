"""Models that want their CTs in one orientation and coarser voxels."""

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import as_image
from known_model import drawing, make_model

from nnunet_livseg import segment
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.inference import coarse_grid
from nnunet_livseg.inference.coarse_grid import CoarseGrid, averaged, enlarged, enlarged_near

GRID = {"orientation": "LPS", "average_to_mm": 1.7}  # of the drawing's 2.5 x 0.8 x 0.7 mm: blocks of 1 x 2 x 2


def random_image(rng, size=(10, 7, 9)):
    image = sitk.GetImageFromArray(rng.normal(size=size[::-1]).astype(np.float32))
    image.SetSpacing((0.7, 0.8, 1.2))
    image.SetOrigin((5, 6, 7))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    return image


@pytest.mark.parametrize("slab", [1, 10**9])
def test_between_blocks_values_are_linear_as_itk_has_them(slab, monkeypatch):
    monkeypatch.setattr(coarse_grid, "_SLAB_VOXELS", slab)
    image = random_image(np.random.default_rng(0))
    block = (2, 3, 2)
    coarse = averaged(image, block)
    values = sitk.GetArrayFromImage(coarse)
    assert values[1, 0, 2] == pytest.approx(sitk.GetArrayFromImage(image)[2:4, 0:3, 4:6].mean())
    expected = sitk.Resample(coarse, image, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32, True)
    found = enlarged(values, block, image.GetSize()[::-1])
    np.testing.assert_allclose(found, sitk.GetArrayFromImage(expected), atol=1e-5)


@pytest.mark.parametrize("where", [(0, 0, 0), (5, 6, 7), None])
def test_near_voxels_that_are_asked_for_the_values_are_those_of_the_whole(where):
    values, block, shape = np.random.default_rng(2).random((4, 3, 5)).astype(np.float16), (2, 3, 2), (7, 8, 9)
    mask = np.zeros(shape, bool)
    if where:
        mask[where] = True
    found = enlarged_near(values, mask, block)
    assert found.shape == shape and found.dtype == np.float16
    np.testing.assert_array_equal(found[mask], enlarged(values, block, shape)[mask])
    assert bool(found.any()) == bool(where)


def test_the_model_sees_its_own_orientation_and_answers_in_the_cts():
    image = random_image(np.random.default_rng(1))
    grid = CoarseGrid("LPS", 1.5)
    coarse = grid.coarse(image)
    assert sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(coarse.GetDirection()) == "LPS"
    assert max(coarse.GetSpacing()) <= 1.5
    back = grid.own_axes(image, coarse)(sitk.GetArrayFromImage(coarse))
    np.testing.assert_array_equal(back, sitk.GetArrayFromImage(averaged(image, grid.block(image))))


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SLA"])
def test_label_map_and_maps_lie_on_the_grid_of_the_ct(orientation, tmp_path):
    image, expected = (sitk.DICOMOrient(as_image(values), orientation) for values in drawing())
    model = make_model(tmp_path / "coarse", dataset={"livseg": {"grid": GRID}}, spacing_mm=(2.5, 1.6, 1.4))
    found = segment(image, model, device="cpu", probabilities=True, uncertainty=True)
    assert set(found.probabilities) == {"liver", "tumor"}
    for one in (found.labels, found.uncertainty, *found.probabilities.values()):
        assert (one.GetSize(), one.GetDirection(), one.GetOrigin(), one.GetSpacing()) == (
            *(image.GetSize(), image.GetDirection(), image.GetOrigin(), image.GetSpacing()),
        )
    alone = segment(image, model, device="cpu")  # probabilities of the tumor in the tumors' box alone
    lesions = [one.measurements.lesions for one in (found, alone)]
    assert lesions[1] and [a.confidence for a in lesions[0]] == [b.confidence for b in lesions[1]]
    ours, theirs = (sitk.GetArrayFromImage(labels) for labels in (found.labels, expected))
    for label in (1, 2):  # every edge of the drawing lies between two blocks
        dice = 2 * np.sum((ours == label) & (theirs == label)) / np.sum((ours == label) + 0 + (theirs == label))
        assert dice > 0.93


def test_where_nothing_is_found_all_is_background(tmp_path):
    model = make_model(tmp_path, dataset={"livseg": {"grid": GRID}})
    found = segment(as_image(np.where(drawing()[0] < -200, -1000, -50).astype(np.int16)), model, device="cpu")
    assert not sitk.GetArrayFromImage(found.labels).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"livseg": {"grid": {"orientation": "LPS"}}}, "damaged entry livseg: grid"),
        ({"livseg": {"grid": GRID}, "labels": {"background": 0, "organ": 1}}, "needs the labels liver and tumor alone"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        segment(as_image(drawing()[0]), make_model(tmp_path, dataset=change), device="cpu")
