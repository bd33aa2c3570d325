"""Where the slices of a series lie: order, spacing, gaps, tilt. Positions decide; file names and numbers do not.

Slices are sorted by their position projected on the slice normal (row x column direction), as DICOM PS3.3 C.7.6.2.1.1
defines it. This module names every departure from one even, right-angled stack. ``reading`` repairs or rejects it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.dicom.headers import Slice

SAME_PLANE = 1e-3  # of each direction cosine, against the mean of the stack
_UNEVEN = 0.05  # of the slice distance
_UNEVEN_MM = 0.1  # positions are often rounded to 0.1 mm
_TILT_PIXELS = 0.25  # drift over the whole stack below which a tilt does not matter
_SAME_MM = 0.01


@dataclass(frozen=True)
class Stack:
    """Geometry of a series.

    Args:
        order: Indices of the slices along the normal, one per position.
        duplicates: For each of them, the further slices at the same position.
        origin_mm: Position of the first voxel of the first slice, patient x, y, z.
        direction: Columns are the directions of the array's x, y and z axes.
        spacing_mm: Slice, row, column distance (z, y, x).
        heights_mm: Slice positions along the normal, from 0 upwards.
        shear: In-plane movement (along x, along y) in mm per mm along the normal; not zero for a tilted gantry.
        missing: Heights at which a slice of an otherwise even stack is missing.
        uneven: Whether slice distances differ without being a multiple of one.
    """

    order: tuple[int, ...]
    duplicates: tuple[tuple[int, ...], ...]
    origin_mm: np.ndarray
    direction: np.ndarray
    spacing_mm: tuple[float, float, float]
    heights_mm: np.ndarray
    shear: np.ndarray
    missing: tuple[float, ...] = ()
    uneven: bool = False

    @property
    def tilt_degrees(self) -> float:
        return float(np.degrees(np.arctan(np.linalg.norm(self.shear))))

    @property
    def irregular(self) -> str:
        """Why slices would have to be interpolated; empty if they need not."""
        if self.missing:
            places = ", ".join(f"{height:.1f}" for height in self.missing[:5]) + (
                ", ..." if len(self.missing) > 5 else ""
            )
            count = "1 slice is" if len(self.missing) == 1 else f"{len(self.missing)} slices are"
            return f"{count} missing, at {places} mm above the lowest"
        if self.uneven:
            steps = np.diff(self.heights_mm)
            return f"slice distances are uneven ({steps.min():.2f} to {steps.max():.2f} mm)"
        return ""


def stack(slices: Sequence[Slice]) -> Stack:
    """Sort slices into a stack.

    Raises:
        UserError: Positions, orientations or pixel spacing are missing, planes differ, all slices are at one place, or
            slices are shifted sideways irregularly.
    """
    _require_tags(slices)
    axes = _axes(slices)
    normal = np.cross(*axes)
    positions = np.array([one.position_mm for one in slices])
    heights = positions @ normal
    groups = _same_place(heights)
    if len(groups) < 2:
        raise UserError("all slices lie at the same position, so they form no volume")
    order = [min(group, key=lambda index: slices[index].instance) for group in groups]
    twins = tuple(tuple(index for index in group if index != first) for group, first in zip(groups, order, strict=True))
    places = positions[order]
    stacked = heights[order] - heights[order[0]]
    spacing_y, spacing_x = slices[order[0]].spacing_mm
    shear = _drift(places, stacked, axes, pixel_mm=min(spacing_x, spacing_y))
    step, missing, uneven = _steps(stacked)
    return Stack(
        tuple(order),
        twins,
        places[0],
        np.stack([*axes, normal], axis=1),
        (step, spacing_y, spacing_x),
        stacked,
        shear,
        missing,
        uneven,
    )


def _require_tags(slices: Sequence[Slice]) -> None:
    wanted = {
        "ImagePositionPatient": "position_mm",
        "ImageOrientationPatient": "axes",
        "PixelSpacing": "spacing_mm",
    }
    for keyword, attribute in wanted.items():
        lacking = [one for one in slices if getattr(one, attribute) is None]
        if lacking:
            raise UserError(
                f"{len(lacking)} of {len(slices)} slices have no valid {keyword} (the first: {lacking[0].path.name});"
                " without it the slices cannot be put in place"
            )
    if any(min(one.spacing_mm) <= 0 for one in slices):
        raise UserError("PixelSpacing is not positive")


def _axes(slices: Sequence[Slice]) -> np.ndarray:
    """The common row and column directions ``(2, 3)``, of length one and at right angles."""
    axes = np.mean([one.axes for one in slices], axis=0)
    if np.abs([one.axes - axes for one in slices]).max() > SAME_PLANE:
        raise UserError("the slices lie in different planes (ImageOrientationPatient differs between them)")
    lengths = np.linalg.norm(axes, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(axes[0] @ axes[1]) > 0.01:
        shown = np.round(axes.ravel(), 4).tolist()
        raise UserError(f"ImageOrientationPatient {shown} is not a pair of right-angled axes")
    row = axes[0] / lengths[0]
    column = axes[1] - (axes[1] @ row) * row
    return np.stack([row, column / np.linalg.norm(column)])


def _same_place(heights: np.ndarray) -> list[list[int]]:
    """Slices per position, lowest first."""
    groups: dict[int, list[int]] = defaultdict(list)
    last, group = None, -1
    for index in np.argsort(heights, kind="stable").tolist():
        if last is None or heights[index] - last > _SAME_MM:
            group += 1
            last = heights[index]
        groups[group].append(index)
    return list(groups.values())


def _drift(places: np.ndarray, heights: np.ndarray, axes: np.ndarray, *, pixel_mm: float) -> np.ndarray:
    """Sideways movement in mm per mm of height; zero below what a quarter of a pixel shows."""
    sideways = (places - places[0]) @ axes.T
    slope = heights @ sideways / (heights @ heights)
    left = np.abs(sideways - np.outer(heights, slope)).max()
    if left > max(_UNEVEN_MM, _TILT_PIXELS * pixel_mm):
        raise UserError(f"slices are shifted sideways irregularly (up to {left:.1f} mm), so they form no stack")
    return slope if np.abs(slope * heights[-1]).max() > _TILT_PIXELS * pixel_mm else np.zeros(2)


def _steps(heights: np.ndarray) -> tuple[float, tuple[float, ...], bool]:
    """Slice distance, heights of missing slices, and whether distances are uneven."""
    mean = float(heights[-1] / (len(heights) - 1))
    if np.abs(heights - mean * np.arange(len(heights))).max() <= max(_UNEVEN_MM, _UNEVEN * mean):
        return mean, (), False
    steps = np.diff(heights)
    step = float(np.median(steps[steps <= 1.5 * steps.min()]))
    places = np.rint(heights / step).astype(int)
    if np.abs(heights - places * step).max() <= max(_UNEVEN_MM, _UNEVEN * step) and len(set(places)) == len(places):
        step = float(heights @ places / (places @ places))  # least squares: rounded positions do not add up
        return step, tuple(float(step * place) for place in range(places[-1]) if place not in places), False
    return float(np.median(steps)), (), True
