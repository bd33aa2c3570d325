"""Results as files: ``cases.csv``, ``lesions.csv``, ``columns.csv`` (what each column means) and ``summary.json``."""

from nnunet_livseg import __version__
from nnunet_livseg.evaluation.lesion_table import COLUMNS
from nnunet_livseg.evaluation.lits_scorer import SCORES
from nnunet_livseg.evaluation.metrics import BURDEN, Metric
from nnunet_livseg.evaluation.results import SCHEMA, FolderResult

_LESION_LENGTHS = {"diameter", "diameter_axial", "assd", "rmsd", "hd", "center_x", "center_y", "center_z"}
_LESION_SIZES = {"volume", "volume_predicted"}
RULES = {  # title and definition
    "group_0": (
        "any overlap, merged lesions (LiTS, corrected)",
        "overlapping lesions are merged on both sides; IoU of the merged pair > 0; all reference lesions of the pair "
        "count as found, all predicted ones as true",
    ),
    "group_50": ("IoU > 0.5, merged lesions (LiTS, corrected)", "as group_0 with IoU > 0.5"),
    "matched_0": (
        "any overlap, one to one",
        "one-to-one matching with the largest sum of IoU; pairs with IoU > 0 count",
    ),
    "matched_50": ("IoU > 0.5, one to one", "as matched_0 with IoU > 0.5"),
    "lits_0": (
        "IoU > 0 (2017 scorer)",
        "a merged pair with IoU > 0 counts once; one below counts 1 minus its number of references",
    ),
    "lits_50": ("IoU > 0.5 (2017 scorer)", "as lits_0 with IoU > 0.5"),
}
EMPTY_POLICY = {
    "default": "Both masks empty: no score, excluded from means and counted. One empty: overlap 0, distances infinite, "
    "counted; "
    "means of distances are over finite values and say how many were excluded.",
    "lits": "Both masks empty: Dice 1. One empty: Dice 0, distances infinite; means are over finite values.",
}


def column(metric: Metric, result: FolderResult) -> str:
    """Name of a metric's column: with its unit."""
    if metric.name.startswith("nsd_"):
        return f"{metric.name}{result.unit}"
    unit = {"length": result.unit, "size": result.size_unit}.get(metric.unit)
    return f"{metric.name}_{unit}" if unit else metric.name


def case_rows(result: FolderResult) -> list[dict]:
    """One row per case: every metric of every structure, burden, detection counts, the user's columns."""
    metrics = result.metrics
    rows = []
    for case in result.cases:
        row: dict = {"case": case.case} | ({"fold": case.fold} if result.inputs.folds else {})
        row |= result.case_table.get(case.case, {})
        for name, scores in case.structures.items():
            row[f"{name}_status"] = case.status(name)
            row |= {f"{name}_{column(metrics[m], result)}": value for m, value in scores.items()}
        row |= case.burden
        for rule, counts in case.detection.items():
            row |= {f"lesions_{rule}_{key}": value for key, value in counts.items()}
        row |= {"seconds": case.seconds, "notes": "; ".join(case.notes)}
        rows.append(row)
    return rows


def lesion_header(result: FolderResult) -> list[str]:
    names = (
        ("kind", "lesion", "group_iou", "volume", "volume_predicted", *SCORES)
        if result.options.mode == "lits"
        else COLUMNS
    )
    extra = list(dict.fromkeys(name for row in result.case_table.values() for name in row))
    return ["case", *extra, *(_lesion_column(name, result) for name in names)]


def lesion_rows(result: FolderResult) -> list[dict]:
    """One row per lesion; the user's columns of its case are repeated."""
    return [
        {"case": case.case}
        | result.case_table.get(case.case, {})
        | {_lesion_column(name, result): value for name, value in row.items()}
        for case in result.cases
        for row in case.lesions
    ]


def _lesion_column(name: str, result: FolderResult) -> str:
    if name in _LESION_LENGTHS:
        return f"{name}_{result.unit}"
    return f"{name}_{result.size_unit}" if name in _LESION_SIZES else name


_CASE = {
    "case": "name of the case: the file's name without its ending",
    "fold": "fold of the cross-validation that the case was predicted in",
    "seconds": "time that the evaluation of the case took",
    "notes": "notes on the case: resampled, labels stored as floating point, labels that were not requested",
}
_COUNTS = {
    "found": "reference lesions found",
    "missed": "reference lesions not found",
    "true": "predicted lesions that found one",
    "false": "predicted lesions that found none",
}


def column_rows(result: FolderResult) -> list[dict[str, str]]:
    """Rows (file, column, definition) for every column that was written, in order."""
    user = {name: "from the case table" for row in result.case_table.values() for name in row}
    known = _CASE | user | _structure_columns(result) | _detection_columns(result)
    known |= {metric.name: metric.definition for metric in BURDEN}
    cases = list(dict.fromkeys(name for row in case_rows(result) for name in row))
    lesions = {name: _lesion_definition(name, result) for name in lesion_header(result)} | user
    rows = [("cases.csv", name, known[name]) for name in cases]
    rows += [("lesions.csv", name, (lesions | {"case": _CASE["case"]})[name]) for name in lesion_header(result)]
    return [dict(zip(("file", "column", "definition"), row, strict=True)) for row in rows]


def _structure_columns(result: FolderResult) -> dict[str, str]:
    mode = result.options.mode
    known = {}
    for name in result.summary["structures"]:
        known[f"{name}_status"] = (
            f"which masks have voxels: both, missed, false_alarm, both_empty. {EMPTY_POLICY[mode]}"
        )
        known |= {f"{name}_{column(m, result)}": f"{m.definition} (mode {mode})" for m in result.metrics.values()}
    return known


def _detection_columns(result: FolderResult) -> dict[str, str]:
    rules = {rule for case in result.cases for rule in case.detection}
    return {f"lesions_{rule}_{key}": f"{text}; {RULES[rule][1]}" for rule in rules for key, text in _COUNTS.items()}


def _lesion_definition(name: str, result: FolderResult) -> str:
    stem = name.removesuffix(f"_{result.unit}").removesuffix("_ml").removesuffix("_mm2")
    metrics = result.metrics
    return COLUMNS.get(stem) or (metrics[stem].definition if stem in metrics else "")


def definitions(result: FolderResult) -> dict:
    """What every number means, for every output."""
    options = result.options
    used = {rule for case in result.cases for rule in case.detection}
    return {
        "mode": options.mode,
        "surface": f"mask minus its erosion with the {options.surface_connectivity}-neighborhood; voxel centers, "
        f"distances in {result.unit}",
        "lesion": f"{options.lesion_connectivity}-connected component of the tumor, no minimum size",
        "empty_masks": EMPTY_POLICY[options.mode],
        "dice_per_case": "mean over cases of the Dice",
        "dice_global": "Dice of all cases' voxels pooled",
        "interval": "95 % percentile bootstrap of the mean, 2,000 resamples",
        "metrics": {m.name: {"title": m.title, "unit": m.unit, "better": m.better, "definition": m.definition}
                    for m in (*result.metrics.values(), *BURDEN)},
        "detection": {rule: text for rule, (_, text) in RULES.items() if rule in used},
        "lesion_columns": {} if options.mode == "lits" else COLUMNS,
    }  # fmt: skip


def summary_document(result: FolderResult) -> dict:
    """The content of ``summary.json``; ``schema`` names its version."""
    inputs = result.inputs
    return {
        "schema": SCHEMA,
        "created_with": f"nnunet-livseg {__version__}",
        "method": result.method,
        "options": result.options.as_dict(),
        "labels": inputs.structures.as_dict(),
        "units": {"length": result.unit, "size": result.size_unit},
        "folds": inputs.folds,
        "definitions": definitions(result),
        **result.summary,
        "problems": [{"case": p.case, "reason": p.reason} for p in result.problems],
        "notes": result.notes,
    }
