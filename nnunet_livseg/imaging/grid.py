"""Whether two images lie on one grid, asked of where their corners lie in the patient."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk

ROUNDING_VOXELS = 0.1  # headers closer than this mean the same grid


@dataclass(frozen=True)
class GridDifference:
    """One part of two grids that is not the same: ``shape (z, y, x)``, ``spacing``, ``origin`` or ``direction``.

    Args:
        part: Its name.
        one, other: Both values; all but the shape as in ITK (x, y, z).
    """

    part: str
    one: tuple[float, ...]
    other: tuple[float, ...]

    def values(self) -> tuple[str, str]:
        """Both values with as many digits as tell them apart."""
        short, long = ([_text(v, digits) for v in (self.one, self.other)] for digits in (6, 10))
        return tuple(short if short[0] != short[1] else long)

    def text(self, one: str, other: str) -> str:
        """Both values behind the names of the two images."""
        mine, theirs = self.values()
        order = {"shape": " (z, y, x)", "direction": " (by rows)"}.get(self.part, " (x, y, z)")
        return f"{self.part}{order}: {one} {mine}, {other} {theirs}"


@dataclass(frozen=True)
class ImageGrid:
    """Where the voxels of an image lie, without the voxels; everything x, y, z as in ITK.

    Args:
        size: Voxels.
        spacing_mm: Voxel size.
        origin_mm: Center of the first voxel.
        direction: Cosines by rows; the columns are the axes of the array.
    """

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: "sitk.Image | ImageGrid") -> "ImageGrid":
        """The grid of an image; a grid is its own."""
        if isinstance(image, ImageGrid):
            return image
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def image(self, values: np.ndarray) -> sitk.Image:
        """``values (z, y, x)`` as an image on this grid."""
        made = sitk.GetImageFromArray(values)
        made.SetSpacing(self.spacing_mm)
        made.SetOrigin(self.origin_mm)
        made.SetDirection(self.direction)
        return made

    def corners_mm(self, *, outer: bool = False) -> np.ndarray:
        """Positions of the centers of the corner voxels, or of their ``outer`` corners, ``(2 ** dim, dim)``."""
        edge, dim = 0.5 if outer else 0.0, len(self.size)
        indices = np.array(list(product(*((-edge, size - 1 + edge) for size in self.size))))
        axes = np.reshape(self.direction, (dim, dim)) * self.spacing_mm
        return np.asarray(self.origin_mm) + indices @ axes.T


def spacing_of(image: sitk.Image) -> tuple[float, ...]:
    """Spacing in mm, (z, y, x)."""
    return image.GetSpacing()[::-1]


def distance_mm(image: sitk.Image | ImageGrid, other: sitk.Image | ImageGrid) -> float:
    """How far the outer corners of two images of one size lie apart at most."""
    ours, theirs = (ImageGrid.of(one).corners_mm(outer=True) for one in (image, other))
    return float(np.linalg.norm(ours - theirs, axis=1).max())


def grid_differences(
    one: sitk.Image | ImageGrid, other: sitk.Image | ImageGrid, *, tolerance_voxels: float = ROUNDING_VOXELS
) -> tuple[GridDifference, ...]:
    """Every part in which two grids differ; empty exactly where they are one grid.

    They are one grid where all outer corners lie within ``tolerance_voxels`` of the smallest voxel size: what looks
    like rounding adds up over an image, and an image of one slice has a thickness.
    """
    one, other = ImageGrid.of(one), ImageGrid.of(other)
    if one.size != other.size:
        return (GridDifference("shape", one.size[::-1], other.size[::-1]),)
    allowed_mm = tolerance_voxels * min(*one.spacing_mm, *other.spacing_mm)
    if distance_mm(one, other) <= allowed_mm:
        return ()
    longest = max(one.size)
    reach = {"spacing": longest, "origin": 1, "direction": longest * max(one.spacing_mm)}  # mm at the far corner
    parts = (
        GridDifference("spacing", one.spacing_mm, other.spacing_mm),
        GridDifference("origin", one.origin_mm, other.origin_mm),
        GridDifference("direction", one.direction, other.direction),
    )
    moved_mm = [float(np.abs(np.subtract(p.one, p.other)).max()) * reach[p.part] for p in parts]
    largest = np.nanmax([0.0, *moved_mm])
    return tuple(p for p, mm in zip(parts, moved_mm, strict=True) if not mm <= min(allowed_mm, largest) / 10)


def same_grid(one: sitk.Image, other: sitk.Image) -> bool:
    """Whether ``grid_differences`` finds none."""
    return not grid_differences(one, other)


def spelled(differences: Collection[GridDifference], one: str, other: str) -> str:
    """All differences in one line, the values behind the names of the two images."""
    return "; ".join(difference.text(one, other) for difference in differences)


def _text(values: tuple[float, ...], digits: int) -> str:
    return "(" + ", ".join(f"{float(value):.{digits}g}" for value in values) + ")"
