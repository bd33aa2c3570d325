"""One mask: its box, its surface, its connected parts, how large they are and what they border."""

# Shapes: *S spatial sizes (z, y, x) or (y, x); N number of parts, which are numbered from 1

import math
from itertools import product

import numpy as np
from scipy import ndimage

_RANK = {6: 1, 18: 2, 26: 3}


def neighborhood(neighbors: int, ndim: int) -> np.ndarray:
    """Structuring element ``(3,) * ndim`` of 6, 18 or 26 neighbors (2D: 4, 8, 8)."""
    return ndimage.generate_binary_structure(ndim, min(_RANK[neighbors], ndim))


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Smallest box around the true voxels of ``mask (*S)``; its first voxel where there are none."""
    box = []
    for axis in range(mask.ndim):
        # axes already cut make the next reduction cheap
        view = mask[tuple(box)] if box else mask
        others = tuple(other for other in range(mask.ndim) if other != axis)
        hit = np.flatnonzero(view.any(axis=others))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 1))
    return tuple(box)


def label_components(mask: np.ndarray, *, neighbors: int) -> tuple[np.ndarray, int]:
    """Numbers ``(*S)`` of the parts of ``mask`` that hang together through 6, 18 or 26 neighbors, and how many."""
    return ndimage.label(mask, neighborhood(neighbors, mask.ndim))


def components_by_size(mask: np.ndarray, *, neighbors: int) -> tuple[np.ndarray, list[tuple[slice, ...]]]:
    """The same numbered from the largest (ties: from the first voxel on), in 16 bits where they do, and their boxes."""
    corner = bounding_box(mask)
    parts, count = label_components(mask[corner], neighbors=neighbors)
    order = np.argsort(-voxel_counts(parts, count)[1:], kind="stable")
    rank = np.zeros(count + 1, np.uint16 if count < 2**16 else np.uint32)
    rank[order + 1] = np.arange(1, count + 1)
    whole = np.zeros(mask.shape, rank.dtype)
    whole[corner] = rank[parts]
    found, starts = ndimage.find_objects(parts), [part.start for part in corner]
    boxes = [tuple(slice(p.start + s, p.stop + s) for p, s in zip(found[i], starts, strict=True)) for i in order]
    return whole, boxes


def voxel_counts(parts: np.ndarray, count: int) -> np.ndarray:
    """Voxels of each part, ``(N + 1,)``; the first is the background."""
    # slice by slice: numpy counts in a copy of 8 bytes per voxel
    return sum(np.bincount(part.ravel(), minlength=count + 1) for part in parts)


def only_largest(parts: np.ndarray, count: int) -> np.ndarray:
    """Mask ``(*S)`` of the part with most voxels, the first of equals; empty where there is none."""
    if not count:
        return np.zeros(parts.shape, dtype=bool)
    return parts == 1 + int(np.argmax(voxel_counts(parts, count)[1:]))


def border_areas(parts: np.ndarray, count: int, neighbor: np.ndarray, *, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Area in mm2 (2D: length in mm) of the voxel faces between each part and ``neighbor (*S)``, ``(N + 1,)``."""
    areas = np.zeros(count + 1)
    for axis in range(parts.ndim):
        face = math.prod(spacing_mm) / spacing_mm[axis]
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        for one, other in ((low, high), (high, low)):
            areas += face * np.bincount(parts[one][neighbor[other]], minlength=count + 1)
    areas[0] = 0.0
    return areas


def box_with_rim(mask: np.ndarray) -> tuple[slice, ...]:
    """Smallest box around ``mask (*S)`` and the voxels that border it."""
    box = zip(bounding_box(mask), mask.shape, strict=True)
    return tuple(slice(max(part.start - 1, 0), min(part.stop + 1, size)) for part, size in box)


def surface_voxels(mask: np.ndarray, neighbors: int = 6) -> np.ndarray:
    """The voxels of ``mask (*C)`` that have a neighbor outside the mask or outside the array."""
    padded = np.pad(mask, 1)
    inside = mask.copy()
    element = neighborhood(neighbors, mask.ndim)
    for offset in product((-1, 0, 1), repeat=mask.ndim):
        if any(offset) and element[tuple(step + 1 for step in offset)]:
            inside &= padded[tuple(slice(1 + s, 1 + s + n) for s, n in zip(offset, mask.shape, strict=True))]
    return mask & ~inside


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed lines around every part and hole of ``mask``, points (n, 2) as row and column; the last is the first."""
    from skimage.measure import find_contours  # slow to import, and only pictures and contours need it

    return [line - 1 for line in find_contours(np.pad(mask, 1).astype(np.float32), 0.5)]
