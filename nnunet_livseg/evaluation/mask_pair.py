"""Two masks on one grid, cut down to the box that holds both, and what can be counted on them."""

# Shapes: *S the image's spatial sizes (z, y, x) or (y, x); *C the sizes of the joint bounding box

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnunet_livseg.imaging.masks import bounding_box


@dataclass(frozen=True)
class MaskPair:
    """A predicted and a reference mask ``(*C)`` cropped to the box that holds both.

    Args:
        predicted: Boolean mask ``(*C)``.
        reference: Boolean mask ``(*C)``.
        spacing_mm: Voxel spacing per axis, ``(z, y, x)`` or ``(y, x)``; 1 for images in pixels.
        n_voxels: Number of voxels of the whole image (true negatives are counted over it).
        shape: Sizes of the whole image.
        corner: Index of the box's first voxel in the whole image.
        slice_pixels: Pixels that count in each axial slice of the box ``(C[0],)``; ``None``: all of the image's.
    """

    predicted: np.ndarray
    reference: np.ndarray
    spacing_mm: tuple[float, ...]
    n_voxels: int
    shape: tuple[int, ...]
    corner: tuple[int, ...] = ()
    slice_pixels: np.ndarray | None = None

    @classmethod
    def of(
        cls, predicted: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...], *, n_voxels: int | None = None
    ) -> "MaskPair":
        """Crop two boolean masks ``(*S)``.

        Raises:
            ValueError: Shapes, dimensions and spacing do not fit together.
        """
        if predicted.shape != reference.shape:
            raise ValueError(f"prediction has shape {predicted.shape}, reference {reference.shape}: the grids differ")
        if len(spacing_mm) != reference.ndim or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
            raise ValueError(f"spacing {spacing_mm} must have one positive number per axis of shape {reference.shape}")
        predicted, reference = predicted.astype(bool, copy=False), reference.astype(bool, copy=False)
        box = bounding_box(predicted | reference)
        spacing = tuple(float(s) for s in spacing_mm)
        n_voxels = reference.size if n_voxels is None else n_voxels
        masks = (np.ascontiguousarray(mask[box]) for mask in (predicted, reference))
        return cls(*masks, spacing, n_voxels, reference.shape, tuple(part.start for part in box))

    @cached_property
    def n_predicted(self) -> int:
        return int(np.count_nonzero(self.predicted))

    @cached_property
    def n_reference(self) -> int:
        return int(np.count_nonzero(self.reference))

    @cached_property
    def n_both(self) -> int:
        return int(np.count_nonzero(self.predicted & self.reference))

    @property
    def diagonal_mm(self) -> float:
        """Length of the whole image's diagonal."""
        return float(np.linalg.norm(np.multiply(self.shape, self.spacing_mm)))
