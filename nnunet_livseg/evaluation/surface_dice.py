"""Surface Dice at a tolerance with surface elements weighted by their area.

Nikolov et al., "Clinically applicable segmentation of head and neck anatomy", arXiv:1809.04430, section "Surface DSC".
The mask's surface is triangulated (marching cubes): each corner point of the voxel grid sees 2 voxels per axis, the
pattern of these gives the area that belongs to the point, and distances run between such points. The area of each
pattern follows google-deepmind/surface-distance (Apache-2.0, Copyright 2018 Google Inc.), whose values are reproduced.
"""

# Shapes: *C the joint bounding box; *G its corner points, one more per axis; N surface points

from functools import lru_cache
from itertools import product

import numpy as np

from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.surface_distances import directed_distances_mm, with_slack

# Facets of a pattern, one letter each: their absolute normals (z, y, x) in eighths of a voxel face
_NORMALS = {
    "a": (0, 0, 4),
    "b": (0, 2, 2),
    "c": (0, 4, 0),
    "d": (1, 1, 1),
    "e": (2, 0, 2),
    "f": (2, 2, 0),
    "g": (2, 2, 2),
    "h": (3, 3, 3),
    "i": (4, 0, 0),
}
# Patterns 0 to 127, the bit of the first voxel highest; pattern 255 - k has the facets of pattern k
_FACETS = """
- d d ff d ee dd dgi d dd ee dgi ff dgi dgi ii d bb dd cdg dd adg ddd ddgg dd bbd dee bdeh dff bdfh ddgi dgi d
dd bb cdg dd dee bbd bdeh dd ddd adg ddgg dff ddgi bdfh dgi ff cdg cdg cc dff defh cddg cdg dff cddg defh cdg
ffff dff dff ff d dd dd dff bb adg bbd bdfh dd ddd dee ddgi cdg ddgg bdeh dgi ee adg dee defh adg aa addg adg
dee addg eeee dee defh adg dee ee dd ddd bbd cddg bbd addg bbbb bbd ddd dddd addg ddd cddg ddd bbd dd dgi ddgg
bdeh cdg bdfh adg bbd bb ddgi ddd dee dd dff dd dd d
""".split()  # noqa: SIM905 - 128 strings one by one are unreadable


@lru_cache(maxsize=64)
def _areas_mm2(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Area of each of the 256 patterns of 2 x 2 x 2 voxels."""
    z, y, x = spacing_mm
    facet = {k: float(np.linalg.norm(np.multiply(n, (y * x, z * x, z * y)) / 8)) for k, n in _NORMALS.items()}
    half = [sum(facet[letter] for letter in word.strip("-")) for word in _FACETS]
    return np.array(half + half[::-1])


@lru_cache(maxsize=64)
def _lengths_mm(spacing_mm: tuple[float, float]) -> np.ndarray:
    """Contour length of each of the 16 patterns of 2 x 2 pixels."""
    y, x = spacing_mm
    corner = 0.5 * float(np.hypot(y, x))
    half = [0.0, corner, corner, x, corner, y, 2 * corner, corner]
    return np.array(half + half[::-1])


def _patterns(mask: np.ndarray) -> np.ndarray:
    """The pattern of voxels around each corner point of ``mask (*C)``: ``(*G)``, uint8."""
    padded = np.pad(mask, 1).view(np.uint8)
    patterns = np.zeros([n + 1 for n in mask.shape], dtype=np.uint8)
    for offset in product((0, 1), repeat=mask.ndim):
        patterns <<= 1
        patterns |= padded[tuple(slice(step, step + n) for step, n in zip(offset, patterns.shape, strict=True))]
    return patterns


def surface_dice(pair: MaskPair, tolerances_mm: tuple[float, ...]) -> dict[float, float]:
    """Share of both surfaces' area (2D: contour length) within each tolerance of the other surface.

    NaN where both masks are empty, 0 where one is.
    """
    if pair.n_predicted == 0 or pair.n_reference == 0:
        return dict.fromkeys(tolerances_mm, np.nan if pair.n_predicted == pair.n_reference else 0.0)
    table = (_areas_mm2 if pair.predicted.ndim == 3 else _lengths_mm)(pair.spacing_mm)
    patterns = [_patterns(mask) for mask in (pair.predicted, pair.reference)]
    full = len(table) - 1
    borders = [(pattern != 0) & (pattern != full) for pattern in patterns]
    areas = [table[pattern[border]] for pattern, border in zip(patterns, borders, strict=True)]
    del patterns
    limit = with_slack(with_slack(max(tolerances_mm, default=0.0)))  # nothing farther away needs to be found
    distances = [
        directed_distances_mm(one, other, pair.spacing_mm, limit_mm=limit) for one, other in (borders, borders[::-1])
    ]
    total = sum(area.sum() for area in areas)
    return {t: float(_within(distances, areas, t) / total) for t in tolerances_mm}


def _within(distances: list[np.ndarray], areas: list[np.ndarray], tolerance_mm: float) -> float:
    return sum(area[d <= with_slack(tolerance_mm)].sum() for d, area in zip(distances, areas, strict=True))
