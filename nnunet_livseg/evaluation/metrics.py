"""The metrics: one row each, with unit, direction and definition, and the function that fills them for a pair of masks.

Empty masks, decided here once. Neither mask has a voxel: every score is NaN and left out of means. Only one has: the
overlap is 0, distances are infinite (or the image diagonal, ``worst="diagonal"``), the surface Dice is 0.
"""

import math
from dataclasses import dataclass

from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.overlap import Confusion, overlap_scores
from nnunet_livseg.evaluation.surface_dice import surface_dice
from nnunet_livseg.evaluation.surface_distances import SurfaceDistances


@dataclass(frozen=True)
class Metric:
    """One score of one structure.

    Args:
        name: Key in results; a unit is appended in files (``assd_mm``).
        title: How tables head it.
        unit: ``""``, ``length``, ``size`` or ``share``; lengths are mm or px, sizes ml, mm2 or px.
        better: ``higher``, ``lower``, ``zero`` (nearer to 0), or ``""`` if it is not a score.
        definition: Printed in every output. A = predicted, B = reference.
    """

    name: str
    title: str
    unit: str
    better: str
    definition: str


_TABLE = (
    Metric("dice", "DSC", "", "higher", "Dice: 2TP/(2TP+FP+FN)"),
    Metric("jaccard", "Jaccard", "", "higher", "intersection over union: TP/(TP+FP+FN)"),
    Metric("voe", "VOE", "", "lower", "volumetric overlap error: 1 - Jaccard"),
    Metric("rvd", "RVD", "", "zero", "relative volume difference, signed: (|A| - |B|)/|B|"),
    Metric("assd", "ASSD", "length", "lower", "mean of the pooled distances of both surfaces"),
    Metric("rmsd", "RMSD", "length", "lower", "root mean square of the pooled distances of both surfaces"),
    Metric("hd95", "HD95", "length", "lower", "{hd95}"),
    Metric("hd", "HD", "length", "lower", "the larger of the two directed maximum distances"),
    Metric("accuracy", "Accuracy", "", "higher", "(TP+TN)/all voxels; depends on the field of view"),
    Metric("precision", "Precision", "", "higher", "TP/(TP+FP); undefined where nothing is predicted"),
    Metric("recall", "Recall", "", "higher", "TP/(TP+FN); undefined where the reference is empty"),
    Metric("specificity", "Specificity", "", "higher", "TN/(TN+FP); depends on the field of view"),
    Metric("npv", "NPV", "", "higher", "negative predictive value: TN/(TN+FN); depends on the field of view"),
    Metric("f1", "F1", "", "higher", "harmonic mean of precision and recall per case, which is the Dice"),
    Metric("mcc", "MCC", "", "higher", "Matthews correlation, 0 where a margin of the confusion matrix is empty"),
    Metric("volume_predicted", "Volume predicted", "size", "", "number of predicted voxels x voxel size"),
    Metric("volume_reference", "Volume reference", "size", "", "number of reference voxels x voxel size"),
)
BURDEN = (
    Metric("burden_predicted", "Burden predicted", "", "", "predicted tumor volume / predicted liver volume"),
    Metric("burden_reference", "Burden reference", "", "", "reference tumor volume / reference liver volume"),
    Metric("burden_difference", "Burden difference", "", "zero", "predicted minus reference tumor burden"),
)
_HD95 = {
    "max": "the larger of the two directed 95th percentiles (linear interpolation)",
    "pooled": "95th percentile of the pooled distances of both surfaces (linear interpolation)",
}
_NSD = {
    "area": "share of both surfaces' area within {t:g} {unit} of the other surface (surface elements, Nikolov et al.)",
    "voxels": "share of both surfaces' voxels within {t:g} {unit} of the other surface",
}


def nsd_name(tolerance: float) -> str:
    """Key of the surface Dice at a tolerance: ``nsd_2``; its column gets the unit: ``nsd_2mm``."""
    return f"nsd_{tolerance:g}"


def metric_table(options: Options, *, length_unit: str = "mm") -> dict[str, Metric]:
    """All metrics of a structure under ``options``, in the order of the columns."""
    rows = {row.name: row for row in _TABLE}
    hd95 = rows["hd95"]
    rows["hd95"] = Metric(hd95.name, hd95.title, hd95.unit, hd95.better, _HD95[options.hd95])
    names = list(rows)
    after = names.index("hd") + 1
    for t in options.tolerances:
        text = _NSD[options.nsd].format(t=t, unit=length_unit)
        rows[nsd_name(t)] = Metric(nsd_name(t), f"NSD {t:g} {length_unit}", "", "higher", text)
    rows = {name: rows[name] for name in [*names[:after], *map(nsd_name, options.tolerances), *names[after:]]}
    if options.mode == "lits":
        rows = {name: rows[name] for name in _LITS}
        rows["rvd"] = Metric("rvd", "RVD", "", "zero", "as the scorer has it, arguments swapped: (|B| - |A|)/|A|")
        rows["hd"] = Metric("hd", "MSD", "length", "lower", "maximum symmetric surface distance")
    return rows


_LITS = ("dice", "jaccard", "voe", "rvd", "assd", "rmsd", "hd", "volume_predicted", "volume_reference")


def structure_scores(pair: MaskPair, options: Options | None = None) -> dict[str, float]:
    """All scores of one structure, volumes in ml.

    Args:
        pair: The two masks.
        options: Definitions. Defaults to those of the package.

    Returns:
        Name to value, in the order of ``metric_table``.
    """
    options = options or Options()
    scores = overlap_scores(Confusion.of(pair))
    scores |= _distance_scores(pair, options)
    voxel_ml = math.prod(pair.spacing_mm) / 1000
    scores |= {"volume_predicted": pair.n_predicted * voxel_ml, "volume_reference": pair.n_reference * voxel_ml}
    return {name: scores[name] for name in metric_table(options)}


def _distance_scores(pair: MaskPair, options: Options) -> dict[str, float]:
    names = ("assd", "rmsd", "hd95", "hd")
    if pair.n_predicted == 0 or pair.n_reference == 0:
        worst = pair.diagonal_mm if options.worst == "diagonal" else math.inf
        both_empty = pair.n_predicted == pair.n_reference
        scores = dict.fromkeys(names, math.nan if both_empty else worst)
        return scores | {nsd_name(t): math.nan if both_empty else 0.0 for t in options.tolerances}
    distances = SurfaceDistances.of(pair, options.surface_connectivity)
    values = (distances.assd_mm(), distances.rmsd_mm(), distances.hd95_mm(options.hd95), distances.hd_mm())
    scores = dict(zip(names, values, strict=True))
    if options.mode == "lits":
        return scores
    if options.nsd == "voxels":
        return scores | {nsd_name(t): distances.share_within(t) for t in options.tolerances}
    return scores | {nsd_name(t): value for t, value in surface_dice(pair, options.tolerances).items()}
