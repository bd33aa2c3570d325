"""Grids, smooth random fields in millimeters, and how much of a voxel lies inside a shape."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray
Vector = tuple[float, float, float]  # (z, y, x) in mm


@dataclass(frozen=True)
class Grid:
    """Voxel centers in patient millimeters: x to the patient's left, y to the back, z to the head; order (z, y, x).

    Args:
        size: Voxels (Z, Y, X).
        spacing_mm: Distance of voxel centers (z, y, x).
        center_mm: The middle of the grid (z, y, x).
    """

    size: tuple[int, int, int]
    spacing_mm: Vector
    center_mm: Vector = (0.0, 0.0, 0.0)

    @cached_property
    def origin_mm(self) -> Vector:
        """Center of the first voxel (z, y, x)."""
        return tuple(c - (n - 1) / 2 * s for c, n, s in zip(self.center_mm, self.size, self.spacing_mm, strict=True))

    @cached_property
    def voxel_ml(self) -> float:
        """Volume of one voxel in milliliters."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    def axes(self, first_slice: int, last_slice: int) -> tuple[Array, Array, Array]:
        """Coordinates z, y, x in mm of the slices ``first_slice .. last_slice - 1``, shaped to broadcast."""
        ranges = ((first_slice, last_slice), (0, self.size[1]), (0, self.size[2]))
        z, y, x = (
            (origin + np.arange(*r) * spacing).astype(np.float32)
            for origin, spacing, r in zip(self.origin_mm, self.spacing_mm, ranges, strict=True)
        )
        return z[:, None, None], y[None, :, None], x[None, None, :]


class SmoothNoise:
    """A smooth random function of space with mean 0 and standard deviation 1: a periodic lattice, cubic B-splines.

    It is defined in millimeters, so every grid samples the same function.

    Args:
        rng: Source of the lattice values.
        pitch_mm: Distance of lattice points: the size of the structures.
        nodes: Lattice points per axis; the field repeats after ``nodes * pitch_mm``.
    """

    def __init__(self, rng: np.random.Generator, pitch_mm: float, *, nodes: int = 24) -> None:
        self.pitch_mm = pitch_mm
        lattice = rng.standard_normal((nodes, nodes, nodes), dtype=np.float32)
        self.lattice = lattice / np.float32(0.33)  # 0.33: standard deviation that the spline leaves of white noise

    def on_axes(self, axes: tuple[Array, Array, Array]) -> Array:
        """Values on the grid that broadcasting ``axes`` (z, y, x in mm) spans, one axis after the other."""
        values = self.lattice
        for axis, coordinate in enumerate(axes):
            values = self._along(values, coordinate.ravel(), axis)
        return values

    def at(self, *point_mm: Array) -> Array:
        """Values at scattered points z, y, x (arrays of one shape), trilinear: for small shapes only."""
        nodes = self.lattice.shape[0]
        lower, weight = zip(*(self._cell(p) for p in np.broadcast_arrays(*point_mm)), strict=True)
        total = np.zeros(lower[0].shape, np.float32)
        for corner in np.ndindex(2, 2, 2):
            index = tuple((low + c) % nodes for low, c in zip(lower, corner, strict=True))
            factor = [w if c else 1 - w for w, c in zip(weight, corner, strict=True)]
            total += factor[0] * factor[1] * factor[2] * self.lattice[index]
        return total * np.float32(0.33 / 0.544)  # 0.544: what trilinear interpolation leaves

    def _cell(self, coordinate: Array) -> tuple[Array, Array]:
        scaled = coordinate / np.float32(self.pitch_mm)
        lower = np.floor(scaled)
        return lower.astype(np.intp), (scaled - lower).astype(np.float32)

    def _along(self, values: Array, coordinate: Array, axis: int) -> Array:
        lower, t = self._cell(coordinate)
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        shape = [1, 1, 1]
        shape[axis] = -1
        return sum(
            values.take((lower + tap - 1) % values.shape[axis], axis=axis) * (weight / 6).reshape(shape)
            for tap, weight in enumerate(weights)
        )


def coverage(distance: Array, smallest_step: float) -> Array:
    """Share of each voxel inside a shape, from its implicit function ``distance`` (negative inside) at voxel centers.

    Inside a voxel the function is taken as linear. Its values over the voxel then spread by the root of the summed
    squared steps per voxel, which is the width of the ramp from 0 to 1: a slice of 5 mm blurs a slanted surface and
    leaves a vertical one sharp, as in a CT. 0.5 is the surface.

    Args:
        distance: Implicit function, roughly in mm, shape (Z, Y, X), at least two voxels per axis.
        smallest_step: Lower bound of the width, in mm; it keeps the axis of a thin vessel from division by zero.
    """
    square = np.full_like(distance, smallest_step**2)
    steps = sum(np.square(step) for step in np.gradient(distance))
    np.maximum(square, steps, out=square)
    return np.clip(0.5 - distance / np.sqrt(square), 0, 1)
