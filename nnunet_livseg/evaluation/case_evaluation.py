"""Evaluate one case: a predicted and a reference label map in, all numbers out."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import (
    LIVER,
    TUMOR,
    Structures,
    in_predicted_values,
    mask_of,
    require_known,
    structures_from_values,
)
from nnunet_livseg.data.segment_files import read_label_pair, read_labels
from nnunet_livseg.evaluation import lits_scorer
from nnunet_livseg.evaluation.lesion_table import lesion_rows
from nnunet_livseg.evaluation.lesions import LesionPair, detection_counts
from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.metrics import structure_scores
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.overlap import ratio
from nnunet_livseg.evaluation.results import CaseResult
from nnunet_livseg.evaluation.slices import slice_scores
from nnunet_livseg.imaging.label_maps import LabelImage, grid_difference, label_map_stem, resampled
from nnunet_livseg.imaging.masks import bounding_box

LITS_LABELS = structures_from_values((1,), (2,))


def evaluate_case(
    predicted: str | Path | np.ndarray,
    reference: str | Path | np.ndarray,
    *,
    spacing_mm: tuple[float, ...] | None = None,
    structures: Structures | Mapping[str, tuple[int, ...]] | None = None,
    options: Options | None = None,
    case: str = "",
) -> CaseResult:
    """Evaluate one predicted label map against its reference.

    Args:
        predicted: File, or label map ``(z, y, x)`` or ``(y, x)``.
        reference: File or label map on the same grid.
        spacing_mm: Voxel spacing of arrays, in the order of their axes. Defaults to pixels as the unit.
        structures: Label values of each structure. Defaults to liver 1 (with tumor) and tumor 2.
        options: Definitions. Defaults to those of the package.
        case: Name in the result. Defaults to the file name.

    Raises:
        UserError: If a file cannot be read or is not a label map, has unknown labels, or the grids differ.
    """
    start = time.perf_counter()
    options = options or Options()
    structures = _as_structures(structures)
    one, other = _load(predicted, reference, spacing_mm, structures)
    one, other, notes = on_one_grid(one, other, options)
    other, more = _in_predicted_values(other, structures)
    box = bounding_box((one.labels != 0) | (other.labels != 0))
    cut = one.labels[box], other.labels[box]
    notes += more + check_labels(*cut, structures)
    result = _score(mask_pairs(*cut, box, other, structures), other, options)
    result.case = case or (_name(predicted) if isinstance(predicted, (str, Path)) else "")
    result.notes = notes
    result.seconds = round(time.perf_counter() - start, 3)
    return result


def _as_structures(structures: Structures | Mapping | None) -> Structures:
    if isinstance(structures, Structures):
        return structures
    return Structures({k: tuple(v) for k, v in structures.items()}) if structures else LITS_LABELS


def _name(path: str | Path) -> str:
    return label_map_stem(Path(path).name)


@dataclass(frozen=True)
class _Array:
    """A label map that came as an array: no geometry but its spacing."""

    labels: np.ndarray
    spacing_mm: tuple[float, ...]
    unit: str
    image: None = None
    notes: tuple[str, ...] = ()


def _load(predicted, reference, spacing_mm: tuple[float, ...] | None, structures: Structures) -> tuple:
    """Both as label images; files of one case are read together, because named segments need the other one's grid."""
    given = predicted, reference
    if all(isinstance(source, (str, Path)) for source in given):
        return read_label_pair(Path(predicted), Path(reference), structures)
    return tuple(
        read_labels(Path(source), structures, turned_to="LPS")
        if isinstance(source, (str, Path))
        else _of_array(source, spacing_mm)
        for source in given
    )


def _of_array(array: np.ndarray, spacing_mm: tuple[float, ...] | None) -> _Array:
    labels = np.asarray(array)
    if labels.dtype.kind not in "iub":
        raise UserError(f"a label map must have integers, but the type of this array is {labels.dtype}")
    labels = labels.view(np.uint8) if labels.dtype == bool else labels
    return _Array(labels, tuple(spacing_mm or (1.0,) * labels.ndim), "mm" if spacing_mm else "px")


def read_on_one_grid(
    predicted: Path, reference: Path, options: Options, structures: Structures
) -> tuple[LabelImage, LabelImage, list[str]]:
    """Both label maps turned to the patient's axes, on the reference's grid, in the predictions' values, and notes.

    Raises:
        UserError: A file cannot be read; as ``on_one_grid``.
    """
    one, other, notes = on_one_grid(*read_label_pair(predicted, reference, structures), options)
    other, more = _in_predicted_values(other, structures)
    return one, other, notes + more


def _in_predicted_values(
    reference: LabelImage | _Array, structures: Structures
) -> tuple[LabelImage | _Array, list[str]]:
    labels, notes = in_predicted_values(reference.labels, structures)
    return replace(reference, labels=labels), notes


def on_one_grid(predicted, reference, options: Options) -> tuple:
    """Both label images on the reference's grid, and notes.

    Raises:
        UserError: The grids differ and ``options`` do not ask for resampling.
    """
    notes = [*predicted.notes, *reference.notes]
    if predicted.image is None or reference.image is None:
        if predicted.labels.shape != reference.labels.shape:
            shapes = f"prediction {predicted.labels.shape}, reference {reference.labels.shape}"
            raise UserError(f"the shapes differ: {shapes}.\n  Give the reference of the same image.")
        return predicted, reference, notes
    difference = grid_difference(predicted, reference)
    if not difference:
        return predicted, reference, notes
    possible = predicted.image.GetDimension() == reference.image.GetDimension() and reference.unit == "mm"
    if options.resample and possible:
        predicted = resampled(predicted, reference)
        return predicted, reference, [*predicted.notes, *reference.notes]
    remedy = (
        "Add --resample to resample the prediction."
        if possible
        else "They cannot be resampled: there is no common space."
    )
    raise UserError(f"prediction and reference are on different grids: {difference}.\n  {remedy}")


def check_labels(predicted: np.ndarray, reference: np.ndarray, structures: Structures) -> list[str]:
    """Reject labels that are not declared; returns notes on those that are not evaluated."""
    notes = require_known(predicted, structures, "prediction")
    return notes + require_known(reference, structures, "reference", may_ignore=True)


def mask_pairs(
    predicted: np.ndarray,
    reference: np.ndarray,
    box: tuple[slice, ...],
    image: LabelImage | _Array,
    structures: Structures,
) -> dict[str, MaskPair]:
    """The masks of each structure, from label maps ``(*C)`` cut to ``box``."""
    n_voxels, ignored_in = image.labels.size, np.zeros(len(reference), int)
    if structures.ignore is not None:
        ignored = reference == structures.ignore
        ignored_in = np.count_nonzero(ignored, axis=tuple(range(1, ignored.ndim)))
        n_voxels -= int(ignored_in.sum())
        predicted, reference = np.where(ignored, 0, predicted), np.where(ignored, 0, reference)
    pairs = {}
    for name, values in structures.values.items():
        masks = mask_of(predicted, values), mask_of(reference, values)
        cut = MaskPair.of(*masks, image.spacing_mm, n_voxels=n_voxels)
        corner = tuple(outer.start + inner for outer, inner in zip(box, cut.corner, strict=True))
        slices = slice(cut.corner[0], cut.corner[0] + len(cut.reference))
        pixels = math.prod(image.labels.shape[1:]) - ignored_in[slices]
        pairs[name] = replace(cut, shape=image.labels.shape, corner=corner, slice_pixels=pixels)
    return pairs


def _score(pairs: dict[str, MaskPair], reference: LabelImage | _Array, options: Options) -> CaseResult:
    ndim, in_lits = reference.labels.ndim, options.mode == "lits"
    factor = size_factor(reference.unit, reference.spacing_mm)
    score = lits_scorer.lits_scores if in_lits else lambda pair: structure_scores(pair, options)
    result = CaseResult("", reference.unit, ndim, {}, {})
    for name, pair in pairs.items():
        scores = score(pair)
        scores |= {"volume_predicted": pair.n_predicted * factor, "volume_reference": pair.n_reference * factor}
        result.structures[name] = scores
        result.counts[name] = {
            "both": pair.n_both,
            "predicted": pair.n_predicted,
            "reference": pair.n_reference,
            "image": pair.n_voxels,
        }
    if TUMOR in pairs and options.slices and ndim == 3:
        result.slices[TUMOR] = slice_scores(pairs[TUMOR], options.surface_connectivity)
    if TUMOR in pairs:
        lesions = LesionPair(pairs[TUMOR], options.lesion_connectivity)
        result.lesions = lesion_rows(lesions, reference.image, factor=factor, options=options)
        result.detection = lits_scorer.lits_detection(lesions) if in_lits else detection_counts(lesions)
    if TUMOR in pairs and LIVER in pairs:
        result.burden = _burden(pairs[TUMOR], pairs[LIVER])
    return result


def size_factor(unit: str, spacing_mm: tuple[float, ...]) -> float:
    """Size of a voxel in ml (3D), mm2 (2D) or pixels."""
    if unit == "px":
        return 1.0
    return math.prod(spacing_mm) / (1000 if len(spacing_mm) == 3 else 1)


def _burden(tumor: MaskPair, liver: MaskPair) -> dict[str, float]:
    predicted, reference = ratio(tumor.n_predicted, liver.n_predicted), ratio(tumor.n_reference, liver.n_reference)
    return {
        "burden_predicted": predicted,
        "burden_reference": reference,
        "burden_difference": -lits_scorer.burden_difference(tumor, liver),
    }
