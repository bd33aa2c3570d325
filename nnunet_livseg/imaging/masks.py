"""Connected parts of a mask: how large they are and what they border."""

# Shapes: *S spatial sizes (z, y, x) or (y, x); N number of parts, which are numbered from 1

import math

import numpy as np
from scipy import ndimage

from nnunet_livseg.evaluation.mask_pair import bounding_box, neighbourhood


def numbered(mask: np.ndarray, *, neighbours: int) -> tuple[np.ndarray, int]:
    """Numbers ``(*S)`` of the parts of ``mask`` that hang together through 6, 18 or 26 neighbours, and how many."""
    return ndimage.label(mask, neighbourhood(neighbours, mask.ndim))


def voxel_counts(parts: np.ndarray, count: int) -> np.ndarray:
    """Voxels of each part, ``(N + 1,)``; the first is the background."""
    # slice by slice: numpy counts in a copy of 8 bytes per voxel
    return sum(np.bincount(part.ravel(), minlength=count + 1) for part in parts)


def only_largest(parts: np.ndarray, count: int) -> np.ndarray:
    """Mask ``(*S)`` of the part with most voxels, the first of equals; empty where there is none."""
    if not count:
        return np.zeros(parts.shape, dtype=bool)
    return parts == 1 + int(np.argmax(voxel_counts(parts, count)[1:]))


def border_areas(parts: np.ndarray, count: int, neighbour: np.ndarray, *, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Area in mm2 (2D: length in mm) of the voxel faces between each part and ``neighbour (*S)``, ``(N + 1,)``."""
    areas = np.zeros(count + 1)
    for axis in range(parts.ndim):
        face = math.prod(spacing_mm) / spacing_mm[axis]
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        for one, other in ((low, high), (high, low)):
            areas += face * np.bincount(parts[one][neighbour[other]], minlength=count + 1)
    areas[0] = 0.0
    return areas


def box_with_rim(mask: np.ndarray) -> tuple[slice, ...]:
    """Smallest box around ``mask (*S)`` and the voxels that border it."""
    box = zip(bounding_box(mask), mask.shape, strict=True)
    return tuple(slice(max(part.start - 1, 0), min(part.stop + 1, size)) for part, size in box)
