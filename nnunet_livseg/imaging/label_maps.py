"""A label map as read: integers, one unit, and the question whether two lie on the same grid."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import as_integers
from nnunet_livseg.core.names import VOLUME_ENDINGS
from nnunet_livseg.imaging.grid import grid_differences, spelled
from nnunet_livseg.imaging.images import UnreadableError, load_image, without_fourth_axis

PIXEL_ENDINGS = (".png", ".bmp", ".tif", ".tiff")  # no physical size: pixels are the unit
LABEL_MAP_ENDINGS = (*VOLUME_ENDINGS, *PIXEL_ENDINGS)


@dataclass(frozen=True)
class LabelImage:
    """A label map.

    Args:
        labels: Integers ``(z, y, x)`` or ``(y, x)``.
        spacing_mm: Per axis of ``labels``; ones where the unit is pixels.
        unit: ``mm`` or ``px``.
        image: The SimpleITK image behind it.
        notes: What a reader of the results should know.
    """

    labels: np.ndarray
    spacing_mm: tuple[float, ...]
    unit: str
    image: sitk.Image
    notes: tuple[str, ...] = field(default=())


def label_map_ending(name: str) -> str:
    """The ending of a file name that a label map can have (``.nii.gz``), or an empty string."""
    return next((ending for ending in LABEL_MAP_ENDINGS if name.lower().endswith(ending)), "")


def label_map_stem(name: str) -> str:
    """A file name without such an ending."""
    return name[: len(name) - len(label_map_ending(name))]


def read_label_map(path: Path, *, turned_to: str = "") -> LabelImage:
    """Read a label map.

    Args:
        path: Volume or picture.
        turned_to: Orientation for 3D label maps, such as ``LPS``, in which axis 0 runs along the patient; left out, the
            file's own.

    Raises:
        UserError: The file cannot be read, has color channels or four dimensions, or holds fractions.
    """
    try:
        image, repairs = load_image(path)
    except UnreadableError as error:
        raise UserError(
            f"{path.name} cannot be read: it is damaged, truncated or not an image ({error.reason})."
        ) from None
    image, repairs = without_fourth_axis(image, repairs)
    if image.GetNumberOfComponentsPerPixel() != 1:
        channels = image.GetNumberOfComponentsPerPixel()
        raise UserError(f"{path.name} has {channels} channels, but a label map has one. Save one channel.")
    if image.GetDimension() not in (2, 3):
        raise UserError(f"{path.name} has {image.GetDimension()} dimensions, but a label map has 2 or 3.")
    if turned_to and image.GetDimension() == 3:
        image = sitk.DICOMOrient(image, turned_to)
    labels, notes = as_integers(sitk.GetArrayFromImage(image), path.name)
    pixels = path.name.lower().endswith(PIXEL_ENDINGS)
    spacing = (1.0,) * labels.ndim if pixels else tuple(float(s) for s in image.GetSpacing()[::-1])
    notes = (*(f"{path.name}: {repair}" for repair in repairs), *notes)
    return LabelImage(labels, spacing, "px" if pixels else "mm", image, notes)


def grid_difference(predicted: LabelImage, reference: LabelImage) -> str:
    """Empty where both lie on one grid, else what differs, both values shown."""
    if predicted.labels.shape == reference.labels.shape and "px" in (predicted.unit, reference.unit):
        return ""
    return spelled(grid_differences(predicted.image, reference.image), "prediction", "reference")


def resampled(predicted: LabelImage, reference: LabelImage) -> LabelImage:
    """The prediction on the reference's grid by nearest neighbor; outside of it there is background."""
    image = sitk.Resample(predicted.image, reference.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    labels, _ = as_integers(sitk.GetArrayFromImage(image), "the prediction")
    note = "prediction resampled to the reference's grid (nearest neighbor)"
    return LabelImage(labels, reference.spacing_mm, reference.unit, image, (*predicted.notes, note))
