"""Where a patch of a preprocessed image lies on the grid of the image that was read, and how maps get back there.

Some readers of nnU-Net turn and flip the axes. Its preprocessing turns them again, cuts the box of everything that is
not 0, and resamples (voxel centers are half a voxel inside); then a patch is cut, padded where the image is smaller.
Per axis this is one scale and one offset. Axes named "turned" are the network's, others are (z, y, x) of the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from scipy import ndimage

from nnunet_livseg.inference.reader_axes import ReaderAxes


@dataclass(frozen=True)
class PatchGrid:
    """A patch on the grid of the image.

    Args:
        shape: Sizes of the image (z, y, x).
        order: The image's axis at every place of the turned order.
        limits: First voxel and end of the preprocessed box in the image, turned.
        scale: Voxels of the patch per voxel of the image, turned; negative where the patch runs the other way.
        offset: Where the image's first voxel lies, in voxels of the patch, turned.
        size: Sizes of the patch, turned; 1 across the slices in 2D.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    limits: tuple[tuple[int, int], ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    size: tuple[int, ...]

    @property
    def box(self) -> tuple[slice, ...]:
        """Voxels of the image (z, y, x) whose centers lie in the patch."""
        return tuple(self._turned_box()[self.order.index(axis)] for axis in range(3))

    def place(self, values: np.ndarray, *, labels: bool = False) -> np.ndarray:
        """A map ``values`` (turned) that covers the patch, at the voxels of ``box``; linear, or nearest for labels."""
        box = self._turned_box()
        cells = [n / size for n, size in zip(values.shape, self.size, strict=True)]
        step = [cell * scale for cell, scale in zip(cells, self.scale, strict=True)]
        first = [
            (offset + scale * part.start + 0.5) * cell - 0.5
            for offset, scale, part, cell in zip(self.offset, self.scale, box, cells, strict=True)
        ]
        shape = tuple(part.stop - part.start for part in box)
        order = 0 if labels else 1
        placed = ndimage.affine_transform(values, step, first, output_shape=shape, order=order, mode="nearest")
        return placed.transpose(np.argsort(self.order))

    def to_patch(self, voxel: Sequence[float]) -> tuple[float, ...]:
        """Where a voxel (z, y, x) of the image lies, in voxels of the patch (turned)."""
        return tuple(voxel[axis] * s + o for axis, s, o in zip(self.order, self.scale, self.offset, strict=True))

    def to_image(self, position: Sequence[float]) -> tuple[int, ...]:
        """The voxel (z, y, x) of the image nearest to a position in the patch (turned)."""
        turned = [(p - o) / s for p, o, s in zip(position, self.offset, self.scale, strict=True)]
        voxel = [round(turned[self.order.index(axis)]) for axis in range(3)]
        return tuple(int(np.clip(index, 0, size - 1)) for index, size in zip(voxel, self.shape, strict=True))

    def _turned_box(self) -> list[slice]:
        box = []
        for (low, high), scale, offset, size in zip(self.limits, self.scale, self.offset, self.size, strict=True):
            edges = sorted((edge - 0.5 - offset) / scale for edge in (0, size))
            first, end = (int(np.ceil(edge - 1e-6)) for edge in edges)
            box.append(slice(max(first, low), min(end, high)))
        return box


def whole_grid(
    shape: Sequence[int],
    preprocessed: Sequence[int],
    *,
    properties: Mapping[str, Any],
    transposed: Sequence[int],
    axes: ReaderAxes,
) -> PatchGrid:
    """The whole preprocessed image as one patch.

    Args:
        shape: Sizes of the image (z, y, x).
        preprocessed: Sizes after preprocessing, turned.
        properties: What nnU-Net's preprocessor notes about the case.
        transposed: The plans' ``transpose_forward``.
        axes: What the model's reader does to the image.
    """
    own_axes = _own_axes(axes)
    order, limits, scale, offset = [], [], [], []
    for axis, (low, high), n in zip(transposed, properties["bbox_used_for_cropping"], preprocessed, strict=True):
        own, backwards = own_axes[axis]
        low, high = (shape[own] - high, shape[own] - low) if backwards else (low, high)
        edge, per_voxel = (high, -n / (high - low)) if backwards else (low, n / (high - low))
        order.append(own)
        limits.append((int(low), int(high)))
        scale.append(per_voxel)
        offset.append((0.5 - edge) * per_voxel - 0.5)
    return PatchGrid(tuple(shape), tuple(order), tuple(limits), tuple(scale), tuple(offset), tuple(preprocessed))


def _own_axes(axes: ReaderAxes) -> list[tuple[int, bool]]:
    """For each axis (z, y, x) of the reader the axis of the image, and whether it runs backwards there."""
    corners = axes.to_reader(np.arange(8).reshape(2, 2, 2))  # neighbors differ by 4, 2, 1 along z, y, x of the image
    steps = [int(corners[end] - corners[0, 0, 0]) for end in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    return [((4, 2, 1).index(abs(step)), step < 0) for step in steps]


def cut_patch(
    data: np.ndarray, whole: PatchGrid, center: Sequence[float], patch: Sequence[int]
) -> tuple[np.ndarray, PatchGrid]:
    """A patch of the preprocessed image around a voxel, moved inwards at borders as nnU-Net's own patches are.

    Args:
        data: Preprocessed image ``(C, *turned)``.
        whole: Its grid.
        center: Voxel of ``data``, turned.
        patch: Sizes of the patch, turned; two for a 2D configuration, which takes one slice.

    Returns:
        The patch ``(C, *turned)``, padded with 0 where the image is smaller, and its grid.
    """
    size = (1,) * (3 - len(patch)) + tuple(int(n) for n in patch)
    padded, inside = pad_nd_image(data, size, "constant", {"constant_values": 0}, return_slicer=True)
    before = [part.start for part in inside[1:]]
    starts = [
        int(np.clip(round(c + pad - (n - 1) / 2), 0, full - n))
        for c, pad, n, full in zip(center, before, size, padded.shape[1:], strict=True)
    ]
    cut = padded[(slice(None), *(slice(start, start + n) for start, n in zip(starts, size, strict=True)))]
    offset = tuple(o + pad - start for o, pad, start in zip(whole.offset, before, starts, strict=True))
    return cut, PatchGrid(whole.shape, whole.order, whole.limits, whole.scale, offset, size)
