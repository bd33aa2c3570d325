"""Numbers from a label map: volumes, densities, and lesions one by one."""

import math

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.labels import TUMOR, mask_of
from nnunet_livseg.imaging.diameters import VoxelLine, axial_line, longest_line
from nnunet_livseg.imaging.images import on_grid
from nnunet_livseg.imaging.masks import bounding_box, components_by_size
from nnunet_livseg.imaging.orientation import PatientAxes
from nnunet_livseg.patient.segmentation import Diameter, Lesion, Measurements, StructureSize

Box = tuple[slice, slice, slice]


def measure(
    image: sitk.Image,
    labels: sitk.Image,
    structures: dict[str, tuple[int, ...]],
    *,
    tumor_probability: np.ndarray | None = None,
    tumor_votes: np.ndarray | None = None,
    ensemble_vote: np.ndarray | None = None,
) -> tuple[Measurements, sitk.Image | None]:
    """Measure a segmented CT; the second value numbers the lesions as ``Segmentation.lesions`` (16 bit).

    Args:
        image: HU, first channel.
        labels: Label map on the same grid.
        structures: Structure to label values.
        tumor_probability: ``(Z, Y, X)``, 0 to 1; the confidence of a lesion is its mean.
        tumor_votes: ``(Z, Y, X)``, 0 to 1; share of the single predictions that say tumor.
        ensemble_vote: The same for their mean, resampled in the same way: a lesion's agreement is the mean of the votes
            over the mean of this, so that interpolation between the network's voxels does not look like disagreement.
    """
    values, hu = sitk.GetArrayViewFromImage(labels), sitk.GetArrayViewFromImage(image)
    voxel_ml = math.prod(labels.GetSpacing()) / 1000
    masks = {name: mask_of(values, wanted) for name, wanted in structures.items()}
    sizes = {name: _size(mask, hu, voxel_ml) for name, mask in masks.items()}
    cut_off = tuple(name for name, mask in masks.items() if _touches_border(mask))
    if TUMOR not in masks:
        return Measurements(sizes, None, cut_off), None
    numbered, boxes = components_by_size(masks[TUMOR], neighbors=6)
    of = _Lesions(image, hu, numbered, voxel_ml, (tumor_probability, tumor_votes, ensemble_vote))
    lesions = tuple(of.lesion(number, box) for number, box in enumerate(boxes, start=1))
    return Measurements(sizes, lesions, cut_off), on_grid(numbered, labels)


def _mean(values: np.ndarray | None, box: Box, mask: np.ndarray) -> float | None:
    return None if values is None else float(values[box][mask].mean(dtype=np.float64))


def _size(mask: np.ndarray, hu: np.ndarray, voxel_ml: float) -> StructureSize:
    box = bounding_box(mask)
    inside = hu[box][mask[box]]
    return StructureSize(inside.size * voxel_ml, *_mean_and_sd(inside))


def _touches_border(mask: np.ndarray) -> bool:
    ends = [mask.take(index, axis) for axis in range(3) if mask.shape[axis] > 1 for index in (0, -1)]
    return any(end.any() for end in ends)


def _mean_and_sd(values: np.ndarray) -> tuple[float, float]:
    if not values.size:
        return math.nan, math.nan
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


class _Lesions:
    """Measures lesions of one image."""

    def __init__(
        self,
        image: sitk.Image,
        hu: np.ndarray,
        numbered: np.ndarray,
        voxel_ml: float,
        certainty: tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None],
    ) -> None:
        self.image, self.hu, self.numbered, self.voxel_ml = image, hu, numbered, voxel_ml
        self.probability, self.votes, self.ensemble_vote = certainty
        self.spacing_mm = image.GetSpacing()[::-1]
        self.across = PatientAxes(image).order[0]  # the axis of the array that leads to the head or the feet

    def lesion(self, number: int, box: Box) -> Lesion:
        mask = self.numbered[box] == number
        axial = axial_line(mask, self.spacing_mm, across=self.across)
        return Lesion(
            number,
            int(np.count_nonzero(mask)) * self.voxel_ml,
            self._diameter(longest_line(mask, self.spacing_mm), box),
            self._diameter(axial, box, box[self.across].start + int(axial.ends[0][self.across])),
            *_mean_and_sd(self.hu[box][mask]),
            self._point(np.argwhere(mask).mean(axis=0), box),
            box,
            _mean(self.probability, box, mask),
            self._agreement(box, mask),
        )

    def _agreement(self, box: Box, mask: np.ndarray) -> float | None:
        votes, own = _mean(self.votes, box, mask), _mean(self.ensemble_vote, box, mask)
        return min(1.0, votes / own) if votes is not None and own else votes

    def _diameter(self, line: VoxelLine, box: Box, slice_index: int | None = None) -> Diameter:
        return Diameter(line.length_mm, tuple(self._point(np.array(end), box) for end in line.ends), slice_index)

    def _point(self, index: np.ndarray, box: Box) -> tuple[float, float, float]:
        """Patient coordinates of an index ``(z, y, x)`` into a box."""
        whole = (index + [part.start for part in box])[::-1].tolist()
        return self.image.TransformContinuousIndexToPhysicalPoint(whole)
