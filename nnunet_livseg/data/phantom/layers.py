"""Layers, and the canvas on which they are painted over each other."""

from dataclasses import dataclass, field

import numpy as np

from nnunet_livseg.data.phantom.fields import Array, Grid, SmoothNoise, coverage
from nnunet_livseg.data.phantom.shapes import Shape
from nnunet_livseg.data.phantom.tissues import TISSUES

TISSUE_CODES = {name: code for code, name in enumerate(TISSUES)}
WARP_MM = 3.0  # standard deviation of the displacement that makes organs uneven


@dataclass(frozen=True)
class Layer:
    """A shape filled with a tissue.

    Args:
        shape: Where.
        tissue: Name in ``TISSUES``; for a part of a tumor its name in ``TUMOR_TISSUES``.
        hu: Mean HU in each phase; ``None`` leaves a phase as it is.
        texture: Standard deviation of the structure inside, in HU.
        role: ``"organ"`` covers the liver, ``"liver"`` is liver, ``"in liver"`` shows only inside the liver and
            belongs to it (its vessels), ``"tumor"`` shows only inside the liver and gets the tumor label.
        lesion: Number of the tumor, from 1, for the layer that is a tumor's body; 0 for all others.
    """

    shape: Shape
    tissue: str
    hu: tuple[float | None, ...]
    texture: float = 0.0
    role: str = "organ"
    lesion: int = 0


@dataclass
class Textures:
    """The random fields of one patient: displacement (z, y, x) and tissue structure."""

    warp: tuple[SmoothNoise, SmoothNoise, SmoothNoise]
    fine: SmoothNoise
    coarse: SmoothNoise

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Textures":
        return cls(
            warp=tuple(SmoothNoise(rng, 42.0) for _ in range(3)),
            fine=SmoothNoise(rng, 4.0, nodes=40),
            coarse=SmoothNoise(rng, 14.0),
        )


@dataclass
class Canvas:
    """Some slices of a case while they are painted.

    Args:
        grid: The whole case's voxel grid.
        slices: First slice and the one after the last; may lie outside the grid.
        textures: The patient's random fields.
        phases: Number of phases.
    """

    grid: Grid
    slices: tuple[int, int]
    textures: Textures
    phases: int
    hu: Array = field(init=False)  # (phases, Z, Y, X)
    liver: Array = field(init=False)  # share of the voxel that is liver
    lesion: Array = field(init=False)  # number of the tumor, 0 elsewhere
    tissue: Array = field(init=False)  # code of the tissue that fills most of the voxel

    def __post_init__(self) -> None:
        self.axes = self.grid.axes(*self.slices)
        warp = (WARP_MM * noise.on_axes(self.axes) for noise in self.textures.warp)
        self.coordinates = tuple(axis + shift for axis, shift in zip(self.axes, warp, strict=True))
        shape = self.coordinates[0].shape
        fine = min(1.0, self.textures.fine.pitch_mm / float(np.mean(self.grid.spacing_mm)))  # thick voxels average it
        self.structure = 0.8 * fine * self.textures.fine.on_axes(self.axes) + 0.6 * self.textures.coarse.on_axes(
            self.axes
        )
        self.hu = np.full((self.phases, *shape), TISSUES["air"].portal, np.float32)
        self.liver = np.zeros(shape, np.float32)
        self.lesion = np.zeros(shape, np.uint8)
        self.tissue = np.zeros(shape, np.uint8)

    def paint(self, layer: Layer) -> None:
        """Put ``layer`` over what is there."""
        region = self._region(layer)
        if region is None:
            return
        alpha = coverage(layer.shape(*(c[region] for c in self.coordinates)), min(self.grid.spacing_mm))
        alpha *= self._opacity(layer)
        if layer.role in ("in liver", "tumor"):
            alpha *= self.liver[region]
        structure = layer.texture * self.structure[region] if layer.texture else 0.0
        for image, hu in zip(self.hu, layer.hu, strict=False):
            if hu is not None:
                view = image[region]
                view += alpha * (hu + structure - view)
        self._mark(layer, region, alpha)

    def _mark(self, layer: Layer, region: tuple[slice, ...], alpha: Array) -> None:
        mostly = alpha > 0.5
        if layer.role == "organ":
            self.liver[region] *= 1 - alpha
        elif layer.role == "liver":
            np.maximum(self.liver[region], alpha, out=self.liver[region])
        if layer.lesion:
            self.lesion[region][mostly] = layer.lesion
        if layer.tissue in TISSUE_CODES:
            self.tissue[region][mostly] = TISSUE_CODES[layer.tissue]

    def _region(self, layer: Layer) -> tuple[slice, ...] | None:
        """Index box of the layer's bounds, at least two voxels wide; None where it does not meet the canvas."""
        region = []
        for axis, spacing, (low, high) in zip(self.axes, self.grid.spacing_mm, layer.shape.bounds, strict=True):
            margin = 3 * WARP_MM + spacing
            first, last = np.searchsorted(axis.ravel(), [low - margin, high + margin])
            if last <= first:
                return None
            size = axis.size
            first, last = max(int(first) - 1, 0), min(int(last) + 1, size)
            region.append(slice(first, last))
        return tuple(region)

    def _opacity(self, layer: Layer) -> float:
        """A tube thinner than the voxels fills only a part of them."""
        voxel_area = self.grid.spacing_mm[1] * self.grid.spacing_mm[2]
        return min(1.0, float(0.785 * layer.shape.thickness_mm**2 / voxel_area))
