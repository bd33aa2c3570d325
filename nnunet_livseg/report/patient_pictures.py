"""The sections with pictures of a patient's report: projections, key slices, uncertainty; and those of the preview."""

from collections.abc import Iterable

from nnunet_livseg.core.labels import LIVER, TUMOR
from nnunet_livseg.patient.segmentation import LISTED_LESIONS, Lesion
from nnunet_livseg.report import page
from nnunet_livseg.report.key_slices import LESION_COLOR, LIVER_COLOR, KeySlice, KeySlices, uncertainty_scale
from nnunet_livseg.report.marked_image import MarkedImage
from nnunet_livseg.report.patient_tables import milliliters


def projection_section(slices: KeySlices) -> str:
    """The liver from three sides; empty where there is none."""
    views = [page.figure(picture.svg(), name.capitalize()) for name, picture in slices.projections]
    lead = "The liver as a solid" + ("; lesions shine through, the paler the deeper." if slices.pictured else ".")
    return page.section("Seen from outside", page.figures(*views), lead=lead) if views else ""


def slice_section(slices: KeySlices) -> str:
    """Axial and coronal slices of each lesion, the largest first, or of the liver."""
    pictured, lesions = slices.pictured, slices.result.measurements.lesions or ()
    parts = [_pictures(_title(lesion), slices.of_lesion(lesion)) for lesion in pictured]
    low, high = slices.window
    lead = f"Window {low:.0f} to {high:.0f}{' HU' if slices.is_ct else ''}; the patient's right is on the left."
    if pictured:
        lead += " The white line is the longest diameter within a slice."
    if len(lesions) > len(pictured):
        rest = "the others are" if len(lesions) <= LISTED_LESIONS else f"{LISTED_LESIONS} are"
        lead += f" Shown are the {len(pictured)} largest of {len(lesions)} lesions; {rest} in the table."
    return page.section("Key slices", _legend(slices), *(parts or [_pictures("", slices.of_liver())]), lead=lead)


def uncertainty_section(slices: KeySlices) -> str:
    """The most uncertain slice with its scale; empty where uncertainty was not asked for."""
    if slices.result.uncertainty is None:
        return ""
    found = slices.most_uncertain_slice()
    if found is None:
        return page.section("Uncertainty", lead="Nowhere in this CT is the prediction in doubt.")
    lead = "The axial slice that contains most of it: entropy of the averaged prediction, in color."
    scale = KeySlice(uncertainty_scale(), "Colors of the uncertainty")
    return page.section("Uncertainty", _pictures("", [found, scale]), lead=lead)


def preview_pictures(slices: KeySlices) -> list[MarkedImage]:
    """Slices of the largest lesion, or of the liver, and the liver from the front."""
    lesions = slices.pictured
    found = slices.of_lesion(lesions[0]) if lesions else slices.of_liver()
    return [one.picture for one in found] + [picture for _, picture in slices.projections[:1]]


def _legend(slices: KeySlices) -> str:
    shown = {LIVER: ("liver", LIVER_COLOR), TUMOR: ("lesions", LESION_COLOR)}
    known = [shown[name] for name in shown if name in slices.result.structures]
    return f'<ul class="legend">{"".join(f"""<li style="--c:{color}">{name}</li>""" for name, color in known)}</ul>'


def _title(lesion: Lesion) -> str:
    return f"Lesion {lesion.number}: {milliliters(lesion.volume_ml)} ml, {lesion.diameter.length_mm:.1f} mm"


def _pictures(title: str, found: Iterable[KeySlice]) -> str:
    head = f"<h3>{page.escape(title)}</h3>" if title else ""
    drawn = "".join(page.figure(one.picture.svg(), note=one.caption) for one in found)
    return f'<div class="case">{head}<div class="pictures">{drawn}</div></div>'
