"""Two grids of which one is a part of the other, voxel for voxel.

A segmentation may be stored cropped to what it holds, and its axes may run in another order or direction.
"""

# Shapes: points and sizes x, y, z as in ITK; arrays (z, y, x)

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.imaging.grid import ROUNDING_VOXELS, ImageGrid


@dataclass(frozen=True)
class LatticePlace:
    """Where the voxels of a part are on a grid.

    Args:
        axes: For each axis of the grid, the axis of the part that runs along it.
        flipped: For each axis of the grid, whether the part runs against it.
        start: Index on the grid of the part's lowest corner; outside of the grid it may be negative.
        size: Voxels of the part along the grid's axes.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]
    start: np.ndarray
    size: np.ndarray


def place_of(part: ImageGrid, grid: ImageGrid) -> LatticePlace | None:
    """Where ``part`` is on ``grid``; None where its voxels are none of the grid's, inside or continued."""
    if len(part.size) != 3 or len(grid.size) != 3:
        return None
    to_index = np.linalg.inv(_axes_mm(grid))
    steps = to_index @ _axes_mm(part)
    for axis, size in enumerate(part.size):
        if size == 1:  # its length is a slice thickness, which may differ from the slice distance
            steps[:, axis] /= np.abs(steps[:, axis]).max()
    whole = np.rint(steps)
    if not np.array_equal(np.abs(whole) @ np.abs(whole).T, np.eye(3)):
        return None
    corners = (part.corners_mm() - grid.origin_mm) @ to_index.T
    if np.abs(corners - np.rint(corners)).max() > ROUNDING_VOXELS:
        return None
    axes = np.abs(whole).argmax(axis=1)
    return LatticePlace(
        tuple(axes.tolist()),
        tuple((whole[range(3), axes] < 0).tolist()),
        np.rint(corners.min(axis=0)).astype(int),
        np.array(part.size)[axes],
    )


def put_on(labels: sitk.Image, grid: ImageGrid) -> tuple[sitk.Image, int] | None:
    """``labels`` on the grid of which its own is a part, and how many labeled voxels lie outside; None: not a part."""
    place = place_of(ImageGrid.of(labels), grid)
    if place is None:
        return None
    values = sitk.GetArrayViewFromImage(labels).T.transpose(place.axes)
    values = values[tuple(slice(None, None, -1 if against else 1) for against in place.flipped)]
    low, high = np.maximum(place.start, 0), np.minimum(place.start + place.size, grid.size)
    whole = np.zeros(grid.size, values.dtype)
    if (low < high).all():
        inner = tuple(slice(*ends) for ends in zip(low - place.start, high - place.start, strict=True))
        whole[tuple(slice(*ends) for ends in zip(low, high, strict=True))] = values[inner]
    lost = int(np.count_nonzero(values)) - int(np.count_nonzero(whole))
    return grid.image(np.ascontiguousarray(whole.T)), lost


def joined(grid: ImageGrid, part: ImageGrid) -> ImageGrid | None:
    """``grid`` continued so far that it holds ``part``, too; None where they have no voxels in common."""
    place = place_of(part, grid)
    if place is None:
        return None
    low, high = np.minimum(place.start, 0), np.maximum(place.start + place.size, grid.size)
    origin_mm = np.asarray(grid.origin_mm) + _axes_mm(grid) @ low
    return ImageGrid(tuple((high - low).tolist()), grid.spacing_mm, tuple(origin_mm.tolist()), grid.direction)


def _axes_mm(grid: ImageGrid) -> np.ndarray:
    """One step along each axis, as columns."""
    return np.reshape(grid.direction, (3, 3)) * grid.spacing_mm
