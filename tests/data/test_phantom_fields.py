"""The geometry that the phantom is built on, against closed formulas."""

import numpy as np
import pytest

from nnunet_livseg.data.phantom.fields import Grid, SmoothNoise, coverage
from nnunet_livseg.data.phantom.shapes import capsule, ellipsoid, half_space, rotation, smooth_union, tube


def sample(shape, spacing_mm, extent_mm=60.0, offset_mm=0.3):
    size = tuple(round(extent_mm / s) for s in spacing_mm)
    grid = Grid(size, spacing_mm, (offset_mm,) * 3)
    points = np.broadcast_arrays(*grid.axes(0, size[0]))
    return coverage(shape(*points), min(spacing_mm)), grid


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0), (2.0, 3.0, 1.5), (3.0, 3.0, 3.0)])
def test_covered_volume_of_an_ellipsoid_is_its_volume(spacing_mm):
    radii = (14.0, 20.0, 11.0)
    turned = ellipsoid((0, 0, 0), radii, turn=rotation(roll=30, yaw=20))
    alpha, grid = sample(turned, spacing_mm)
    assert alpha.sum() * grid.voxel_ml == pytest.approx(4 / 3 * np.pi * np.prod(radii) / 1000, rel=0.02)


def test_thick_slices_blur_slanted_surfaces_and_leave_vertical_ones_sharp():
    spacing_mm = (6.0, 1.0, 1.0)
    vertical, _ = sample(half_space((0, 0, 1), 0.0), spacing_mm)
    slanted, _ = sample(half_space((1, 0, 1), 0.0), spacing_mm)
    partial = [((a > 0.02) & (a < 0.98)).sum(axis=2).max() for a in (vertical, slanted)]
    assert partial[0] <= 1 and partial[1] >= 5


def test_bounds_hold_the_shape():
    shapes = [ellipsoid((3, -4, 5), (6, 17, 9), turn=rotation(40, 50, 60)), ellipsoid((0, 0, 0), (8, 9, 10), power=3.0)]
    shapes += [capsule((-9, 2, 3), (8, 7, -6), 3.0, 5.0), *tube([(0, 0, 0), (5, 9, 2), (8, 8, 8)], [2, 3, 4])]
    shapes += [
        smooth_union(shapes[:2], 6.0).grown(2.0),
        shapes[0].roughened(SmoothNoise(np.random.default_rng(0), 5), 1),
    ]
    axis = np.arange(-30, 30, 0.7, dtype=np.float32)
    points = np.meshgrid(axis, axis, axis, indexing="ij")
    for shape in shapes:
        inside = shape(*points) < -0.5
        assert inside.any()
        for coordinate, (low, high) in zip(points, shape.bounds, strict=True):
            assert coordinate[inside].min() >= low and coordinate[inside].max() <= high


def test_noise_is_one_function_for_all_grids_with_unit_spread():
    noise = SmoothNoise(np.random.default_rng(0), 9.0)
    fine = Grid((41, 43, 45), (2.0, 3.0, 4.0)).axes(0, 41)
    coarse = tuple(axis[tuple(slice(None, None, 2) for _ in range(3))] for axis in fine)
    values = noise.on_axes(fine)
    np.testing.assert_allclose(noise.on_axes(coarse), values[::2, ::2, ::2], atol=1e-5)
    assert values.std() == pytest.approx(1, abs=0.15) and abs(values.mean()) < 0.15
    assert noise.at(*np.broadcast_arrays(*fine)).std() == pytest.approx(1, abs=0.15)
    steps = np.abs(np.diff(noise.on_axes(Grid((40, 4, 4), (0.1, 0.1, 0.1)).axes(0, 40)), axis=0))
    assert steps.max() < 0.1  # smooth: no jumps at lattice cells


def test_rotation_is_orthogonal_and_turns_the_named_plane():
    matrix = rotation(roll=90)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.abs(matrix @ [0, 1, 0]), [0, 0, 1], atol=1e-12)
