"""A mask of one slice as closed polygons, and back.

Polygons run halfway between the centers of inner and outer pixels (marching squares), so a mask that is traced and
filled again is the same mask. A hole is joined to its outline by a channel without width, the keyhole of DICOM
PS3.3 C.8.8.6.3; filling counts crossings (even-odd), so it reads keyholes and separate inner polygons alike.
"""

# Shapes: mask (rows, columns); polygons (n, 2) as x, y in pixels, 0 at the center of the first pixel

from collections.abc import Iterable

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import cdist

from nnunet_livseg.imaging.masks import outlines

_DIGITS = 4  # of a pixel; a center that lies on a line by rounding alone must not depend on the rounding


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """One polygon for each part of ``mask`` that is connected through edges, holes included."""
    parts, _ = ndimage.label(mask)
    polygons = []
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        closed = [_corners(line[:-1, ::-1]) for line in outlines(parts[box] == number)]
        corner = [box[1].start, box[0].start]
        polygons.append(_with_keyholes(sorted(closed, key=_area, reverse=True)) + corner)
    return polygons


def fill(polygons: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centers lie inside an odd number of ``polygons``, as a mask of ``shape``."""
    rows, columns = shape
    crossings = np.zeros((rows, columns + 1), np.int32)
    for polygon in polygons:
        x0, y0 = np.round(polygon, _DIGITS).T
        x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
        low, high = (np.ceil(edge(y0, y1)).clip(0, rows).astype(int) for edge in (np.minimum, np.maximum))
        counts = high - low
        edges = np.repeat(np.arange(len(counts)), counts)
        row = low[edges] + np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts)
        x = x0[edges] + (row - y0[edges]) * (x1 - x0)[edges] / (y1 - y0)[edges]
        np.add.at(crossings, (row, np.ceil(np.round(x, _DIGITS)).clip(0, columns).astype(int)), 1)
    return np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1


def _corners(outline: np.ndarray) -> np.ndarray:
    """Without the points on straight lines."""
    before, after = outline - np.roll(outline, 1, axis=0), np.roll(outline, -1, axis=0) - outline
    return outline[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _with_keyholes(closed: list[np.ndarray]) -> np.ndarray:
    """The first outline joined to all others, the nearest first, so that no channel runs through another hole."""
    joined, holes = closed[0], closed[1:]
    while holes:
        distances = [cdist(joined, hole) for hole in holes]
        nearest = int(np.argmin([one.min() for one in distances]))
        at, start = np.unravel_index(distances[nearest].argmin(), distances[nearest].shape)
        hole = np.roll(holes.pop(nearest), -start, axis=0)
        joined = np.concatenate([joined[: at + 1], hole, hole[:1], joined[at:]])
    return joined
