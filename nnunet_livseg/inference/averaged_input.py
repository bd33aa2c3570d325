"""A CT in coarser voxels for a model that needs no finer ones, and its prediction on the CT's own grid again.

Averaging is what nnU-Net's resampling lacks on the way to much larger voxels: noise goes, and so do most of the time
and memory. A model asks for it in its ``dataset.json``: ``{"livseg": {"average_to_mm": 2.0}}``.
"""

# Shape letters: (Z, Y, X) the CT's grid, (z, y, x) the coarser one

from collections.abc import Mapping, Sequence

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

from nnunet_livseg.core.labels import LIVER, TUMOR

_SLAB_VOXELS = 16_000_000  # enlarged at a time


def block_size(spacing_mm: Sequence[float], at_most_mm: float) -> tuple[int, ...]:
    """How many voxels along each axis make a coarser one whose edges are no longer than ``at_most_mm``."""
    return tuple(max(1, int(at_most_mm / spacing + 1e-6)) for spacing in spacing_mm)


def averaged(image: sitk.Image, block: Sequence[int]) -> sitk.Image:
    """The means of blocks of ``block`` (x, y, z) voxels, rounded to the image's type, on their own grid.

    Blocks that would reach beyond the image are filled with its last voxels.
    """
    if all(number == 1 for number in block):
        return image
    missing = [-size % number for size, number in zip(image.GetSize(), block, strict=True)]
    if any(missing):
        image = sitk.ZeroFluxNeumannPad(image, [0] * image.GetDimension(), missing)
    return sitk.BinShrink(image, list(block))


def enlarged(values: np.ndarray, block: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Values ``(z, y, x)`` of blocks on the voxels ``shape`` (Z, Y, X) that they are made of, linear between centers.

    Args:
        values: Of blocks.
        block: Voxels per block, z, y, x.
        shape: Of the whole.
    """
    if all(number == 1 for number in block):
        return values
    whole = np.empty(shape, values.dtype)
    count = max(1, _SLAB_VOXELS // (shape[1] * shape[2] * block[0]))  # blocks at a time
    for start in range(0, values.shape[0], count):
        first = max(start - 1, 0)  # the neighbors that the outermost voxels lie between
        part = torch.from_numpy(values[first : start + count + 1].astype(np.float32))[None, None]
        part = torch.nn.functional.interpolate(part, scale_factor=tuple(map(float, block)), mode="trilinear")[0, 0]
        place = slice(start * block[0], min((start + count) * block[0], shape[0]))
        offset = (start - first) * block[0]
        whole[place] = part[offset : offset + place.stop - place.start, : shape[1], : shape[2]].numpy()
    return whole


def refined_labels(
    labels: np.ndarray,
    probabilities: Mapping[str, np.ndarray],
    structures: Mapping[str, Sequence[int]],
    block: Sequence[int],
    shape: Sequence[int],
) -> np.ndarray:
    """The label of each voxel by the probabilities between the blocks' centers, ``(Z, Y, X)``.

    Where none of the blocks around a voxel is foreground, neither is the voxel, so only the foreground's box is looked
    at.

    Args:
        labels: Of blocks, ``(z, y, x)``.
        probabilities: Of the blocks, by structure: the liver (with its tumors) and the tumor.
        structures: Label values; the liver's first one is that of healthy liver.
        block: Voxels per block, z, y, x.
        shape: Of the whole.
    """
    whole = np.zeros(shape, labels.dtype)
    found = ndimage.find_objects((labels > 0).astype(np.uint8))
    if not found:
        return whole
    near = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in found[0])
    box = tuple(slice(s.start * n, min(s.stop * n, size)) for s, n, size in zip(near, block, shape, strict=True))
    size = tuple(s.stop - s.start for s in box)
    liver, tumor = (enlarged(probabilities[name][near], block, size).astype(np.float32) for name in (LIVER, TUMOR))
    inside = whole[box]
    inside[np.maximum(liver - tumor, tumor) > 1 - liver] = structures[LIVER][0]
    inside[(tumor > liver - tumor) & (tumor > 1 - liver)] = structures[TUMOR][0]
    return whole
