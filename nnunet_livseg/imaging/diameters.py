"""Longest diameters of a lesion, face to face: a row of n voxels is n voxels long."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from nnunet_livseg.imaging.masks import surface_voxels

_FEW = 300  # points up to which all pairs are cheaper than a hull


@dataclass(frozen=True)
class VoxelLine:
    """A straight line between the centers of two outer voxel faces.

    Args:
        length_mm: Its length; 0 for an empty mask.
        ends: Its two ends, indices per axis of the mask (voxel centers are whole numbers).
    """

    length_mm: float
    ends: tuple[tuple[float, ...], tuple[float, ...]]


def longest_line(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> VoxelLine:
    """The longest line between two outer faces of ``mask (*C)``."""
    voxels = np.argwhere(surface_voxels(mask))
    if not len(voxels):
        return VoxelLine(0.0, ((0.0,) * mask.ndim,) * 2)
    spacing = np.asarray(spacing_mm)
    half_faces = np.concatenate([np.diag(spacing), -np.diag(spacing)]) / 2
    points = ((voxels * spacing)[:, None] + half_faces).reshape(-1, mask.ndim)
    if len(points) > _FEW:  # face centers spread over every axis, so that the hull is never flat
        points = points[ConvexHull(points).vertices]
    distances = pdist(points)
    pair = int(distances.argmax())
    first, second = (int(side[pair]) for side in np.triu_indices(len(points), 1))
    return VoxelLine(float(distances[pair]), tuple(tuple((points[i] / spacing).tolist()) for i in (first, second)))


def axial_line(mask: np.ndarray, spacing_mm: tuple[float, ...], *, across: int = 0) -> VoxelLine:
    """The longest line within any one axial slice of ``mask (*C)``, at right angles to an axis; in 2D the longest."""
    if mask.ndim == 2:
        return longest_line(mask, spacing_mm)
    if across:  # swapping two axes is its own inverse
        order = [across if axis == 0 else 0 if axis == across else axis for axis in range(mask.ndim)]
        line = axial_line(mask.transpose(order), tuple(spacing_mm[axis] for axis in order))
        return VoxelLine(line.length_mm, tuple(tuple(end[axis] for axis in order) for end in line.ends))
    longest = longest_line(mask[:0], spacing_mm)
    areas = mask.sum(axis=(1, 2))
    for index in np.argsort(-areas, kind="stable"):
        if not areas[index]:
            break
        rows, columns = np.flatnonzero(mask[index].any(1)), np.flatnonzero(mask[index].any(0))
        plane = mask[index, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if np.linalg.norm(np.multiply(plane.shape, spacing_mm[1:])) > longest.length_mm:
            line = longest_line(plane, spacing_mm[1:])
            if line.length_mm > longest.length_mm:
                corner = (float(rows[0]), float(columns[0]))
                ends = ((float(index), end[0] + corner[0], end[1] + corner[1]) for end in line.ends)
                longest = VoxelLine(line.length_mm, tuple(ends))
    return longest


def longest_diameter_mm(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    """Largest distance between the centers of two outer voxel faces of ``mask (*C)``; 0 for an empty mask."""
    return longest_line(mask, spacing_mm).length_mm


def axial_diameter_mm(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    """Longest diameter within any one axial slice (axis 0) of ``mask (*C)``; in 2D the longest diameter."""
    return axial_line(mask, spacing_mm).length_mm
