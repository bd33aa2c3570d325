"""The tables of a patient's report, and what their numbers mean."""

import math
from collections.abc import Mapping

from nnunet_livseg.core.tables import number
from nnunet_livseg.patient.segmentation import LISTED_LESIONS, Lesion, Point, Segmentation
from nnunet_livseg.report import page

_OPEN = 20  # lesions in sight; smaller ones are folded away
_CERTAINTIES = ("confidence", "agreement")
_DEFINITIONS = {
    "liver": "everything labeled liver or tumor",
    "tumor burden": "tumor volume divided by liver volume, tumors included",
    "lesion": "tumor voxels connected through faces; number 1 is the largest",
    "diameter": "longest straight line from outer voxel face to outer voxel face, in any direction",
    "axial diameter": "the same within one axial slice (of a coronal or sagittal series, across its slices); axial "
    "slices are counted from 0",
    "center": "center of gravity, mm from the zero point of the scanner's coordinates towards the patient's R(ight) or "
    "L(eft), A(nterior) or P(osterior), S(uperior) or I(nferior)",
    "confidence": "mean probability of tumor over the lesion's voxels; how well it agrees with reality depends on the "
    "model",
    "agreement": "share of the single predictions that say tumor, mean over the lesion's voxels",
    "uncertainty": "entropy of the averaged prediction, from 0 (certain) to 1 (anything is as likely)",
}


def lesion_section(result: Segmentation, *, links: Mapping[int, str] | None = None) -> str:
    """All lesions in numbers; empty where the model has no label for them.

    Args:
        result: What was measured.
        links: Number of a lesion to the place in the page that shows it.
    """
    lesions = result.measurements.lesions
    if lesions is None:
        return ""
    if not lesions:
        return page.section("Lesions", lead="The model found no tumor in this CT.")
    header = ["no.", "volume [ml]", "diameter [mm]", "axial diameter [mm]", "slice", "mean ± sd [HU]", "center [mm]"]
    known = [name for name in _CERTAINTIES if any(getattr(lesion, name) is not None for lesion in lesions)]
    listed = lesions[:LISTED_LESIONS]
    rows = [[*_lesion_row(lesion), *(_percent(getattr(lesion, name)) for name in known)] for lesion in listed]
    for row in rows:
        if place := (links or {}).get(int(row[0])):
            row[0] = f"[{row[0]}](#{place})"
    first, rest = (page.table([*header, *known], part, left=0) for part in (rows[:_OPEN], rows[_OPEN:]))
    more = page.folded(f"Lesions {_OPEN + 1} to {len(rows)}", rest) if len(rows) > _OPEN else ""
    lead = f"The {len(listed)} largest of {len(lesions):,} lesions." if len(listed) < len(lesions) else ""
    return page.section("Lesions", first, more, lead=lead)


def structure_section(result: Segmentation) -> str:
    """Volume and density of each structure."""
    sizes = result.measurements.structures
    rows = [(name, milliliters(size.volume_ml), _density(size.mean_hu, size.sd_hu)) for name, size in sizes.items()]
    return page.section("Structures", page.table(("structure", "volume [ml]", "mean ± sd [HU]"), rows))


def definitions(result: Segmentation) -> str:
    """What the page's numbers mean."""
    lesions = result.measurements.lesions or ()
    unused = {name for name in _CERTAINTIES if all(getattr(lesion, name) is None for lesion in lesions)}
    unused |= {"uncertainty"} if result.uncertainty is None else set()
    return page.definitions((name, text) for name, text in _DEFINITIONS.items() if name not in unused)


def milliliters(volume_ml: float) -> str:
    """A volume with three digits or tenths of a milliliter."""
    return number(volume_ml, 1 if volume_ml >= 10 else 2 if volume_ml >= 1 else 3 if volume_ml else 0)


def _lesion_row(lesion: Lesion) -> list[str]:
    index = lesion.axial_diameter.slice_index
    return [
        str(lesion.number),
        milliliters(lesion.volume_ml),
        number(lesion.diameter.length_mm, 1),
        number(lesion.axial_diameter.length_mm, 1),
        "-" if index is None else str(index),
        _density(lesion.mean_hu, lesion.sd_hu),
        _position(lesion.center_mm),
    ]


def _density(mean_hu: float, sd_hu: float) -> str:
    return "-" if math.isnan(mean_hu) else f"{number(mean_hu, 0)} ± {number(sd_hu, 0)}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _position(point_mm: Point) -> str:
    """A place as viewers show it, such as R 52 A 10 S 130."""
    ends = zip(point_mm, ("LR", "PA", "SI"), strict=True)
    return " ".join(f"{letters[value < 0]} {abs(value):.0f}" for value, letters in ends)
