"""Implicit shapes in millimeters: negative inside, zero on the surface, roughly the distance in mm near it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_livseg.data.phantom.fields import Array, SmoothNoise, Vector

EVERYWHERE = ((-np.inf, np.inf),) * 3
Bounds = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]  # (low, high) of z, y, x in mm


@dataclass(frozen=True)
class Shape:
    """A region of space.

    Args:
        function: Maps coordinate arrays z, y, x (mm) to the implicit function.
        bounds: Box that holds the region; only voxels in it are visited.
        thickness_mm: Smallest width, for tubes thinner than a voxel: they cannot fill it.
    """

    function: Callable[[Array, Array, Array], Array]
    bounds: Bounds = EVERYWHERE
    thickness_mm: float = np.inf

    def __call__(self, z: Array, y: Array, x: Array) -> Array:
        return self.function(z, y, x)

    def grown(self, by_mm: float) -> "Shape":
        """The shape with its surface moved outwards (inwards if negative)."""
        bounds = tuple((low - max(by_mm, 0), high + max(by_mm, 0)) for low, high in self.bounds)
        return Shape(lambda z, y, x: self(z, y, x) - by_mm, bounds)

    def __and__(self, other: "Shape") -> "Shape":
        bounds = tuple((max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(self.bounds, other.bounds, strict=True))
        return Shape(lambda *p: np.maximum(self(*p), other(*p)), bounds)

    def __or__(self, other: "Shape") -> "Shape":
        return Shape(lambda *p: np.minimum(self(*p), other(*p)), _hull(self.bounds, other.bounds))

    def __sub__(self, other: "Shape") -> "Shape":
        return Shape(lambda *p: np.maximum(self(*p), -other(*p)), self.bounds)

    def roughened(self, noise: SmoothNoise, amplitude_mm: float) -> "Shape":
        """The shape with an uneven surface; for small shapes (the noise is evaluated point by point)."""
        grown = self.grown(2.5 * amplitude_mm)
        return Shape(lambda *p: self(*p) + amplitude_mm * noise.at(*p), grown.bounds)


def _hull(*boxes: Bounds) -> Bounds:
    return tuple((min(b[axis][0] for b in boxes), max(b[axis][1] for b in boxes)) for axis in range(3))


def smooth_union(shapes: Sequence[Shape], blend_mm: float) -> Shape:
    """Union whose inner edges are rounded over about ``blend_mm`` (polynomial smooth minimum)."""

    def function(z: Array, y: Array, x: Array) -> Array:
        result = shapes[0](z, y, x)
        for shape in shapes[1:]:
            other = shape(z, y, x)
            mix = np.maximum(blend_mm - np.abs(result - other), 0) / blend_mm
            result = np.minimum(result, other) - mix * mix * (blend_mm / 4)
        return result

    return Shape(function, _hull(*(shape.bounds for shape in shapes)))


def smooth_cut(shape: Shape, cutter: Shape, blend_mm: float) -> Shape:
    """Intersection with ``cutter`` whose edge is rounded over about ``blend_mm``."""

    def function(z: Array, y: Array, x: Array) -> Array:
        first, second = shape(z, y, x), cutter(z, y, x)
        mix = np.maximum(blend_mm - np.abs(first - second), 0) / blend_mm
        return np.maximum(first, second) + mix * mix * (blend_mm / 4)

    return Shape(function, shape.bounds)


def rotation(roll: float = 0.0, pitch: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """Matrix for (z, y, x) vectors, in degrees: roll in the axial plane, pitch in the sagittal, yaw in the coronal."""
    matrix = np.eye(3)
    for (a, b), degrees in (((1, 2), roll), ((0, 1), pitch), ((0, 2), yaw)):
        turn = np.eye(3)
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        matrix = turn @ matrix
    return matrix


def ellipsoid(center: Vector, radii: Vector, *, turn: np.ndarray | None = None, power: float = 2.0) -> Shape:
    """Ellipsoid, or superellipsoid (boxier) for ``power`` above 2; ``turn`` rotates it about its center."""
    scale = float(np.prod(radii)) ** (1 / 3)
    inverse = (np.eye(3) if turn is None else turn.T) / np.asarray(radii)[:, None]
    inverse = [[float(value) for value in row] for row in inverse]
    reach = max(radii) * (1.0 if turn is None else 1.1) * (1.0 if power == 2 else 1.2)
    half = radii if turn is None else (reach,) * 3

    def function(z: Array, y: Array, x: Array) -> Array:
        p = (z - center[0], y - center[1], x - center[2])
        total = 0.0
        for row in inverse:
            u = sum(value * q for value, q in zip(row, p, strict=True) if abs(value) > 1e-9)
            total = total + (u * u if power == 2 else np.abs(u) ** power)
        return (np.sqrt(total) - 1) * scale if power == 2 else (total ** (1 / power) - 1) * scale

    return Shape(function, tuple((c - h, c + h) for c, h in zip(center, half, strict=True)))


def cylinder(center_yx: tuple[float, float], radii_yx: tuple[float, float], *, power: float = 2.0) -> Shape:
    """Endless (super)elliptic cylinder along z."""
    scale = float(np.sqrt(radii_yx[0] * radii_yx[1]))
    bounds = ((-np.inf, np.inf), *((c - r, c + r) for c, r in zip(center_yx, radii_yx, strict=True)))

    def function(z: Array, y: Array, x: Array) -> Array:
        v, u = (y - center_yx[0]) / radii_yx[0], (x - center_yx[1]) / radii_yx[1]
        if power == 2:
            return (np.sqrt(v * v + u * u) - 1) * scale + 0 * z
        return ((np.abs(v) ** power + np.abs(u) ** power) ** (1 / power) - 1) * scale + 0 * z

    return Shape(function, bounds)


def half_space(normal: Vector, offset_mm: float) -> Shape:
    """Everything behind the plane ``normal . p = offset_mm`` (the normal points outwards)."""
    n = np.asarray(normal, float) / np.linalg.norm(normal)
    a, b, c = (float(v) for v in n)
    return Shape(lambda z, y, x: a * z + b * y + c * x - offset_mm)


def capsule(start: Vector, end: Vector, radius_start: float, radius_end: float) -> Shape:
    """A rounded segment whose radius runs from ``radius_start`` to ``radius_end``."""
    axis = [e - s for s, e in zip(start, end, strict=True)]
    length_squared = max(sum(a * a for a in axis), 1e-6)
    reach = max(radius_start, radius_end)
    bounds = tuple((min(s, e) - reach, max(s, e) + reach) for s, e in zip(start, end, strict=True))

    def function(z: Array, y: Array, x: Array) -> Array:
        p = (z - start[0], y - start[1], x - start[2])
        t = np.clip(sum(a * q for a, q in zip(axis, p, strict=True)) / length_squared, 0, 1)
        square = sum((q - t * a) ** 2 for a, q in zip(axis, p, strict=True))
        return np.sqrt(square) - (radius_start + (radius_end - radius_start) * t)

    return Shape(function, bounds, thickness_mm=2 * min(radius_start, radius_end))


def tube(points: Sequence[Vector], radii: Sequence[float] | float) -> list[Shape]:
    """A chain of capsules through ``points``; one radius, or one per point."""
    radii = [radii] * len(points) if isinstance(radii, int | float) else list(radii)
    return [capsule(a, b, ra, rb) for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)]
