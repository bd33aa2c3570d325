"""Reading label maps: one orientation, one unit, and the question whether two lie on the same grid."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import as_integers
from nnunet_livseg.imaging.grid import grid_differences, spelled
from nnunet_livseg.imaging.images import UnreadableError, load_image

PIXEL_ENDINGS = (".png", ".bmp", ".tif", ".tiff")  # no physical size: pixels are the unit
ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", *PIXEL_ENDINGS)


@dataclass(frozen=True)
class LabelImage:
    """A label map in the orientation LPS (3D), so that axis 0 runs along the patient.

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


def file_ending(name: str) -> str | None:
    """The ending of a file name that we can read (``.nii.gz``), or ``None``."""
    return next((ending for ending in ENDINGS if name.lower().endswith(ending)), None)


def read_image(path: Path) -> sitk.Image:
    """The image as it is on disk, 3D images turned to LPS.

    Raises:
        UserError: The file cannot be read.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[sitk.Image, list[str]]:
    try:
        image, notes = load_image(path)
    except UnreadableError as error:
        raise UserError(f"{path.name} cannot be read: damaged, truncated or no image ({error.reason}).") from None
    return (sitk.DICOMOrient(image, "LPS") if image.GetDimension() == 3 else image), notes


def read_labels(path: Path) -> LabelImage:
    """Read a label map.

    Raises:
        UserError: The file cannot be read, has colour channels or four dimensions, or holds fractions.
    """
    image, repairs = _read(path)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(f"{path.name} has {image.GetNumberOfComponentsPerPixel()} channels, but a label map has one.")
    if image.GetDimension() not in (2, 3):
        raise UserError(f"{path.name} has {image.GetDimension()} dimensions, but a label map has 2 or 3.")
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
    """The prediction on the reference's grid by nearest neighbour; outside of it there is background."""
    image = sitk.Resample(predicted.image, reference.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    labels, _ = as_integers(sitk.GetArrayFromImage(image), "the prediction")
    note = "prediction resampled to the reference's grid (nearest neighbour)"
    return LabelImage(labels, reference.spacing_mm, reference.unit, image, (*predicted.notes, note))
