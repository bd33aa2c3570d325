"""A CT in the orientation and coarser voxels that a model needs, and its prediction back on the CT's own grid.

A model asks for it in its ``dataset.json``: ``{"livseg": {"grid": {"orientation": "LPS", "average_to_mm": 2.0}}}``.
Without mirroring a network learns where right is, so it must see all CTs in the orientation of its training. Averaging
is what nnU-Net's resampling lacks on the way to much larger voxels: noise goes, and so do most of the time and memory.

``resampled_slices`` is for any model: nnU-Net's resampling of logits by torch, slice by slice, so that the resampled
volume never exists. A slice is the same however many are made; from nnU-Net's whole volume, only voxels whose logits
tie can differ, by rounding. The image keeps the plans' resampling: torch's linear one in place of cubic splines saved
2 s of a minute, and changed the Dice of tumors by up to 0.9 points (3D-IRCADb 17, starter model).
"""

# Shape letters: (Z, Y, X) the CT's grid, (z, y, x) the coarser one in its orientation, C channels

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis
from torch import Tensor
from torch.nn.functional import interpolate

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER, TUMOR
from nnunet_livseg.imaging.masks import bounding_box
from nnunet_livseg.imaging.orientation import orientation_code

_SLAB_VOXELS = 16_000_000  # enlarged at a time


@dataclass(frozen=True)
class CoarseGrid:
    """The grid that a model needs.

    Args:
        orientation: Where x, y and z of its arrays point to, e.g. ``LPS``.
        average_to_mm: Voxels are averaged in blocks whose edges are no longer than this.
    """

    orientation: str
    average_to_mm: float

    @classmethod
    def of_model(cls, dataset_json: Mapping) -> "CoarseGrid | None":
        """The grid of a model; None if it reads CTs unchanged, as nnU-Net's models do.

        Raises:
            UserError: The entry is damaged, or the model has other labels than liver and tumor.
        """
        content = (dataset_json.get("livseg") or {}).get("grid")
        if content is None:
            return None
        if set(dataset_json["labels"]) != {"background", LIVER, TUMOR}:
            raise UserError(
                f"dataset.json of the model asks for averaged CTs (livseg: grid), which needs the labels {LIVER} and"
                f" {TUMOR} alone; it has {', '.join(dataset_json['labels'])}.\n  Remove the entry."
            )
        try:
            return cls(str(content["orientation"]), float(content["average_to_mm"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"dataset.json of the model has a damaged entry livseg: grid ({content}).\n  Copy the model again."
            ) from error

    def block(self, image: sitk.Image) -> tuple[int, int, int]:
        """How many voxels of ``image`` make a coarse one, z, y, x."""
        return tuple(max(1, int(self.average_to_mm / spacing + 1e-6)) for spacing in image.GetSpacing()[::-1])

    def coarse(self, image: sitk.Image) -> sitk.Image:
        """``image`` on the model's grid."""
        return sitk.DICOMOrient(averaged(image, self.block(image)), self.orientation)

    def own_axes(self, image: sitk.Image, coarse: sitk.Image) -> Callable[[np.ndarray], np.ndarray]:
        """From arrays on ``coarse`` to the order of axes of ``image``."""

        if orientation_code(image) == orientation_code(coarse):
            return lambda values: values

        def back(values: np.ndarray) -> np.ndarray:
            half = values.dtype == np.float16  # which ITK does not know
            turned = sitk.GetImageFromArray(values.view(np.uint16) if half else values)
            turned.SetDirection(coarse.GetDirection())
            found = sitk.GetArrayFromImage(sitk.DICOMOrient(turned, orientation_code(image)))
            return found.view(values.dtype) if half else found

        return back


def averaged(image: sitk.Image, block: Sequence[int]) -> sitk.Image:
    """The means of blocks of ``block`` (z, y, x) voxels, rounded to the image's type, on their own grid.

    Blocks that would reach beyond the image are filled with its last voxels.
    """
    if all(number == 1 for number in block):
        return image
    missing = [-size % number for size, number in zip(image.GetSize(), block[::-1], strict=True)]
    if any(missing):
        image = sitk.ZeroFluxNeumannPad(image, [0] * image.GetDimension(), missing)
    return sitk.BinShrink(image, list(block[::-1]))


def enlarged(values: np.ndarray, block: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Values ``(z, y, x)`` of blocks on the voxels ``shape`` (Z, Y, X) that they are made of, linear between centers.

    Args:
        values: Of blocks.
        block: Voxels per block, z, y, x.
        shape: Of the whole.
    """
    if all(number == 1 for number in block):
        return values
    whole = torch.empty(tuple(shape), dtype=torch.from_numpy(values).dtype)  # torch rounds to half much quicker
    count = max(1, _SLAB_VOXELS // (shape[1] * shape[2] * block[0]))  # blocks at a time
    for start in range(0, values.shape[0], count):
        first = max(start - 1, 0)  # the neighbors that the outermost voxels lie between
        part = torch.from_numpy(values[first : start + count + 1]).float()[None, None]
        part = interpolate(part, scale_factor=tuple(map(float, block)), mode="trilinear")[0, 0]
        place = slice(start * block[0], min((start + count) * block[0], shape[0]))
        offset = (start - first) * block[0]
        whole[place] = part[offset : offset + place.stop - place.start, : shape[1], : shape[2]]
    return whole.numpy()


def enlarged_near(values: np.ndarray, mask: np.ndarray, block: Sequence[int]) -> np.ndarray:
    """``enlarged`` in the box of ``mask (Z, Y, X)``, which is True on some of the voxels; 0 elsewhere."""
    whole = np.zeros(mask.shape, values.dtype)
    if not mask.any():
        return whole
    blocks = [slice(s.start // n, -(-s.stop // n)) for s, n in zip(bounding_box(mask), block, strict=True)]
    near, box, size = _around(blocks, block, mask.shape)
    whole[box] = enlarged(values[near], block, size)
    return whole


def _around(
    blocks: Sequence[slice], block: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...], tuple[int, ...]]:
    """``blocks`` and their neighbors, the voxels that these are made of, and how many."""
    near = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in blocks)
    box = tuple(slice(s.start * n, min(s.stop * n, size)) for s, n, size in zip(near, block, shape, strict=True))
    return near, box, tuple(s.stop - s.start for s in box)


def nearest(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Values ``(z, y, x)`` on a grid of ``shape`` over the same extent: each voxel has that of the nearest center."""
    index = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, values.shape, strict=True))
    return values[np.ix_(*index)]


def repeated(values: np.ndarray, block: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Values ``(z, y, x)`` of blocks on all voxels ``shape`` (Z, Y, X) that they are made of."""
    for axis, number in enumerate(block):
        values = values.repeat(number, axis)
    return values[tuple(slice(size) for size in shape)]


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
    if not labels.any():
        return whole
    near, box, size = _around(bounding_box(labels > 0), block, shape)
    found = (torch.from_numpy(enlarged(probabilities[name][near], block, size)).float() for name in (LIVER, TUMOR))
    liver, tumor = found
    healthy, background = liver - tumor, 1 - liver
    inside = whole[box]
    inside[(torch.maximum(healthy, tumor) > background).numpy()] = structures[LIVER][0]
    inside[((tumor > healthy) & (tumor > background)).numpy()] = structures[TUMOR][0]
    return whole


def nearest_axis(settings: Mapping[str, Any], current_mm: Sequence[float], wanted_mm: Sequence[float]) -> int | None:
    """The axis along which the nearest voxel is taken, by the plans' settings; None without one.

    Args:
        settings: The plans' arguments of ``resampling_fn_probabilities``.
        current_mm: Spacing of the source.
        wanted_mm: That of the target.
    """
    threshold = settings.get("separate_z_anisotropy_threshold", ANISO_THRESHOLD)
    return determine_do_sep_z_and_axis(settings.get("force_separate_z"), current_mm, wanted_mm, threshold)[1]


@torch.inference_mode()
def resampled_slices(
    source: Tensor, shape: Sequence[int], *, nearest: int | None, device: torch.device
) -> Iterator[Tensor]:
    """The slices ``(C, Y, X)`` of ``source (C, z, y, x)`` on a grid of ``shape`` (Z, Y, X), float32, on ``device``.

    Args:
        source: On any device; one slice at a time goes to ``device``.
        shape: Sizes of the target grid.
        nearest: Axis 0 to 2 along which the nearest voxel is taken; linear along all others.
        device: The device that interpolates.
    """
    if nearest:
        source = source.index_select(
            1 + nearest, _places(source.shape[1 + nearest], shape[nearest], nearest=True).int()
        )
    planes: dict[int, Tensor] = {}
    for place in _places(source.shape[1], shape[0], nearest=nearest == 0).tolist():
        below, above = int(place), min(int(place) + 1, source.shape[1] - 1)
        for z in (below, above):
            if z not in planes:
                plane = source[None, :, z].to(device, torch.float32)
                planes[z] = interpolate(plane, size=tuple(shape[1:]), mode="bilinear")[0]
        planes = {z: planes[z] for z in (below, above)}
        yield torch.lerp(planes[below], planes[above], place - below)


def _places(count: int, wanted: int, *, nearest: bool) -> Tensor:
    """Where on ``count`` voxels each of ``wanted`` over the same extent lies, from torch's own interpolation."""
    numbers = torch.arange(count, dtype=torch.float32)[None, None]
    return interpolate(numbers, size=wanted, mode="nearest-exact" if nearest else "linear")[0, 0]


def first_largest(logits: Tensor) -> Tensor:
    """``logits.argmax(0)`` of few channels ``(C, ...)``, the first of equal ones; several times quicker on a CPU."""
    best, labels = logits[0].clone(), torch.zeros(logits.shape[1:], dtype=torch.int16, device=logits.device)
    for value, channel in enumerate(logits[1:], start=1):
        labels.masked_fill_(channel > best, value)
        torch.maximum(best, channel, out=best)
    return labels
