"""Boxes with known answers on voxels of unequal sides; cutting and putting back keep every voxel's place."""

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.imaging.images import read_image, write_volume
from nnunet_livseg.imaging.liver_crop import crop_image, crop_labels, find_liver_box, liver_of, uncrop

from .conftest import SPACING_MM, as_image, ct_of, drawing


def region_of(labels, margin_mm):
    return find_liver_box(labels > 0, spacing_mm=SPACING_MM, margin_mm=margin_mm)


def test_the_margin_is_in_millimeters():
    assert region_of(drawing(), 0).box == ((4, 4), (8, 10), (10, 20))
    assert region_of(drawing(), 4).box == ((3, 6), (6, 14), (6, 28))  # 1 slice of 5 mm, 2 rows of 2 mm, 4 columns


def test_the_margin_ends_at_the_image():
    assert region_of(drawing(), 900).box == ((0, 12), (0, 24), (0, 40))


def test_only_the_largest_part_counts():
    labels = drawing()
    labels[0, 0, 0] = labels[11, 20:24, 38:40] = 1
    region = region_of(labels, 5)
    assert region.box == region_of(drawing(), 5).box
    labels = drawing()
    labels[8:11, 19:22, 31:33] = 1  # in the box, not part of the liver
    region = region_of(labels, 20)
    np.testing.assert_array_equal(region.inside, (drawing() > 0)[region.slices])


def test_no_liver():
    assert region_of(np.zeros((3, 4, 5)), 10) is None


def test_two_dimensions():
    labels = drawing()[5]
    assert find_liver_box(labels > 0, spacing_mm=SPACING_MM[1:], margin_mm=4).box == ((6, 14), (6, 28))


@pytest.mark.parametrize("mode", ["crop", "mask"])
def test_a_voxel_stays_at_its_place_in_the_patient(mode):
    labels = drawing()
    image = as_image(ct_of(labels))
    region = region_of(labels, 4)
    cut = crop_image(image, region, mode=mode, fill=-1024)
    tumor = (15, 11, 6)  # x y z
    place = image.TransformIndexToPhysicalPoint(tumor)
    assert cut.GetPixel(cut.TransformPhysicalPointToIndex(place)) == image.GetPixel(tumor) == 200
    assert cut.GetSize() == (28, 14, 6) and cut.GetPixelID() == image.GetPixelID()


def test_masking_blanks_what_is_not_liver():
    labels = drawing()
    region = region_of(labels, 4)
    cut = sitk.GetArrayFromImage(crop_image(as_image(ct_of(labels)), region, mode="mask", fill=-1024))
    inside = (labels > 0)[region.slices]
    assert set(cut[~inside]) == {-1024} and set(cut[inside]) == {60, 200}


def test_types_that_cannot_hold_air_take_the_images_minimum():
    labels = drawing()
    image = as_image((ct_of(labels) + 200).astype(np.uint16))
    cut = sitk.GetArrayFromImage(crop_image(image, region_of(labels, 4), mode="mask", fill=-1024))
    assert cut[0, 0, 0] == sitk.GetArrayFromImage(image).min()


def test_labels_outside_the_liver_are_background_but_voxels_to_ignore_stay():
    labels = drawing()
    region = region_of(labels, 4)
    labels[3, 6, 6], labels[3, 6, 7] = 2, 3  # outside the liver, in the box
    cut = sitk.GetArrayFromImage(crop_labels(as_image(labels), region, mode="mask", ignore_label=3))
    assert (cut[0, 0, 0], cut[0, 0, 1]) == (0, 3)
    assert sitk.GetArrayFromImage(crop_labels(as_image(labels), region, mode="crop"))[0, 0, 0] == 2


@pytest.mark.parametrize("mode", ["crop", "mask"])
def test_cut_and_put_back_is_the_whole(mode):
    labels = drawing()
    image, region = as_image(labels), region_of(labels, 4)
    cut = sitk.GetArrayFromImage(crop_labels(image, region, mode=mode))
    np.testing.assert_array_equal(uncrop(cut, region, mode=mode, shape=labels.shape), labels)


def test_put_back_keeps_out_what_lies_outside_the_mask():
    labels = drawing()
    region = region_of(labels, 4)
    found = np.full([count for _, count in region.box], 2, np.uint8)
    np.testing.assert_array_equal(uncrop(found, region, mode="mask", shape=labels.shape) > 0, labels > 0)


@pytest.mark.parametrize("ending", [".png", ".tif", ".nii.gz", ".nrrd", ".gipl"])
def test_slices_of_every_format_of_nnunet(tmp_path, ending):
    slice_ = drawing()[5]
    write_volume(sitk.GetImageFromArray(slice_), tmp_path / f"x{ending}")
    found = sitk.GetArrayFromImage(read_image(tmp_path / f"x{ending}").image)
    np.testing.assert_array_equal(found.reshape(slice_.shape), slice_)


def test_files_that_cannot_be_cut(tmp_path):
    with pytest.raises(UserError, match=r"x\.png does not exist"):
        read_image(tmp_path / "x.png")
    (tmp_path / "x.png").write_text("nothing")
    with pytest.raises(UserError, match=r"x\.png cannot be read"):
        read_image(tmp_path / "x.png")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 3), np.uint8), isVector=True), str(tmp_path / "x.png"))
    with pytest.raises(UserError, match=r"x\.png has 3 values per voxel \(color or vectors\)"):
        read_image(tmp_path / "x.png")


def test_livers_of_another_size_are_refused(tmp_path):
    with pytest.raises(UserError, match="has 11 x 24 x 40 voxels, but its image has 12 x 24 x 40"):
        liver_of(as_image(drawing()[1:]), {1}, as_image(drawing()), path=tmp_path / "x.nii.gz")


def test_livers_at_another_place_are_refused(tmp_path):
    image, path = as_image(drawing()), tmp_path / "x.nii.gz"
    flipped = sitk.Flip(image, (True, False, False))  # the same liver, stored from the other side
    coarser, moved, rounded = (as_image(drawing()) for _ in range(3))
    coarser.SetSpacing((1.0, 2.0, 6.0))
    moved.SetOrigin((-10.0, 20.0, 301.0))
    rounded.SetOrigin((-10.0, 20.0, 300.001))
    for labels in (flipped, coarser, moved):
        with pytest.raises(UserError, match=r"x\.nii\.gz is not on the grid of its image"):
            liver_of(labels, {1, 2}, image, path=path)
    np.testing.assert_array_equal(liver_of(rounded, {1, 2}, image, path=path), drawing() > 0)


def test_pictures_have_no_place(tmp_path):
    labels, image = (sitk.GetImageFromArray(drawing()[5]) for _ in range(2))
    image.SetSpacing((0.1, 0.1))  # as PNG keeps it
    assert liver_of(labels, {1, 2}, image, path=tmp_path / "x.png").sum() == 200
