"""Maps land where they belong, through nnU-Net's own preprocessing: turned axes, cropping, resampling, padding."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.nn import functional as F

from nnunet_livseg.inference.patch_grid import cut_patch, whole_grid
from nnunet_livseg.inference.reader_axes import ReaderAxes
from nnunet_livseg.reference_networks import stock_configuration

from .conftest import plans

SHAPE, SPACING_MM = (24, 50, 90), (5.0, 1.5, 0.8)  # z y x
FACTORS = (2, 4, 8)  # voxels of the patch per cell of a map, turned
STRAIGHT = (1, 0, 0, 0, 1, 0, 0, 0, 1)
FLIPPED = (-1, 0, 0, 0, 1, 0, 0, 0, -1)
SIDEWAYS = (0, 0, 1, 1, 0, 0, 0, -1, 0)  # columns to the back, rows to the feet, slices to the left
READ = [
    ("SimpleITKIO", SIDEWAYS),  # which it keeps
    ("NibabelIO", FLIPPED),
    ("SimpleITKIOWithReorient", STRAIGHT),
    ("SimpleITKIOWithReorient", SIDEWAYS),
    ("NibabelIOWithReorient", FLIPPED),
    ("NibabelIOWithReorient", SIDEWAYS),
]


def turned(reader, direction, spacing_mm=SPACING_MM):
    image = sitk.Image(2, 2, 2, sitk.sitkUInt8)
    image.SetDirection(direction)
    image.SetSpacing(spacing_mm[::-1])
    return ReaderAxes(image, reader)


def prepared(voxels, *, order, spacing_mm, patch, axes=None):
    """Preprocessed image, and its grid, by nnU-Net's preprocessor with plans of these axes and this spacing."""
    axes = axes or turned("SimpleITKIO", STRAIGHT)
    configuration = stock_configuration(len(patch), patch=patch, features=(4,) * 5) | {"spacing": list(spacing_mm)}
    manager = PlansManager(plans(configuration, order=order))
    (key,) = manager.plans["configurations"]
    chosen = manager.get_configuration(key)
    properties = {"spacing": list(axes.spacing_mm)}
    labels = {"background": 0, "liver": 1}
    data, _, properties = chosen.preprocessor_class(verbose=False).run_case_npy(
        axes.to_reader(voxels)[None], None, properties, manager, chosen, {"labels": labels}
    )
    return data, whole_grid(SHAPE, data.shape[1:], properties=properties, transposed=order, axes=axes)


def marked(voxel):
    """Soft tissue in a border of 0 (which is cropped away) with one bright voxel."""
    voxels = np.zeros(SHAPE, np.float32)
    voxels[2:-3, 5:-1, 4:-9] = 40
    voxels[voxel] = 30000
    return voxels


@pytest.mark.parametrize("marker", [(4, 8, 9), (11, 30, 41), (19, 45, 78)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("spacing_mm", [(5.0, 1.5, 0.8), (2.0, 3.0, 1.3)])
@pytest.mark.parametrize(("reader", "direction"), READ)
def test_a_marker_lands_within_a_cell(marker, order, spacing_mm, reader, direction):
    read_mm = turned(reader, direction, spacing_mm).spacing_mm
    axes, planned_mm = turned(reader, direction), [read_mm[axis] for axis in order]
    data, whole = prepared(marked(marker), order=order, spacing_mm=planned_mm, patch=(16, 32, 32), axes=axes)
    center = [int(i) for i in np.unravel_index(data[0].argmax(), data.shape[1:])]
    patch, grid = cut_patch(data, whole, center, (16, 32, 32))
    assert patch.shape == (1, 16, 32, 32)
    cells = F.max_pool3d(torch.from_numpy(patch), FACTORS)[0].numpy()
    placed = np.zeros(SHAPE, np.float32)
    placed[grid.box] = grid.place(cells)
    found = np.unravel_index(placed.argmax(), SHAPE)
    for axis, (here, there) in enumerate(zip(found, marker, strict=True)):
        place = grid.order.index(axis)
        cell = FACTORS[place] / abs(grid.scale[place])  # voxels of the image
        assert abs(here - there) <= cell, (axis, found, marker)
    assert whole.to_image(center) == pytest.approx(marker, abs=max(1, *(0.5 / abs(s) for s in whole.scale)))
    assert grid.to_patch(whole.to_image(center)) == pytest.approx(
        [c + o - w for c, o, w in zip(center, grid.offset, whole.offset, strict=True)],
        abs=max(0.5, *(abs(s) / 2 for s in whole.scale)) + 1e-6,
    )


@pytest.mark.parametrize(("reader", "direction"), READ)
def test_what_the_network_sees_comes_back_as_it_was_read(reader, direction):
    """Without resampling every voxel has its own value again, in a box that is not in the middle."""
    voxels = marked((11, 30, 41))
    voxels[2:-3, 5:-1, 4:-9] += np.random.default_rng(0).normal(0, 5, (19, 44, 77))
    order, axes = (2, 0, 1), turned(reader, direction)
    planned_mm = [axes.spacing_mm[axis] for axis in order]
    data, whole = prepared(voxels, order=order, spacing_mm=planned_mm, patch=(16, 32, 32), axes=axes)
    assert whole.box == (slice(2, 21), slice(5, 49), slice(4, 81))
    expected = np.clip(voxels, -1000, 1000) / 100  # as the plans say
    assert np.allclose(whole.place(data[0]), expected[whole.box], atol=1e-5)


def test_a_map_as_fine_as_the_image_comes_back_as_it_was():
    voxels = marked((11, 30, 41))
    voxels[2:-3, 5:-1, 4:-9] += np.random.default_rng(0).normal(0, 5, (19, 44, 77))
    order = (2, 0, 1)
    data, whole = prepared(voxels, order=order, spacing_mm=[SPACING_MM[a] for a in order], patch=(16, 32, 32))
    _, grid = cut_patch(data, whole, (40, 10, 20), (16, 16, 32))
    patch, _ = cut_patch(voxels[None, 2:-3, 5:-1, 4:-9].transpose(0, 3, 1, 2), whole, (40, 10, 20), (16, 16, 32))
    assert np.array_equal(grid.place(patch[0]), voxels[grid.box])
    assert np.array_equal(grid.place((patch[0] > 42).astype(np.uint8), labels=True), voxels[grid.box] > 42)


def test_padding_lies_outside_the_image():
    """An image smaller than the patch: the map's padded part has no voxels in it."""
    voxels = marked((11, 30, 41))
    data, whole = prepared(voxels, order=(0, 1, 2), spacing_mm=SPACING_MM, patch=(32, 64, 96))
    patch, grid = cut_patch(data, whole, (9, 20, 30), (32, 64, 96))
    assert patch.shape == (1, 32, 64, 96)
    assert grid.box == (slice(2, 21), slice(5, 49), slice(4, 81))
    placed = grid.place(patch[0])
    assert np.unravel_index(placed.argmax(), placed.shape) == (11 - 2, 30 - 5, 41 - 4)


def test_a_2d_patch_is_one_slice_of_the_plans_first_axis():
    order = (1, 0, 2)
    data, whole = prepared(marked((11, 30, 41)), order=order, spacing_mm=(5.0, 0.8), patch=(16, 64))
    patch, grid = cut_patch(data, whole, (25, 9, 37), (16, 64))
    assert patch.shape == (1, 1, 16, 64)
    assert grid.box[1] == slice(30, 31)
    placed = grid.place(patch[0])
    assert placed.shape == tuple(part.stop - part.start for part in grid.box)
    z, _, x = np.unravel_index(placed.argmax(), placed.shape)
    assert (z + grid.box[0].start, x + grid.box[2].start) == (11, 41)


def test_linear_maps_keep_their_place_between_cells():
    """A map that is the x coordinate itself: every voxel gets its own, not that of a neighboring cell."""
    voxels = marked((11, 30, 41))
    data, whole = prepared(voxels, order=(0, 1, 2), spacing_mm=(5.0, 1.5, 0.5), patch=(16, 32, 64))
    _, grid = cut_patch(data, whole, (9, 20, 60), (16, 32, 64))
    centers = (np.arange(16) + 0.5) * 4 - 0.5  # of cells of four voxels, in voxels of the patch
    placed = grid.place(np.broadcast_to(centers, (8, 8, 16)).copy())
    xs = np.arange(grid.box[2].start, grid.box[2].stop)
    expected = np.clip([grid.to_patch((0, 0, x))[2] for x in xs], centers[0], centers[-1])
    assert placed[3, 3] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing_mm", [(5.0, 3.1, 1.9), (2.2, 0.7, 0.6)])
def test_resampling_there_and_back_moves_nothing(axis, spacing_mm):
    """An image that holds its own coordinates: resampled by nnU-Net and placed back, every voxel has its own again."""
    voxels = np.broadcast_to(np.arange(1, SHAPE[axis] + 1).reshape([-1 if i == axis else 1 for i in range(3)]), SHAPE)
    data, whole = prepared(voxels.astype(np.float32), order=(0, 1, 2), spacing_mm=spacing_mm, patch=(16, 32, 32))
    patch, grid = cut_patch(data, whole, [n // 2 for n in data.shape[1:]], (16, 32, 32))
    placed = grid.place(patch[0] * 100)  # the plans divide by 100
    inner = tuple(slice(3, -3) for _ in range(3))
    slack = 0.51 if axis == 0 else 0.05  # nnU-Net resamples thick slices by nearest neighbor
    assert placed[inner] == pytest.approx(voxels[grid.box][inner], abs=slack * max(1, 1 / whole.scale[axis]))
    assert (placed - voxels[grid.box])[inner].mean() == pytest.approx(0, abs=0.05)
