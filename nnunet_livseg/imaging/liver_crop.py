"""The liver as the part of an image that a second model looks at: its box, its mask, cropping and putting back.

Image geometry (origin, spacing, direction) always comes from SimpleITK, which keeps it while cutting. Arrays and boxes
are in the order of nnU-Net and numpy, (z, y, x); 2D images have (y, x).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import as_size, ending
from nnunet_livseg.imaging.grid import grid_differences, spelled
from nnunet_livseg.imaging.hounsfield import AIR_HU
from nnunet_livseg.imaging.images import on_grid
from nnunet_livseg.imaging.masks import bounding_box, label_components, only_largest

MODES = ("crop", "mask")
MARGIN_MM = 10.0
KEY = "livseg"  # of the dataset.json that nnU-Net copies into trained models


@dataclass(frozen=True)
class LiverCrop:
    """How images are cropped to the liver.

    Args:
        mode: ``"crop"``: the liver's box (SFAN); ``"mask"``: the box with everything outside the liver blanked
            (SAM + URIM).
        margin_mm: How far the box reaches beyond the liver.
    """

    mode: str = "crop"
    margin_mm: float = MARGIN_MM

    def validated(self) -> "LiverCrop":
        """This crop, if its mode and margin are valid.

        Raises:
            UserError: It does not.
        """
        if self.mode not in MODES:
            raise UserError(f"there is no crop mode {self.mode!r}; known: {', '.join(MODES)}.")
        if not 0 <= self.margin_mm < 1000:
            raise UserError(f"the margin around the liver is {self.margin_mm:g} mm; it must be from 0 to below 1000.")
        return self

    @classmethod
    def from_dataset_json(cls, content: Mapping) -> "LiverCrop":
        """How the training images of a model were cropped.

        Raises:
            UserError: What stands there makes no sense.
        """
        found = content[KEY]["two_stage"]
        return cls(found["mode"], float(found["margin_mm"])).validated()


@dataclass(frozen=True)
class LiverBox:
    """Where the liver is in one image.

    Args:
        box: First voxel and number of voxels per axis, (z, y, x).
        inside: The liver in the box, ``(Z, Y, X)`` of the box.
    """

    box: tuple[tuple[int, int], ...]
    inside: np.ndarray

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index into arrays."""
        return tuple(slice(start, start + count) for start, count in self.box)


def is_cropped(content: Mapping) -> bool:
    """Whether a dataset with this ``dataset.json`` was cut to the liver by ``livseg two-stage data``."""
    return "two_stage" in content.get(KEY, {})


def fill_values(channels: Sequence[str]) -> list[float | None]:
    """The values outside the liver, per channel: air in a CT, otherwise the image's own minimum (``None``)."""
    return [AIR_HU if name.lower() == "ct" else None for name in channels]


def find_liver_box(liver: np.ndarray, *, spacing_mm: Sequence[float], margin_mm: float = MARGIN_MM) -> LiverBox | None:
    """Box of the largest connected part of ``liver (Z, Y, X)``, widened by a margin inside the image.

    The smaller parts of a predicted liver are mistakes as a rule, and one in a far corner would make the box useless.
    ``None`` if there is no liver.
    """
    if not liver.any():
        return None
    outer = bounding_box(liver)  # its box first: the rest costs 12 bytes a voxel
    largest = only_largest(*label_components(liver[outer], neighbors=6))
    found = bounding_box(largest)
    bounds = [slice(o.start + f.start, o.start + f.stop) for o, f in zip(outer, found, strict=True)]
    box = []
    for bound, size, step in zip(bounds, liver.shape, spacing_mm, strict=True):
        margin = int(np.ceil(margin_mm / step))
        start, stop = max(0, bound.start - margin), min(size, bound.stop + margin)
        box.append((start, stop - start))
    inside = np.zeros([count for _, count in box], dtype=bool)
    place = tuple(slice(b.start - first, b.stop - first) for b, (first, _) in zip(bounds, box, strict=True))
    inside[place] = largest[found]
    return LiverBox(tuple(box), inside)


def crop_image(image: sitk.Image, box: LiverBox, *, mode: str, fill: float | None) -> sitk.Image:
    """The box of ``image`` at its place in the patient; with mode ``"mask"``, ``fill`` outside the liver.

    Where ``fill`` is ``None`` or less than the image's type can hold, the image's own minimum stands outside.
    """
    cropped = _cropped(image, box)
    if mode == "crop":
        return cropped
    array = sitk.GetArrayViewFromImage(cropped)
    holds = fill is not None and (array.dtype.kind == "f" or np.iinfo(array.dtype).min <= fill)
    outside = fill if holds else sitk.GetArrayViewFromImage(image).min()
    return _with_voxels(np.where(box.inside, array, outside), cropped)


def crop_labels(labels: sitk.Image, box: LiverBox, *, mode: str, ignore_label: int | None = None) -> sitk.Image:
    """The box of a label map; with mode ``"mask"``, background outside the liver (voxels to ignore stay)."""
    cropped = _cropped(labels, box)
    if mode == "crop":
        return cropped
    array = sitk.GetArrayViewFromImage(cropped)
    keep = box.inside if ignore_label is None else box.inside | (array == ignore_label)
    return _with_voxels(np.where(keep, array, 0), cropped)


def uncrop(values: np.ndarray, box: LiverBox, *, mode: str, shape: Sequence[int]) -> np.ndarray:
    """``values`` of the box at their place in an array of ``shape``; 0 elsewhere."""
    whole = np.zeros(shape, values.dtype)
    whole[box.slices] = values if mode == "crop" else np.where(box.inside, values, 0)
    return whole


def _cropped(image: sitk.Image, box: LiverBox) -> sitk.Image:
    return image[tuple(reversed(box.slices))]  # SimpleITK counts (x, y, z)


def _with_voxels(array: np.ndarray, like: sitk.Image) -> sitk.Image:
    return on_grid(array.astype(sitk.GetArrayViewFromImage(like).dtype), like)


def liver_of(
    labels: sitk.Image, values: Collection[int], image: sitk.Image, *, path: Path, compare_place: bool = True
) -> np.ndarray:
    """Where a label map has one of ``values``, ``(Z, Y, X)``.

    Args:
        labels: Label map.
        values: Values of the liver.
        image: Image that the label map was made on.
        path: The label map's file, for messages.
        compare_place: Whether both headers can be trusted to say where the voxels lie.

    Raises:
        UserError: Label map and image have different sizes or, where they are volumes, lie at different places.
    """
    if labels.GetSize() != image.GetSize():
        ours, theirs = (as_size(one.GetSize()[::-1]) for one in (labels, image))
        raise UserError(
            f"{path} has {ours} voxels, but its image has {theirs}: they do not belong together.\n"
            "  Give the label map that was made on this image."
        )
    differences = grid_differences(labels, image) if compare_place and ending(path) else ()  # pictures have no place
    if differences:
        raise UserError(
            f"{path} is not on the grid of its image, so their voxels do not correspond.\n"
            f"  {spelled(differences, 'label map', 'image')}\n"
            "  Resample the label map to the image's grid, or give the one that was made on this image."
        )
    return np.isin(sitk.GetArrayViewFromImage(labels), list(values))
