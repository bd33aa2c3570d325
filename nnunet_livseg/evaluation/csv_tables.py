"""Results as files: ``cases.csv``, ``lesions.csv``, ``summary.json`` and a Markdown table for papers."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nnunet_livseg import __version__
from nnunet_livseg.evaluation.lesion_table import COLUMNS
from nnunet_livseg.evaluation.lits_scorer import SCORES
from nnunet_livseg.evaluation.metrics import BURDEN, Metric, metric_table
from nnunet_livseg.evaluation.store import SCHEMA

if TYPE_CHECKING:
    from nnunet_livseg.evaluation.folder_evaluation import FolderResult

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
    "default": "Both masks empty: no score, left out of means and counted. One empty: overlap 0, distances infinite, "
    "counted; "
    "means of distances are over finite values and say how many were left out.",
    "lits": "Both masks empty: Dice 1. One empty: Dice 0, distances infinite; means are over finite values.",
}


def size_unit(unit: str, ndim: int) -> str:
    """Unit of volumes: ml, mm2 (2D) or px."""
    if unit == "px":
        return "px"
    return "ml" if ndim == 3 else "mm2"


def column(metric: Metric, result: "FolderResult") -> str:
    """Name of a metric's column: with its unit."""
    if metric.name.startswith("nsd_"):
        return f"{metric.name}{result.unit}"
    unit = {"length": result.unit, "size": size_unit(result.unit, result.ndim)}.get(metric.unit)
    return f"{metric.name}_{unit}" if unit else metric.name


def metrics_of(result: "FolderResult") -> dict[str, Metric]:
    return metric_table(result.options, length_unit=result.unit)


def case_rows(result: "FolderResult") -> list[dict]:
    """One row per case: every metric of every structure, burden, detection counts, the user's columns."""
    metrics = metrics_of(result)
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


def lesion_header(result: "FolderResult") -> list[str]:
    names = (
        ("kind", "lesion", "group_iou", "volume", "volume_predicted", *SCORES)
        if result.options.mode == "lits"
        else COLUMNS
    )
    extra = list(dict.fromkeys(name for row in result.case_table.values() for name in row))
    return ["case", *extra, *(_lesion_column(name, result) for name in names)]


def lesion_rows(result: "FolderResult") -> list[dict]:
    """One row per lesion; the user's columns of its case are repeated."""
    return [
        {"case": case.case}
        | result.case_table.get(case.case, {})
        | {_lesion_column(name, result): value for name, value in row.items()}
        for case in result.cases
        for row in case.lesions
    ]


def _lesion_column(name: str, result: "FolderResult") -> str:
    if name in _LESION_LENGTHS:
        return f"{name}_{result.unit}"
    return f"{name}_{size_unit(result.unit, result.ndim)}" if name in _LESION_SIZES else name


def to_csv(rows: Sequence[dict], header: Sequence[str] | None = None) -> str:
    """CSV text; undefined values are empty, infinite ones are ``inf``."""
    columns = list(dict.fromkeys([*(header or ()), *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.10g}"
    return value


def definitions(result: "FolderResult") -> dict:
    """What every number means, for every output."""
    options = result.options
    used = {rule for case in result.cases for rule in case.detection}
    return {
        "mode": options.mode,
        "surface": f"mask minus its erosion with the {options.surface_neighbours}-neighbourhood; voxel centres, "
        f"distances in {result.unit}",
        "lesion": f"{options.lesion_neighbours}-connected component of the tumor, no minimum size",
        "empty_masks": EMPTY_POLICY[options.mode],
        "dice_per_case": "mean over cases of the Dice",
        "dice_global": "Dice of all cases' voxels pooled",
        "interval": "95 % percentile bootstrap of the mean, 2,000 resamples",
        "metrics": {m.name: {"title": m.title, "unit": m.unit, "better": m.better, "definition": m.definition}
                    for m in (*metrics_of(result).values(), *BURDEN)},
        "detection": {rule: text for rule, (_, text) in RULES.items() if rule in used},
        "lesion_columns": {} if options.mode == "lits" else COLUMNS,
    }  # fmt: skip


def summary_document(result: "FolderResult") -> dict:
    """The content of ``summary.json``; ``schema`` names its version."""
    inputs = result.inputs
    return {
        "schema": SCHEMA,
        "created_with": f"nnunet-livseg {__version__}",
        "method": result.method,
        "options": result.options.as_dict(),
        "labels": inputs.structures.as_dict(),
        "units": {"length": result.unit, "size": size_unit(result.unit, result.ndim)},
        "folds": inputs.folds,
        "definitions": definitions(result),
        **result.summary,
        "problems": [{"case": p.case, "reason": p.reason} for p in result.problems],
        "notes": result.notes,
    }


def number(value: float, digits: int = 3) -> str:
    """A number for people: fixed digits, ``-`` where undefined, an infinity sign."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{digits}f}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are aligned left, the others right."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)) + "\n"


def mean_sd(stats: dict, digits: int = 3) -> str:
    """``mean ± sd``, with the number of infinite values that were left out; no spread of a single value."""
    spread = "" if math.isnan(stats["sd"]) else f" ± {number(stats['sd'], digits)}"
    left_out = f" ({stats['n_infinite']} inf)" if stats["n_infinite"] else ""
    return f"{number(stats['mean'], digits)}{spread}{left_out}"


def interval(bounds: Sequence[float], digits: int = 3) -> str:
    """``low to high``, or ``-`` where there is none."""
    low, high = bounds
    return "-" if math.isnan(low) else f"{number(low, digits)} to {number(high, digits)}"
