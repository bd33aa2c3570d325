"""Longest diameters of a lesion, face to face: a row of n voxels is n voxels long."""

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from nnunet_livseg.evaluation.surfaces import surface

_FEW = 300  # points up to which all pairs are cheaper than a hull


def longest_diameter_mm(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    """Largest distance between the centres of two outer voxel faces of ``mask (*C)``; 0 for an empty mask."""
    voxels = np.argwhere(surface(mask))
    if not len(voxels):
        return 0.0
    spacing = np.asarray(spacing_mm)
    half_faces = np.concatenate([np.diag(spacing), -np.diag(spacing)]) / 2
    points = ((voxels * spacing)[:, None] + half_faces).reshape(-1, mask.ndim)
    if len(points) > _FEW:  # face centres spread over every axis, so that the hull is never flat
        points = points[ConvexHull(points).vertices]
    return float(pdist(points).max())


def axial_diameter_mm(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    """Longest diameter within any one axial slice (axis 0) of ``mask (*C)``; in 2D the longest diameter."""
    if mask.ndim == 2:
        return longest_diameter_mm(mask, spacing_mm)
    longest = 0.0
    areas = mask.sum(axis=(1, 2))
    for index in np.argsort(-areas, kind="stable"):
        if not areas[index]:
            break
        rows, columns = np.flatnonzero(mask[index].any(1)), np.flatnonzero(mask[index].any(0))
        plane = mask[index, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if np.linalg.norm(np.multiply(plane.shape, spacing_mm[1:])) > longest:
            longest = max(longest, longest_diameter_mm(plane, spacing_mm[1:]))
    return longest
