"""``summary.md``: the tables of one method, ready for a paper, and below them what every number means."""

import math

from nnunet_livseg.core.tables import interval, markdown_table, mean_sd, number
from nnunet_livseg.evaluation.csv_tables import definitions
from nnunet_livseg.evaluation.results import FolderResult

DETECTION_HEADER = ("found", "missed", "false", "precision", "recall", "F1", "false per case")


def summary_markdown(result: FolderResult) -> str:
    """The whole document."""
    summary = result.summary
    left_out = f", {len(result.problems)} skipped" if result.problems else ""
    parts = [
        f"# {result.method}",
        f"{summary['n_cases']} cases evaluated{left_out}; mode {result.options.mode}.",
        "## Structures",
        structure_table(result),
    ]
    if "lesions" in summary:
        parts += ["## Lesions", detection_table(summary["lesions"])]
    if summary.get("lesion_strata"):
        parts += ["### By longest diameter", stratum_table(summary["lesion_strata"], result.unit)]
    for name, found in summary.get("slices", {}).items():
        parts += [f"## Axial slices with {name}", slice_table(found)]
    if "burden" in summary:
        parts += ["## Tumor burden", _burden(summary["burden"], result.options.mode)]
    for column, groups in summary["strata"].items():
        parts += [f"## By {column}", markdown_table(*group_rows(groups, result.unit))]
    if result.problems:
        parts += [
            "## Skipped",
            markdown_table(("case", "reason"), [(p.case, _line(p.reason)) for p in result.problems], left=2),
        ]
    if result.notes:
        parts += ["## Notes", "\n".join(f"- {_line(note)}" for note in result.notes)]
    return "\n\n".join(part.strip() for part in [*parts, "## Definitions", _definitions(result)]) + "\n"


def structure_table(result: FolderResult) -> str:
    """One row per metric; per structure mean ± sd, median, the interval of the mean, and the number of valid cases."""
    header, rows = structure_rows(result)
    structures = result.summary["structures"].values()
    counts = (("n_both_empty", "both empty"), ("n_missed", "missed entirely"), ("n_false_alarm", "false alarms"))
    rows += [[f"cases: {text}", *(c for s in structures for c in (str(s[key]), "", "", ""))] for key, text in counts]
    return markdown_table(header, rows)


def structure_rows(result: FolderResult) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of structures."""
    structures = result.summary["structures"]
    header = ["", *(text for name in structures for text in (name.capitalize(), "median", "95 % interval", "n"))]
    pooled = (cell for s in structures.values() for cell in (number(s["dice_global"]), "", "", ""))
    rows = [["DSC, pooled voxels", *pooled]]
    for name, metric in result.metrics.items():
        unit = {"length": f" [{result.unit}]", "size": f" [{result.size_unit}]"}.get(metric.unit, "")
        digits = 2 if metric.unit else 3
        cells = (cell for s in structures.values() for cell in _cells(s["metrics"][name], digits))
        rows.append([f"{metric.title}{unit}", *cells])
    return header, rows


def _cells(stats: dict, digits: int) -> tuple[str, ...]:
    return mean_sd(stats, digits), number(stats["median"], digits), interval(stats["ci95"], digits), str(stats["n"])


def slice_table(found: dict) -> str:
    """Means over axial slices, distances in pixels."""
    rows = [(f"{m} [px]" if m == "hd" else m, mean_sd(stats)) for m, stats in found.items() if isinstance(stats, dict)]
    rows.append(("f1 (of mean precision and recall)", number(found["f1"])))
    return f"{found['n_slices']} slices.\n\n" + markdown_table(("score", "mean ± sd over slices"), rows)


def detection_rows(lesions: dict) -> list[tuple[str, ...]]:
    """Name of each rule, its counts and scores, false lesions per case: the columns of ``DETECTION_HEADER``."""
    rows = []
    for rule, d in lesions["detection"].items():
        counts = (str(d[key]) for key in ("found", "missed", "false"))
        scores = (number(d[key]) for key in ("precision", "recall", "f1"))
        rows.append((rule, *counts, *scores, number(lesions["false_per_case"][rule], 2)))
    return rows


def detection_table(lesions: dict) -> str:
    """Counts and scores of every rule."""
    text = f"{lesions['n_reference']} reference and {lesions['n_predicted']} predicted lesions.\n\n"
    text += markdown_table(("rule", *DETECTION_HEADER), detection_rows(lesions))
    if "dice_found" in lesions:
        found = lesions["dice_found"]
        text += f"\nDice of found lesions (one to one): {mean_sd(found)}, over {found['n']} lesions.\n"
    if lesions.get("detected_lesions"):
        cells = [(name, mean_sd(stats), str(stats["n"])) for name, stats in lesions["detected_lesions"].items()]
        text += "\nAveraged over detected lesions (merged, IoU > 0.5) only:\n\n"
        text += markdown_table(("score", "mean ± sd", "lesions"), cells)
    return text


def stratum_rows(strata: list[dict]) -> list[tuple[str, ...]]:
    """Detection and scores by size: the columns of ``stratum_header``."""
    return [
        (
            *(s["stratum"], str(s["n"]), str(s["found"]), number(s["recall"]), number(s["recall_50"]), str(s["false"])),
            *(mean_sd(s["dice"]), mean_sd(s["dice_found"]), mean_sd(s["assd_found"], 2)),
        )
        for s in strata
    ]


def stratum_header(unit: str) -> tuple[str, ...]:
    titles = ("longest diameter", "lesions", "found", "recall", "recall, IoU > 0.5", "false", "Dice", "Dice of found")
    return (*titles, f"ASSD of found [{unit}]")


def stratum_table(strata: list[dict], unit: str) -> str:
    """Detection by size."""
    return markdown_table(stratum_header(unit), stratum_rows(strata))


def group_rows(groups: dict[str, dict], unit: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the strata by one column."""
    structures = list(dict.fromkeys(name for group in groups.values() for name in group["structures"]))
    shown = ("DSC", "pooled", f"ASSD [{unit}]")
    header = ["group", "cases", *(f"{s} {m}" for s in structures for m in shown), "lesion recall"]
    rows = []
    for name, group in groups.items():
        cells = [cell for s in structures for cell in _group_cells(group["structures"].get(s))]
        detection = next(iter(group.get("lesions", {}).get("detection", {}).values()), {"recall": math.nan})
        rows.append([name, str(group["n_cases"]), *cells, number(detection["recall"])])
    return header, rows


def _group_cells(found: dict | None) -> list[str]:
    if found is None:
        return ["-"] * 3
    return [mean_sd(found["metrics"]["dice"]), number(found["dice_global"]), mean_sd(found["metrics"]["assd"], 2)]


def _burden(burden: dict, mode: str) -> str:
    kind = "maximum of reference minus prediction (signed)" if mode == "lits" else "largest absolute error"
    return f"RMSE {number(burden['rmse'], 4)}, {kind} {number(burden['maximum'], 4)}, over {burden['n']} cases."


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _definitions(result: FolderResult) -> str:
    known = definitions(result)
    single = [f"- {key.replace('_', ' ')}: {text}" for key, text in known.items() if isinstance(text, str)]
    single += [f"- {row['title']}: {row['definition']}" for row in known["metrics"].values()]
    return "\n".join(single + [f"- detection {rule}: {text}" for rule, text in known["detection"].items()])
