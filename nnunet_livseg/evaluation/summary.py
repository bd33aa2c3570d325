"""From cases to one summary: means per structure, pooled Dice, detection of lesions, strata."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nnunet_livseg.core.labels import TUMOR
from nnunet_livseg.evaluation.lesion_table import MERGED, REFERENCE
from nnunet_livseg.evaluation.lesions import detection_scores
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.overlap import ratio
from nnunet_livseg.evaluation.results import CaseResult
from nnunet_livseg.evaluation.slices import summarize_slices
from nnunet_livseg.evaluation.statistics import describe

GROUPS_OF_NUMBERS = 10  # a numeric column with more values than this is cut into thirds


def summarize(
    results: Sequence[CaseResult], options: Options, case_table: dict[str, dict[str, str]] | None = None
) -> dict:
    """Everything above the level of cases, as JSON types.

    Args:
        results: The finished cases.
        options: How they were evaluated.
        case_table: Case to column to text; every column becomes a family of strata.
    """
    summary = {"n_cases": len(results), "ndim": results[0].ndim if results else 3} | _level(results, options)
    unit = results[0].unit if results else "mm"
    reference = [row for result in results for row in result.lesions if row["kind"] == REFERENCE]
    if options.mode == "default" and "lesions" in summary:
        summary["lesion_strata"] = lesion_strata(results, options.diameter_edges, unit)
        summary["lesions"] |= {"dice_found": _of_found(reference, "dice"), "assd_found": _of_found(reference, "assd")}
    if any(result.slices for result in results):
        names = list(dict.fromkeys(name for result in results for name in result.slices))
        summary["slices"] = {n: summarize_slices([r.slices[n] for r in results if n in r.slices]) for n in names}
    summary["strata"] = {
        column: {group: {"n_cases": len(part)} | _level(part, options) for group, part in groups.items()}
        for column, groups in _case_groups(results, case_table or {}).items()
    }
    return summary


def _level(results: Sequence[CaseResult], options: Options) -> dict:
    """What is summed up over all cases and over each stratum alike."""
    names = list(dict.fromkeys(name for result in results for name in result.structures))
    level = {"structures": {name: _structure(results, name) for name in names}}
    if any(TUMOR in result.structures for result in results):
        level["lesions"] = _lesions(results, options)
    burdens = [result.burden["burden_difference"] for result in results if result.burden]
    if burdens:
        level["burden"] = _burden(burdens, signed_maximum=options.mode == "lits")
    return level


def _structure(results: Sequence[CaseResult], name: str) -> dict:
    having = [result for result in results if name in result.structures]
    status = [result.status(name) for result in having]
    both, predicted, reference = (sum(r.counts[name][k] for r in having) for k in ("both", "predicted", "reference"))
    metrics = {m: describe([r.structures[name][m] for r in having]) for m in having[0].structures[name]}
    return {
        "n_cases": len(having),
        "n_both_empty": status.count("both_empty"),
        "n_missed": status.count("missed"),
        "n_false_alarm": status.count("false_alarm"),
        "dice_per_case": metrics["dice"]["mean"],
        "dice_global": ratio(2 * both, predicted + reference),
        "metrics": metrics,
    }


def _lesions(results: Sequence[CaseResult], options: Options) -> dict:
    rules = next((list(result.detection) for result in results if result.detection), [])
    detection = {}
    for rule in rules:
        counts = [result.detection[rule] for result in results if result.detection]
        pooled = {key: sum(c[key] for c in counts) for key in ("found", "missed", "true", "false")}
        detection[rule] = pooled | detection_scores(pooled)
    first = next(iter(detection.values()), {"found": 0, "missed": 0, "true": 0, "false": 0})
    found = {
        "n_reference": first["found"] + first["missed"],
        "n_predicted": first["true"] + first["false"],
        "false_per_case": {rule: counts["false"] / len(results) for rule, counts in detection.items()},
        "detection": detection,
    }
    if options.mode == "lits":
        rows = [row for result in results for row in result.lesions if row["kind"] == MERGED]
        found["detected_lesions"] = {
            m: describe([row[m] for row in rows]) for m in (rows[0] if rows else ()) if m in _SCORES
        }
    return found


_SCORES = ("dice", "jaccard", "voe", "rvd", "assd", "rmsd", "hd")


def _burden(differences: Sequence[float], *, signed_maximum: bool) -> dict:
    """LiTS's figures of the tumor burden; its maximum keeps its sign and is of reference minus prediction."""
    d = np.asarray(differences, dtype=np.float64)
    rmse = float(np.sqrt(np.square(d).mean()))
    maximum = float((-d).max()) if signed_maximum else float(np.abs(d).max())
    return {"rmse": rmse, "maximum": maximum, "mean_difference": float(d.mean()), "n": int(d.size)}


def _of_found(rows: Iterable[dict], name: str) -> dict:
    return describe([row[name] for row in rows if row["found"]])


def stratum_names(edges: Sequence[float], unit: str) -> list[str]:
    """``< 10 mm``, ``10-20 mm``, ``> 20 mm``: both borders belong to the middle."""
    if not edges:
        return ["all"]
    middle = [f"{low:g}-{high:g} {unit}" for low, high in itertools.pairwise(edges)]
    return [f"< {edges[0]:g} {unit}", *middle, f"{'>=' if len(edges) == 1 else '>'} {edges[-1]:g} {unit}"]


def stratum_of(diameter: float, edges: Sequence[float]) -> int:
    """Index of the stratum: below the first border, between borders (inclusive), above the last."""
    for index, edge in enumerate(edges):
        if diameter < edge or (index > 0 and index == len(edges) - 1 and diameter <= edge):
            return index
    return len(edges)


def lesion_strata(results: Sequence[CaseResult], edges: Sequence[float], unit: str) -> list[dict]:
    """Recall of reference lesions and false predicted lesions by longest diameter."""
    rows = [row for result in results for row in result.lesions]
    strata = []
    for index, name in enumerate(stratum_names(edges, unit)):
        here = [row for row in rows if stratum_of(row["diameter"], edges) == index]
        reference = [row for row in here if row["kind"] == REFERENCE]
        found = [row for row in reference if row["found"]]
        strata.append(
            {
                "stratum": name,
                "n": len(reference),
                "found": len(found),
                "found_50": sum(row["found_50"] for row in reference),
                "recall": ratio(len(found), len(reference)),
                "recall_50": ratio(sum(row["found_50"] for row in reference), len(reference)),
                "false": len(here) - len(reference),
                "dice": describe([row["dice"] for row in reference]),
                "dice_found": describe([row["dice"] for row in found]),
                "assd_found": describe([row["assd"] for row in found]),
            }
        )
    return strata


def _case_groups(
    results: Sequence[CaseResult], case_table: dict[str, dict[str, str]]
) -> dict[str, dict[str, list[CaseResult]]]:
    columns = list(dict.fromkeys(column for row in case_table.values() for column in row))
    families = {"fold": lambda result: result.fold} if len({r.fold for r in results if r.fold}) > 1 else {}
    for column in columns:
        families[column] = _column(column, case_table)
    groups = {}
    for column, value_of in families.items():
        by_value: dict[str, list[CaseResult]] = {}
        for result in results:
            by_value.setdefault(value_of(result) or "(not given)", []).append(result)
        groups[column] = dict(sorted(by_value.items()))
    return groups


def _column(column: str, case_table: dict[str, dict[str, str]]) -> Callable[[CaseResult], str]:
    texts = {case: row.get(column, "") for case, row in case_table.items()}
    numbers = {case: _number(text) for case, text in texts.items() if text}
    values = [value for value in numbers.values() if not math.isnan(value)]
    if len(values) < len(numbers) or len(set(values)) <= GROUPS_OF_NUMBERS:
        return lambda result: texts.get(result.case, "")
    low, high = np.percentile(values, [100 / 3, 200 / 3]).tolist()
    names = (f"1. up to {low:.4g}", f"2. to {high:.4g}", f"3. above {high:.4g}")

    def third(result: CaseResult) -> str:
        value = numbers.get(result.case, math.nan)
        return "" if math.isnan(value) else names[(value > low) + (value > high)]

    return third


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
