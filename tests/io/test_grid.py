"""One rule says whether two images lie on one grid: every part that differs is named, and none is refused unnamed."""

import numpy as np
import pytest
from io_samples import as_image, rotated

from nnunet_livseg.imaging.grid import ImageGrid, grid_differences, same_grid, spelled

FLAT = np.zeros((2, 64, 64), np.uint8)
SAME = {"spacing_mm": (2.0, 0.7, 0.7), "origin_mm": (-17.0, -23.0, -110.0)}
DIFFERENT = {  # what is other than in SAME, and the parts that must be named
    "spacing": ({"spacing_mm": (2.0, 0.705, 0.7)}, ["spacing"]),
    "spacing below what was once named": ({"spacing_mm": (2.0, 0.7, 0.7 + 1.5e-3)}, ["spacing"]),
    "origin": ({"origin_mm": (-17.0, -23.0, -109.0)}, ["origin"]),
    "origin, far away": ({"origin_mm": (1e6, -23.0, -110.0)}, ["origin"]),
    "direction": ({"direction": rotated((0, 0, 0.5))}, ["direction"]),
    "mirrored": ({"direction": np.diag([-1, -1, 1])}, ["direction"]),
    "all three": (
        {"spacing_mm": (2.0, 0.8, 0.7), "origin_mm": (0.0, 0.0, 0.0), "direction": rotated((3, 0, 0))},
        ["spacing", "origin", "direction"],
    ),
}


@pytest.mark.parametrize(("change", "parts"), DIFFERENT.values(), ids=DIFFERENT)
def test_every_difference_is_named_with_both_values(change, parts):
    one, other = as_image(FLAT, **SAME), as_image(FLAT, **(SAME | change))
    found = grid_differences(one, other)
    assert [difference.part for difference in found] == parts
    for difference in found:
        assert difference.values()[0] != difference.values()[1]
    assert spelled(found, "a", "b").count(": a (") == len(parts)


def test_sizes_are_compared_first():
    (found,) = grid_differences(as_image(FLAT), as_image(FLAT[:1]))
    assert found.text("a", "b") == "shape (z, y, x): a (2, 64, 64), b (1, 64, 64)"


def test_a_slice_has_a_thickness():
    """The centers of the corner voxels are the same, whatever the thickness."""
    thin, thick = (as_image(FLAT[:1], spacing_mm=(mm, 0.7, 0.7)) for mm in (1, 5))
    assert [difference.part for difference in grid_differences(thin, thick)] == ["spacing"]


def test_a_place_that_is_no_number_is_never_the_same():
    grid = ImageGrid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, np.nan), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert [difference.part for difference in grid_differences(grid, grid)] == ["origin"]


@pytest.mark.parametrize("tolerance", [0.01, 0.05, 0.1])
def test_no_refusal_is_without_a_word(tolerance):
    """Random differences about the tolerance: none is refused and unnamed."""
    rng, refused = np.random.default_rng(0), 0
    one = ImageGrid.of(as_image(FLAT, **SAME))
    for _ in range(300):
        scale = 10.0 ** rng.uniform(-6, 0, 3)
        other = ImageGrid(
            one.size,
            tuple(np.abs(one.spacing_mm + scale[0] * rng.normal(0, 0.01, 3))),
            tuple(one.origin_mm + scale[1] * rng.normal(0, 1, 3)),
            tuple(np.ravel(rotated(tuple(scale[2] * rng.normal(0, 1, 3))))),
        )
        found = grid_differences(one, other, tolerance_voxels=tolerance)
        apart_mm = np.linalg.norm(one.corners_mm(outer=True) - other.corners_mm(outer=True), axis=1).max()
        assert bool(found) == bool(apart_mm > tolerance * min(*one.spacing_mm, *other.spacing_mm))
        refused += bool(found)
    assert 30 < refused < 300


def test_positions_are_those_of_simpleitk():
    image = as_image(FLAT, direction=rotated((10, -20, 30)), spacing_mm=(2.5, 0.8, 0.7))
    corners = ImageGrid.of(image).corners_mm(outer=True)
    np.testing.assert_allclose(corners[0], image.TransformContinuousIndexToPhysicalPoint((-0.5, -0.5, -0.5)))
    np.testing.assert_allclose(corners[-1], image.TransformContinuousIndexToPhysicalPoint((63.5, 63.5, 1.5)))
    assert same_grid(image, image)
