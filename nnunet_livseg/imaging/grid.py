"""Whether two images lie on one grid, asked of where their corners lie in the patient."""

from itertools import product

import numpy as np
import SimpleITK as sitk

ROUNDING_VOXELS = 0.1  # headers closer than this mean the same grid


def corners_mm(image: sitk.Image, *, outer: bool = False) -> np.ndarray:
    """Physical positions of the centres of the corner voxels, or of their ``outer`` corners, ``(8, 3)`` in x, y, z."""
    edge = 0.5 if outer else 0.0
    indices = product(*((-edge, size - 1 + edge) for size in image.GetSize()))
    return np.array([image.TransformContinuousIndexToPhysicalPoint(index) for index in indices])


def distance_mm(image: sitk.Image, other: sitk.Image, *, outer: bool = False) -> float:
    """How far the corners of two images of one size lie apart at most."""
    return float(np.linalg.norm(corners_mm(image, outer=outer) - corners_mm(other, outer=outer), axis=1).max())


def same_grid(image: sitk.Image, other: sitk.Image) -> bool:
    """Whether both grids agree to a tenth of a voxel at every corner."""
    return image.GetSize() == other.GetSize() and distance_mm(image, other) <= ROUNDING_VOXELS * min(image.GetSpacing())
