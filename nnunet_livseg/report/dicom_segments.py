"""The label map as segments that do not overlap: one per structure, one per lesion, one for very many small lesions.

The liver of a result includes its tumors; its segment leaves them out. Overlapping segments are legal in a binary
DICOM SEG, but viewers that keep one label per voxel reject or flatten them, and what is drawn on top is then chance.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.labels import TUMOR
from nnunet_livseg.patient.segmentation import LISTED_LESIONS, Lesion, Segmentation
from nnunet_livseg.report.dicom_codes import ascii_only


@dataclass(frozen=True)
class Segment:
    """One segment.

    Args:
        number: From 1; its value in the segment map.
        label: For people, ASCII.
        structure: Name of the structure that it is or, for a lesion, is part of.
        lesion: The lesion; None for a structure, and for the lesions behind the ``LISTED_LESIONS`` largest.
    """

    number: int
    label: str
    structure: str
    lesion: Lesion | None = None


def segment_map(result: Segmentation) -> tuple[np.ndarray, tuple[Segment, ...]]:
    """Segment numbers ``(z, y, x)``, 0 for background, and the segments.

    Structures without a voxel have no segment; if all are empty, the first one has, so that there is one.
    """
    labels = sitk.GetArrayViewFromImage(result.labels)
    owned = _owned(result)
    names = [name for name, values in owned.items() if any((labels == value).any() for value in values)]
    lesions = result.measurements.lesions or ()
    _require_same_tumor(result, labels)
    if not names and not lesions:
        names = [next(iter(result.structures))]
    unnamed = _replaced(result) - {TUMOR}
    segments = [Segment(number, _label(name, result, unnamed), name) for number, name in enumerate(names, start=1)]
    lookup = np.zeros(256, np.uint8 if len(names) + LISTED_LESIONS + 1 < 256 else np.uint16)
    for segment in segments:
        lookup[list(owned.get(segment.structure, ()))] = segment.number
    numbers = lookup[labels]
    if lesions:
        _draw_lesions(numbers, result, first=len(segments) + 1)
        listed = {one.number: one for one in lesions[:LISTED_LESIONS]}
        segments += [
            Segment(len(names) + number, label, TUMOR, listed.get(number))
            for number, label in enumerate(lesion_names(result), start=1)
        ]
    return numbers, tuple(segments)


def lesion_names(result: Segmentation) -> list[str]:
    """What the lesions are called, by number from 1; those behind the ``LISTED_LESIONS`` largest have one name."""
    count = len(result.measurements.lesions or ())
    names = [f"Lesion {number}" for number in range(1, min(count, LISTED_LESIONS) + 1)]
    return names + ([f"Smaller lesions ({count - LISTED_LESIONS})"] if count > LISTED_LESIONS else [])


def plain_structures(result: Segmentation) -> list[str]:
    """The structures that lesions do not replace."""
    replaced = _replaced(result)
    return [name for name in result.structures if name not in replaced]


def value_names(result: Segmentation) -> dict[int, tuple[str, str]]:
    """The name for people and the structure of every label value: the smallest structure that contains it."""
    owned = _owners(result.structures)
    return {value: (_label(name, result, ()), name) for name, values in owned.items() for value in sorted(values)}


def _owned(result: Segmentation) -> dict[str, tuple[int, ...]]:
    """As ``_owners``, without those that lesions take the place of."""
    replaced = _replaced(result)
    return {name: values for name, values in _owners(result.structures).items() if values and name not in replaced}


def _owners(structures: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The label values that no smaller structure has, by structure."""
    owned: dict[str, list[int]] = {name: [] for name in structures}
    for value in sorted({value for values in structures.values() for value in values}):
        holders = [name for name, values in structures.items() if value in values]
        owned[min(holders, key=lambda name: len(structures[name]))].append(value)
    return {name: tuple(values) for name, values in owned.items()}


def _replaced(result: Segmentation) -> set[str]:
    """Where lesions are known, the tumor and its kinds (HCC, metastasis): their voxels are the lesions'."""
    if result.lesions is None:
        return set()
    tumor = set(result.structures[TUMOR])
    return {name for name, values in result.structures.items() if set(values) <= tumor}


def _label(name: str, result: Segmentation, unnamed: Collection[str]) -> str:
    inside = set(result.structures[name])
    others = {other: set(values) for other, values in result.structures.items() if other not in {name, *unnamed}}
    parts = [other for other, values in others.items() if values < inside]
    label = f"{name} without {' and '.join(parts)}" if parts else name
    return ascii_only(label.capitalize())[:64]  # DICOM's length for a label


def _require_same_tumor(result: Segmentation, labels: np.ndarray) -> None:
    """Lesions that leave out or add tumor would make the segments differ from the label map unnoticed."""
    if result.lesions is None:
        return
    found = sitk.GetArrayViewFromImage(result.lesions)
    count = len(result.measurements.lesions or ())
    if found.max() != count or not np.array_equal(found > 0, np.isin(labels, result.structures[TUMOR])):
        raise ValueError(f"the lesion map (numbers up to {found.max()}) does not contain the tumor as {count} lesions")


def _draw_lesions(numbers: np.ndarray, result: Segmentation, *, first: int) -> None:
    lesions = sitk.GetArrayViewFromImage(result.lesions)
    inside = lesions > 0
    numbers[inside] = np.minimum(lesions[inside], LISTED_LESIONS + 1).astype(numbers.dtype) + (first - 1)
