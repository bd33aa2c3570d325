"""``columns.csv``: what every column of ``cases.csv`` and ``lesions.csv`` means."""

from typing import TYPE_CHECKING

from nnunet_livseg.evaluation.csv_tables import EMPTY_POLICY, RULES, case_rows, column, lesion_header, metrics_of
from nnunet_livseg.evaluation.lesion_table import COLUMNS
from nnunet_livseg.evaluation.metrics import BURDEN

if TYPE_CHECKING:
    from nnunet_livseg.evaluation.folder_evaluation import FolderResult

_CASE = {
    "case": "name of the case: the file's name without its ending",
    "fold": "fold of the cross-validation that the case was predicted in",
    "seconds": "time that the evaluation of the case took",
    "notes": "what a reader should know: resampled, labels stored as floating point, labels that were not asked for",
}
_COUNTS = {
    "found": "reference lesions found",
    "missed": "reference lesions not found",
    "true": "predicted lesions that found one",
    "false": "predicted lesions that found none",
}


def column_rows(result: "FolderResult") -> list[dict[str, str]]:
    """Rows (file, column, definition) for every column that was written, in order."""
    user = {name: "from the case table" for row in result.case_table.values() for name in row}
    known = user | _CASE | _structure_columns(result) | _detection_columns(result)
    known |= {metric.name: metric.definition for metric in BURDEN}
    cases = list(dict.fromkeys(name for row in case_rows(result) for name in row))
    lesions = {name: _lesion_definition(name, result) for name in lesion_header(result)} | user
    rows = [("cases.csv", name, known[name]) for name in cases]
    rows += [("lesions.csv", name, (lesions | {"case": _CASE["case"]})[name]) for name in lesion_header(result)]
    return [dict(zip(("file", "column", "definition"), row, strict=True)) for row in rows]


def _structure_columns(result: "FolderResult") -> dict[str, str]:
    mode = result.options.mode
    known = {}
    for name in result.summary["structures"]:
        known[f"{name}_status"] = (
            f"which masks have voxels: both, missed, false_alarm, both_empty. {EMPTY_POLICY[mode]}"
        )
        known |= {f"{name}_{column(m, result)}": f"{m.definition} (mode {mode})" for m in metrics_of(result).values()}
    return known


def _detection_columns(result: "FolderResult") -> dict[str, str]:
    rules = {rule for case in result.cases for rule in case.detection}
    return {f"lesions_{rule}_{key}": f"{text}; {RULES[rule][1]}" for rule in rules for key, text in _COUNTS.items()}


def _lesion_definition(name: str, result: "FolderResult") -> str:
    stem = name.removesuffix(f"_{result.unit}").removesuffix("_ml").removesuffix("_mm2")
    metrics = metrics_of(result)
    return COLUMNS.get(stem) or (metrics[stem].definition if stem in metrics else "")
