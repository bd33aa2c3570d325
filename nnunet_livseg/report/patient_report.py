"""The report of one patient: one HTML page that needs nothing but itself, and a PNG preview.

A page says whose CT it is only where the caller passes ``identifiers``. Series descriptions, in which names may stand,
are shown only then.
"""

import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path

from nnunet_livseg import __version__
from nnunet_livseg.core.files import atomic_path, write_text
from nnunet_livseg.core.labels import TUMOR
from nnunet_livseg.patient.segmentation import Segmentation
from nnunet_livseg.report import page
from nnunet_livseg.report.key_slices import KeySlices
from nnunet_livseg.report.patient_pictures import (
    preview_pictures,
    projection_section,
    slice_section,
    uncertainty_section,
)
from nnunet_livseg.report.patient_tables import definitions, lesion_section, milliliters, structure_section
from nnunet_livseg.report.preview import preview_png
from nnunet_livseg.report.slice_viewer import lesion_links, script, viewer_section

NOT_FOR_CLINICAL_USE = "Not for clinical use."


def write_report(
    result: Segmentation,
    path: str | Path,
    *,
    identifiers: Mapping[str, str] | None = None,
    slices: KeySlices | None = None,
) -> Path:
    """Write the report and return its path.

    Args:
        result: What was segmented and measured.
        path: HTML file, or a folder in which it is called ``report.html``.
        identifiers: What names the patient, title to value, if the page is to show it; with them the page also shows
            the description of the DICOM series.
        slices: Those of the result, where they were made before.
    """
    path = _file(path, "report.html")
    write_text(path, report_html(result, identifiers=identifiers, slices=slices))
    return path


def write_preview(result: Segmentation, path: str | Path, *, slices: KeySlices | None = None) -> Path:
    """Write a picture of the result (``preview.png`` in a folder) and return its path. It has no identifiers."""
    path = _file(path, "preview.png")
    with atomic_path(path) as temporary:
        temporary.write_bytes(preview_png(preview_pictures(slices or KeySlices(result))))
    return path


def _file(path: str | Path, name: str) -> Path:
    path = Path(path)
    return path if path.suffix == Path(name).suffix and not path.is_dir() else path / name


def report_html(
    result: Segmentation, *, identifiers: Mapping[str, str] | None = None, slices: KeySlices | None = None
) -> str:
    """The report as HTML text; see ``write_report``."""
    slices = slices or KeySlices(result)
    body = [
        _identity_section(result, identifiers),
        page.key_figures(_key_figures(result)),
        _caution(result, is_ct=slices.is_ct),
        lesion_section(result, links=lesion_links(slices)),
        viewer_section(slices),
        projection_section(slices),
        slice_section(slices),
        uncertainty_section(slices),
        structure_section(result),
        _making_section(result),
    ]
    kicker = "Liver and liver tumors in CT" if TUMOR in result.structures else "Liver in CT"
    footer = f"nnunet-livseg {__version__}. {NOT_FOR_CLINICAL_USE}"
    return page.page(result.name, kicker=kicker, facts=_facts(result), body=body, footer=footer, script=script())


def _facts(result: Segmentation) -> Iterator[str]:
    yield " × ".join(str(n) for n in result.image.GetSize()) + " voxels"
    yield " × ".join(f"{mm:.3g}" for mm in result.image.GetSpacing()) + " mm"
    if result.series is not None and result.series.phase:
        yield f"{result.series.phase} phase (guessed)"
    yield f"quality {result.provenance.quality}"
    yield f"made {datetime.datetime.now().astimezone():%Y-%m-%d}"


def _identity_section(result: Segmentation, identifiers: Mapping[str, str] | None) -> str:
    if not identifiers:
        return ""
    series = {"Series": result.series.description} if result.series is not None and result.series.description else {}
    return page.section("Patient", page.definitions((series | dict(identifiers)).items()))


def _key_figures(result: Segmentation) -> Iterator[tuple[str, str, str]]:
    found = result.measurements
    if found.liver_ml is not None:
        yield "Liver", milliliters(found.liver_ml), "ml, tumors included" if found.lesions is not None else "ml"
    if found.lesions is None:
        return
    yield "Lesions", str(len(found.lesions)), f"{milliliters(found.tumor_ml)} ml in all"
    if found.tumor_burden is not None:
        yield "Tumor burden", f"{found.tumor_burden:.1%}", "of the liver's volume"
    if found.lesions:
        longest = max(found.lesions, key=lambda lesion: lesion.diameter.length_mm)
        yield "Largest diameter", f"{longest.diameter.length_mm:.1f}", f"mm, lesion {longest.number}"


def _caution(result: Segmentation, *, is_ct: bool) -> str:
    """The box of what limits the numbers."""
    found = result.measurements
    items = [
        (f"{name.capitalize()} cut off:", "touches the border of the image and may continue outside it.")
        for name in found.truncated
    ]
    if found.liver_ml is None:
        items.append(("No label for the liver:", "the model does not segment it, so there is no volume and no burden."))
    elif not found.liver_ml:
        items.append(("No liver found:", "is this a CT of the abdomen, in Hounsfield units?"))
    if found.lesions is None:
        items.append(("No label for tumors:", "the model does not segment them, so the report has none."))
    if not is_ct:
        items.append(("Probably not in Hounsfield units:", "the image contains no air; models for CT may fail on it."))
    read = result.series.notes if result.series is not None else ()
    items += [("Note:", note) for note in dict.fromkeys([*read, *result.notes])]
    return page.warning("Keep in mind", items) if items else ""


def _making_section(result: Segmentation) -> str:
    made = result.provenance
    terms = {
        "model": made.model,
        "weights": f"{made.checkpoint} of fold{'s' if len(made.folds) > 1 else ''} {', '.join(made.folds)}",
        "quality": made.quality,
        **made.settings,
        "time": f"{made.seconds:.0f} s on {made.device}",
        "versions": ", ".join(f"{name} {version}" for name, version in made.versions.items()),
    }
    meaning = "<h3>What the numbers mean</h3>" + definitions(result)
    return page.section("How it was made", page.definitions(terms.items()), meaning)
