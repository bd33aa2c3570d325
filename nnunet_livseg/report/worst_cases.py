"""The worst cases of a folder, with pictures of where they are wrong."""

import math

import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER, TUMOR
from nnunet_livseg.core.tables import number
from nnunet_livseg.evaluation.case_evaluation import read_on_one_grid
from nnunet_livseg.evaluation.results import CaseResult, FolderResult
from nnunet_livseg.imaging.images import read_image
from nnunet_livseg.report import page
from nnunet_livseg.report.case_pictures import PREDICTED_COLOR, REFERENCE_COLOR, CaseView, pictures

N_WORST = 4


def worst_section(result: FolderResult) -> str:
    """The cases with the lowest Dice of the tumor (else of the first structure), axial and coronal."""
    focus = TUMOR if TUMOR in result.summary["structures"] else next(iter(result.summary["structures"]))
    scored = [case for case in result.cases if not math.isnan(case.structures[focus]["dice"])]
    worst = sorted(scored, key=lambda case: (case.structures[focus]["dice"], case.case))[:N_WORST]
    if not worst:
        return ""
    legend = (
        f'<ul class="legend"><li style="--c:{REFERENCE_COLOR}">reference</li>'
        f'<li style="--c:{PREDICTED_COLOR}">prediction</li></ul>'
    )
    lead = f"The {len(worst)} cases with the lowest {focus} Dice, where prediction and reference differ most."
    return page.section("Worst cases", legend, *(_case_pictures(result, case, focus) for case in worst), lead=lead)


def _case_pictures(result: FolderResult, case: CaseResult, focus: str) -> str:
    scores = case.structures[focus]
    distance = "hd95" if "hd95" in scores else "hd"
    volumes = f"{number(scores['volume_predicted'], 1)} of {number(scores['volume_reference'], 1)}"
    text = (
        f"{focus} Dice {number(scores['dice'])}, {result.metrics[distance].title} {number(scores[distance], 1)} "
        f"{result.unit}, volume {volumes} {result.size_unit}"
    )
    head = f'<div class="case"><h3>{page.escape(case.case)}</h3><p>{page.escape(text)}</p>'
    try:
        found = [page.figure(p.svg, note=p.caption) for p in pictures(_view(result, case, focus))]
    except UserError as error:  # a file that has vanished or changed since: the numbers stay, the picture is missing
        return f"{head}<p>No picture: {page.escape(error)}</p></div>"
    return f'{head}<div class="pictures">{"".join(found)}</div></div>'


def _view(result: FolderResult, case: CaseResult, focus: str) -> CaseView:
    paths = next(paths for paths in result.inputs.cases if paths.case == case.case)
    predicted, reference, _ = read_on_one_grid(
        paths.predicted, paths.reference, result.options, result.inputs.structures
    )
    ct = None
    if paths.image is not None:
        image = read_image(paths.image).image
        found = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS") if image.GetDimension() == 3 else image)
        ct = found if found.shape == reference.labels.shape else None
    names = [name for name in (LIVER, focus) if name in result.inputs.structures.values]
    structures = {name: result.inputs.structures.values[name] for name in dict.fromkeys(names)}
    return CaseView(predicted.labels, reference.labels, structures, focus, reference.spacing_mm, ct)
