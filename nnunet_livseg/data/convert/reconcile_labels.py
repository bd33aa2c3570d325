"""Label maps as they are stored: values background 0, liver 1, tumor 2, on the grid of their image.

A label map moves onto its image's grid only where it is provable that both mean the same voxels.

Published sets disagree in three harmless ways: the label's header is rounded, the label is stored with other axis
directions, or one of the two headers is wrong while the arrays correspond. The first two are decided by geometry, the
last by content: the liver label must cover soft tissue, and clearly less of it in every mirrored position.
"""

from collections.abc import Mapping
from itertools import product

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER_AND_TUMOR, as_integers
from nnunet_livseg.imaging.grid import ROUNDING_VOXELS, ImageGrid, distance_mm, grid_differences, same_grid
from nnunet_livseg.imaging.hounsfield import liver_share
from nnunet_livseg.imaging.images import on_grid

_EXACT_MM = 1e-3
_ON_LIVER = 0.85  # measured on 3D-IRCADb patient 17: 0.996 in place, 0.59 to 0.78 mirrored
_MARGIN = 0.05


def clean_labels(label: sitk.Image, mapping: Mapping[int, int], name: str) -> tuple[sitk.Image, list[str]]:
    """The label map as uint8 with our values, and what was changed (nothing: the file can stay as it is).

    Args:
        label: Label map of any pixel type.
        mapping: Source value -> our value; to nothing of ours for values that a person has to explain.
        name: What a message calls the file.

    Raises:
        UserError: Values between whole numbers, or values that are not ours after ``mapping``.
    """
    values, changes = as_integers(sitk.GetArrayFromImage(label), name)
    changes = [change for change in changes if "rounded" in change]
    present, counts = np.unique(values, return_counts=True)
    found = dict(zip(present.tolist(), counts.tolist(), strict=True))
    unknown = {
        value: count for value, count in found.items() if mapping.get(value, value) not in LIVER_AND_TUMOR.values()
    }
    if unknown:
        listed = ", ".join(f"{value} ({count:,} voxels)" for value, count in unknown.items())
        raise UserError(
            f"{name} contains label values other than 0 background, 1 liver, 2 tumor: {listed}.\n"
            f"  Say what they are, for example --map {next(iter(unknown))}=1 (liver), =2 (tumor) or =0 (background)."
        )
    mapped = np.zeros(values.shape, np.uint8)
    for value in found:
        mapped[values == value] = mapping.get(value, value)
    changes += [
        f"label {value} became {mapping[value]} ({count:,} voxels)"
        for value, count in found.items()
        if mapping.get(value, value) != value
    ]
    return on_grid(mapped, label), changes


def label_on_image(image: sitk.Image, label: sitk.Image, name: str) -> tuple[sitk.Image, str]:
    """The label on the image's grid, and what was done to it (empty: nothing).

    Raises:
        UserError: It cannot be shown that the two belong together voxel by voxel.
    """
    if same_grid(image, label):
        shift_mm = distance_mm(image, label)
        if shift_mm <= _EXACT_MM:
            return label, ""
        label.CopyInformation(image)
        return label, f"label header differed by rounding ({shift_mm:.3f} mm); the image's header was used"
    if _is_reordered(image, label):
        label = sitk.Resample(label, image, sitk.Transform(), sitk.sitkNearestNeighbor)
        return label, "label reoriented to the image's axes, without interpolation"
    if image.GetSize() == label.GetSize() and _arrays_correspond(image, label):
        label.CopyInformation(image)
        return label, "label header disagreed with the image's; the arrays correspond, so the image's header was used"
    raise UserError(f"{name}: {_difference(image, label)}")


def _is_reordered(image: sitk.Image, label: sitk.Image) -> bool:
    """Whether the label's voxels are the image's voxels in another axis order or direction."""
    indices = np.array(
        [label.TransformPhysicalPointToContinuousIndex(point) for point in ImageGrid.of(image).corners_mm().tolist()]
    )
    tolerance = ROUNDING_VOXELS
    lowest_is_first = np.abs(indices.min(axis=0)).max() <= tolerance
    highest_is_last = np.abs(indices.max(axis=0) - (np.array(label.GetSize()) - 1)).max() <= tolerance
    return bool(
        lowest_is_first and highest_is_last and sorted(image.GetSize()) == sorted(label.GetSize())
    ) and _axes_are_parallel(image, label)


def _axes_are_parallel(image: sitk.Image, label: sitk.Image) -> bool:
    cosines = np.reshape(image.GetDirection(), (3, 3)).T @ np.reshape(label.GetDirection(), (3, 3))
    return bool(np.abs(np.abs(cosines) - np.round(np.abs(cosines))).max() < 1e-3)


def _arrays_correspond(image: sitk.Image, label: sitk.Image) -> bool:
    values, liver = sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(label) > 0
    if not liver.any():
        return True  # nothing is labeled: every arrangement is the same
    in_place = liver_share(values, liver)
    mirrored = [flips for flips in product((1, -1), repeat=3) if flips != (1, 1, 1)]
    best = max(liver_share(values, liver[::z, ::y, ::x]) for z, y, x in mirrored)
    return in_place >= _ON_LIVER and in_place - best >= _MARGIN


def _difference(image: sitk.Image, label: sitk.Image) -> str:
    def described(volume: sitk.Image) -> str:
        spacing, origin = (np.round(values, 4).tolist() for values in (volume.GetSpacing(), volume.GetOrigin()))
        axes = np.round(volume.GetDirection(), 3).tolist()
        return f"size {list(volume.GetSize())}, spacing {spacing} mm, origin {origin} mm, direction {axes}"

    parts = ", ".join(difference.part for difference in grid_differences(image, label))
    return (
        f"image and label are on different grids: they differ in {parts}, and nothing shows how their voxels"
        " correspond.\n"
        f"  image (x, y, z): {described(image)}\n  label (x, y, z): {described(label)}\n"
        "  Give the label that was drawn on this image, or resample it to the image's grid by nearest neighbor."
    )
