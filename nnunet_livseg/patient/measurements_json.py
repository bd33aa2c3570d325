"""The measurements of one CT as JSON, and its lesions as CSV: for programs and for people."""

import math
from collections.abc import Mapping

import SimpleITK as sitk

from nnunet_livseg.core.tables import csv_text
from nnunet_livseg.patient.segmentation import Diameter, Lesion, Segmentation, StructureSize

FORMAT = 1  # raised when a key changes its meaning
UNITS = "volumes in ml, lengths and coordinates in mm (patient x, y, z: towards left, back, head), densities in HU"


def as_record(result: Segmentation, *, identifiers: Mapping[str, str] | None = None) -> dict:
    """Everything that was measured, with its units, JSON-able; ``null`` where something is unknown.

    Args:
        result: The segmented CT.
        identifiers: Patient identifiers to carry; none are taken from ``result``, which holds none.
    """
    found = result.measurements
    record = {
        "format": FORMAT,
        "name": result.name,
        "units": UNITS,
        "image": _image(result.image),
        "liver_ml": _rounded(found.liver_ml),
        "tumor_ml": _rounded(found.tumor_ml),
        "tumor_burden": _rounded(found.tumor_burden, 5),
        "structures": {name: _structure(size) for name, size in found.structures.items()},
        "lesions": None if found.lesions is None else [_lesion(lesion, result.image) for lesion in found.lesions],
        "cut_off_at_the_image_border": list(found.truncated),
        "notes": list(result.notes),
        "label_values": {name: list(values) for name, values in result.structures.items()},
        "made_with": _provenance(result),
    }
    if result.series is not None:
        record["series"] = {"number": result.series.key, "phase": result.series.phase or None}
    if identifiers:
        record["identifiers"] = dict(identifiers)
    return record


def lesion_csv(result: Segmentation) -> str:
    """The lesions of the record as a table, a line for each; empty fields where something is unknown."""
    rows = [
        {
            "number": lesion["number"],
            "volume_ml": lesion["volume_ml"],
            "longest_diameter_mm": lesion["longest_diameter"]["mm"],
            "axial_diameter_mm": lesion["axial_diameter"]["mm"],
            "slice": lesion["axial_diameter"]["slice"],
            "mean_hu": lesion["mean_hu"],
            "sd_hu": lesion["sd_hu"],
            **dict(zip(("x_mm", "y_mm", "z_mm"), lesion["center_mm"], strict=True)),
            "confidence": lesion["confidence"],
            "agreement": lesion["agreement"],
        }
        for lesion in (_lesion(lesion, result.image) for lesion in result.measurements.lesions or ())
    ]
    columns = "number volume_ml longest_diameter_mm axial_diameter_mm slice mean_hu sd_hu x_mm y_mm z_mm"
    return csv_text(rows, header=[*columns.split(), "confidence", "agreement"])


def _image(image: sitk.Image) -> dict:
    return {
        "size_zyx": list(image.GetSize()[::-1]),
        "spacing_mm_zyx": [_rounded(s, 5) for s in image.GetSpacing()[::-1]],
    }


def _structure(size: StructureSize) -> dict:
    return {
        "volume_ml": _rounded(size.volume_ml),
        "mean_hu": _rounded(size.mean_hu, 1),
        "sd_hu": _rounded(size.sd_hu, 1),
    }


def _lesion(lesion: Lesion, image: sitk.Image) -> dict:
    x, y, z = image.TransformPhysicalPointToContinuousIndex(lesion.center_mm)
    return {
        "number": lesion.number,
        "volume_ml": _rounded(lesion.volume_ml),
        "longest_diameter": _diameter(lesion.diameter),
        "axial_diameter": _diameter(lesion.axial_diameter) | {"slice": lesion.axial_diameter.slice_index},
        "mean_hu": _rounded(lesion.mean_hu, 1),
        "sd_hu": _rounded(lesion.sd_hu, 1),
        "center_mm": [_rounded(value, 2) for value in lesion.center_mm],
        "center_voxel_zyx": [_rounded(value, 2) for value in (z, y, x)],
        "confidence": _rounded(lesion.confidence, 3),
        "agreement": _rounded(lesion.agreement, 3),
    }


def _diameter(diameter: Diameter) -> dict:
    ends = [[_rounded(value, 2) for value in end] for end in diameter.ends_mm]
    return {"mm": _rounded(diameter.length_mm, 2), "ends_mm": ends}


def _provenance(result: Segmentation) -> dict:
    made = result.provenance
    return {
        "model": made.model,
        "folds": list(made.folds),
        "checkpoint": made.checkpoint,
        "quality": made.quality,
        "settings": made.settings,
        "device": made.device,
        "seconds": made.seconds,
        "seconds_by_stage": {name: _rounded(seconds, 1) for name, seconds in made.stages.items()},
        "versions": made.versions,
    }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), digits)
