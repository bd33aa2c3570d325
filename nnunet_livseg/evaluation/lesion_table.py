"""The rows of lesions.csv: one per reference lesion, and one per predicted lesion that was matched to none."""

import math

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.evaluation import lits_scorer
from nnunet_livseg.evaluation.lesions import LesionPair
from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.surface_distances import SurfaceDistances
from nnunet_livseg.imaging.diameters import axial_diameter_mm, longest_diameter_mm

REFERENCE, FRAGMENT, FALSE_ALARM, MERGED = "reference", "fragment", "false_alarm", "merged"
COLUMNS = {
    "kind": "reference: a lesion of the reference. fragment, false_alarm: an unmatched predicted lesion, with and "
    "without overlap. merged (mode lits): a merged pair detected at IoU > 0.5",
    "lesion": "number of the component, in order of its first voxel",
    "found": "matched one to one with IoU > 0",
    "found_50": "matched one to one with IoU > 0.5",
    "group_iou": "IoU after merging all lesions that are connected by overlaps, as LiTS does",
    "volume": "volume of the reference lesion (of an unmatched predicted lesion, its own)",
    "volume_predicted": "volume of the matched predicted lesion",
    "diameter": "longest diameter, between centers of outer voxel faces",
    "diameter_axial": "longest diameter within one axial slice",
    "dice": "Dice with the matched predicted lesion, 0 where missed",
    "iou": "intersection over union with the matched predicted lesion, 0 where missed",
    "assd": "average symmetric surface distance to the matched predicted lesion, infinite where missed",
    "center_x": "center of gravity in patient coordinates (LPS), pixels for images without geometry",
    "center_y": "the same",
    "center_z": "the same",
}


def lesion_rows(lesions: LesionPair, image: sitk.Image | None, *, factor: float, options: Options) -> list[dict]:
    """Rows with the keys of ``COLUMNS``; lengths in the unit of the spacing, volumes times ``factor``."""
    if options.mode == "lits":
        return _merged_rows(lesions, factor)
    group_iou = {r: group.iou for group in lesions.groups for r in group.reference}
    rows = []
    for number in range(1, lesions.n_reference + 1):
        row = {"kind": REFERENCE, "lesion": number} | _match(lesions, number, factor, options)
        row["group_iou"] = group_iou.get(number, 0.0)
        rows.append(row | _shape(lesions, number, image, factor=factor, predicted=False))
    overlapping = {p for _, p in lesions.overlaps}
    for number in sorted(set(range(1, lesions.n_predicted + 1)) - set(lesions.matches.values())):
        kind = FRAGMENT if number in overlapping else FALSE_ALARM
        rows.append({"kind": kind, "lesion": number} | _shape(lesions, number, image, factor=factor, predicted=True))
    return [{name: row.get(name, math.nan) for name in COLUMNS} for row in rows]


def _match(lesions: LesionPair, number: int, factor: float, options: Options) -> dict:
    matched = lesions.matches.get(number)
    if matched is None:
        return {"found": 0, "found_50": 0, "volume_predicted": 0.0, "dice": 0.0, "iou": 0.0, "assd": math.inf}
    pair, iou = lesions.mask_pair((number,), (matched,)), lesions.iou(number, matched)
    return {
        "found": 1,
        "found_50": int(iou > 0.5),
        "volume_predicted": pair.n_predicted * factor,
        "dice": 2 * iou / (1 + iou),
        "iou": iou,
        "assd": SurfaceDistances.of(pair, options.surface_connectivity).assd_mm(),
    }


def _shape(lesions: LesionPair, number: int, image: sitk.Image | None, *, factor: float, predicted: bool) -> dict:
    labels, boxes = (
        (lesions.predicted, lesions.predicted_boxes) if predicted else (lesions.reference, lesions.reference_boxes)
    )
    box = boxes[number - 1]
    mask = labels[box] == number
    spacing = lesions.pair.spacing_mm
    offset = [part.start + corner for part, corner in zip(box, lesions.pair.corner, strict=True)]
    center = _physical(np.argwhere(mask).mean(axis=0) + offset, image, spacing)
    return {
        "volume": int(np.count_nonzero(mask)) * factor,
        "diameter": longest_diameter_mm(mask, spacing),
        "diameter_axial": axial_diameter_mm(mask, spacing),
        **dict(zip(("center_x", "center_y", "center_z"), center, strict=False)),
    }


def _physical(index: np.ndarray, image: sitk.Image | None, spacing_mm: tuple[float, ...]) -> tuple[float, ...]:
    """``(x, y, z)`` of a voxel index ``(z, y, x)``."""
    if image is None:
        return tuple((index * spacing_mm)[::-1].tolist())
    return image.TransformContinuousIndexToPhysicalPoint(index[::-1].tolist())


def _merged_rows(lesions: LesionPair, factor: float) -> list[dict]:
    rows = []
    for group in lesions.groups:
        if group.iou > 0.5:
            pair: MaskPair = lesions.mask_pair(group.reference, group.predicted)
            scores = lits_scorer.lits_scores(pair)
            row = {
                "kind": MERGED,
                "lesion": group.reference[0],
                "group_iou": group.iou,
                "volume": pair.n_reference * factor,
            }
            row["volume_predicted"] = pair.n_predicted * factor
            rows.append(row | {name: scores[name] for name in lits_scorer.SCORES})
    return rows
