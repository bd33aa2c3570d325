"""The report of one folder of predictions: what ``livseg evaluate`` writes as ``report.html``."""

import datetime
from pathlib import Path

from nnunet_livseg import __version__
from nnunet_livseg.core.files import write_text
from nnunet_livseg.core.labels import LIVER, TUMOR
from nnunet_livseg.core.tables import interval, mean_sd, number
from nnunet_livseg.evaluation.csv_tables import RULES, definitions
from nnunet_livseg.evaluation.lesion_table import REFERENCE
from nnunet_livseg.evaluation.results import CaseResult, FolderResult
from nnunet_livseg.evaluation.summary_markdown import (
    DETECTION_HEADER,
    detection_rows,
    group_rows,
    stratum_header,
    stratum_rows,
    structure_rows,
)
from nnunet_livseg.report import charts, page
from nnunet_livseg.report.worst_cases import worst_section

_EMPTY_COUNTS = {
    "n_missed": "missed entirely",
    "n_false_alarm": "false alarm",
    "n_both_empty": "without it on both sides",
}
_FEW = 3  # below, distributions and limits of agreement show nothing
_OPEN_UP_TO = 60  # cases; longer tables are folded


def write_report(result: FolderResult, path: str | Path) -> None:
    """Write the report as one self-contained HTML file."""
    write_text(path, report_html(result))


def report_html(result: FolderResult) -> str:
    """The report as HTML text."""
    summary = result.summary
    facts = [
        f"{summary['n_cases']} cases",
        *([f"{len(result.problems)} skipped"] if result.problems else []),
        *([f"{len(result.inputs.folds)} folds"] if result.inputs.folds else []),
        f"mode {result.options.mode}",
        datetime.datetime.now().astimezone().strftime("%Y-%m-%d"),
    ]
    body = [
        page.key_figures(_key_figures(result)),
        left_out(result),
        page.section("Structures", page.table(*structure_rows(result)), lead=_empty_note(result)),
        page.section("Distribution over cases", distribution_figures([result])) if summary["n_cases"] >= _FEW else "",
        _lesion_section(result),
        _volume_section(result),
        _strata_sections(result),
        worst_section(result),
        _cases_section(result),
        _notes_section(result),
        definition_section(result),
    ]
    footer = f"nnunet-livseg {__version__}. Every number of this page is in summary.json, cases.csv and lesions.csv."
    return page.page(result.method, kicker="Segmentation evaluation", facts=facts, body=body, footer=footer)


def _key_figures(result: FolderResult) -> list[tuple[str, str, str]]:
    structures, figures = result.summary["structures"], []
    for name in [n for n in (TUMOR, LIVER) if n in structures] or list(structures)[:2]:
        found = structures[name]
        note = f"95 % {interval(found['metrics']['dice']['ci95'])}"
        figures.append((f"{name.capitalize()} Dice per case", number(found["dice_per_case"]), note))
        figures.append((f"{name.capitalize()} Dice global", number(found["dice_global"]), "all voxels pooled"))
    rule, detection = next(iter(result.summary.get("lesions", {}).get("detection", {}).items()), (None, None))
    if detection:
        found, total = detection["found"], detection["found"] + detection["missed"]
        false = result.summary["lesions"]["false_per_case"][rule]
        note = f"{found} of {total}; {number(false, 2)} false per case"
        figures.append(("Lesions found", number(detection["recall"]), note))
    return figures


def left_out(*results: FolderResult) -> str:
    """The box that names every skipped case."""
    named = [
        (p.case if len(results) == 1 else f"{result.method}: {p.case}", p.reason)
        for result in results
        for p in result.problems
    ]
    title = f"{len(named)} case{'s' if len(named) > 1 else ''} skipped, and not in any number below"
    return page.warning(title, named) if named else ""


def _empty_note(result: FolderResult) -> str:
    parts = []
    for name, found in result.summary["structures"].items():
        words = [f"{found[key]} {text}" for key, text in _EMPTY_COUNTS.items() if found[key]]
        if words:
            parts.append(f"{name.capitalize()}: {', '.join(words)}.")
    lead = "Mean ± standard deviation over cases, with the bootstrap interval of the mean. "
    return lead + (
        " ".join(parts) + " Infinite distances are counted, but not averaged." if parts else "No mask was empty."
    )


def distribution_figures(results: list[FolderResult]) -> str:
    """Small multiples: every structure's Dice, surface Dice, ASSD and HD95, methods side by side."""
    first = results[0]
    metrics = first.metrics
    chosen = [name for name in metrics if name in ("dice", "assd", "hd95", "hd") or name.startswith("nsd_")]
    chosen = [name for name in chosen if name != "hd" or "hd95" not in chosen]
    items = []
    for structure in first.summary["structures"]:
        having = [r for r in results if structure in r.summary["structures"]]
        for name in chosen:
            groups = {r.method: [case.structures[structure][name] for case in r.cases] for r in having}
            names = {r.method: [case.case for case in r.cases] for r in having}
            unit = first.unit if metrics[name].unit == "length" else ""
            svg = charts.distributions(groups, names, title=metrics[name].title, unit=unit)
            items.append(page.figure(svg, f"{structure.capitalize()}: {metrics[name].title}"))
    note = '<p class="note">Each dot is a case; the line is the median, the shaded box the middle half.</p>'
    return page.figures(*items) + note


def _lesion_section(result: FolderResult) -> str:
    lesions = result.summary.get("lesions")
    if not lesions:
        return ""
    rows = [(RULES[rule][0], *cells) for rule, *cells in detection_rows(lesions)]
    header = ("A lesion is found by", *DETECTION_HEADER)
    lead = f"{lesions['n_reference']} lesions in the references, {lesions['n_predicted']} in the predictions."
    strata = result.summary.get("lesion_strata", [])
    parts = [
        page.table(header, rows),
        size_figures([result]) if strata else "",
        page.table(stratum_header(result.unit), stratum_rows(strata)) if strata else "",
    ]
    if lesions.get("detected_lesions"):
        cells = [(name, mean_sd(stats), str(stats["n"])) for name, stats in lesions["detected_lesions"].items()]
        parts.append(page.table(("Averaged over detected lesions only (IoU > 0.5)", "mean ± sd", "lesions"), cells))
    return page.section("Lesions", *parts, lead=lead)


def size_figures(results: list[FolderResult]) -> str:
    """Dice against size of every method, and detection by size of all together."""
    edges, unit = results[0].options.diameter_edges, results[0].unit
    items = []
    for result in results:
        points = [
            (row["diameter"], row["dice"], _lesion_text(case, row, unit))
            for case in result.cases
            for row in case.lesions
            if row["kind"] == REFERENCE
        ]
        svg = charts.against_size(points, x_title=f"longest diameter [{unit}]", y_title="lesion Dice", edges=edges)
        name = f": {result.method}" if len(results) > 1 else ""
        note = "One dot per reference lesion; hollow: missed."
        items.append(page.figure(svg, f"Dice against lesion size{name}", note))
    groups = {r.method: [(s["stratum"], s["found"], s["n"]) for s in r.summary["lesion_strata"]] for r in results}
    note = "Matched one to one, IoU > 0; the line is the 95 % interval of the share (Wilson)."
    items.append(page.figure(charts.detection_by_size(groups), "Lesions found, by longest diameter", note))
    return page.figures(*items)


def _lesion_text(case: CaseResult, row: dict, unit: str) -> str:
    return f"{case.case}, lesion {row['lesion']}: {row['diameter']:.1f} {unit}, Dice {row['dice']:.2f}"


def _volume_section(result: FolderResult) -> str:
    if result.summary["n_cases"] < _FEW:
        return ""
    unit, items = result.size_unit, []
    for name in result.summary["structures"]:
        pairs = [
            (scores["volume_predicted"], scores["volume_reference"], case.case)
            for case in result.cases
            if (scores := case.structures.get(name)) and case.status(name) != "both_empty"
        ]
        items.append(page.figure(charts.bland_altman(pairs, unit=unit), f"{name.capitalize()} volume"))
    burden = result.summary.get("burden")
    text = ""
    if burden:
        kind = "largest signed error (reference minus prediction)" if result.options.mode == "lits" else "largest error"
        figures = f"root mean square error {number(burden['rmse'], 4)}, {kind} {number(burden['maximum'], 4)}"
        text = f'<p class="note">Tumor burden (tumor / liver volume): {figures}.</p>'
    lead = "Bland-Altman plots: agreement of predicted and reference volumes, case by case."
    return page.section("Volumes", page.figures(*items), text, lead=lead)


def _strata_sections(result: FolderResult) -> str:
    tables = {
        column: page.table(*group_rows(groups, result.unit)) for column, groups in result.summary["strata"].items()
    }
    return "\n".join(page.section(f"By {column}", text) for column, text in tables.items())


def _cases_section(result: FolderResult) -> str:
    metrics = result.metrics
    shown = [m for m in ("dice", "assd", "hd95", "hd") if m in metrics]
    shown = [m for m in shown if m != "hd" or "hd95" not in metrics]
    structures = list(result.summary["structures"])
    header = ["case", *(["fold"] if result.inputs.folds else [])]
    left = len(header)
    header += [f"{s} {metrics[m].title}" for s in structures for m in shown]
    lesions = any(case.detection for case in result.cases)
    header += ["lesions found", "false"] if lesions else []
    rows = []
    for case in result.cases:
        row = [case.case, *([case.fold] if result.inputs.folds else [])]
        row += [number(case.structures[s][m], 3 if m == "dice" else 1) for s in structures for m in shown]
        counts = next(iter(case.detection.values()), None)
        row += [f"{counts['found']} of {counts['found'] + counts['missed']}", str(counts["false"])] if counts else []
        rows.append(row)
    text = page.table(header, rows, left=left)
    if len(rows) > _OPEN_UP_TO:
        text = f"<details><summary>All {len(rows)} cases</summary>{text}</details>"
    return page.section("All cases", text)


def _notes_section(result: FolderResult) -> str:
    items = "".join(f"<li>{page.escape(note)}</li>" for note in result.notes)
    return page.section("Notes", f'<ul class="note">{items}</ul>') if items else ""


def definition_section(result: FolderResult) -> str:
    """What every number means, and how to cite."""
    known = definitions(result)
    single = [(key.replace("_", " "), text) for key, text in known.items() if isinstance(text, str)]
    metrics = [(row["title"], row["definition"]) for row in known["metrics"].values()]
    rules = [(f"detection {rule}", text) for rule, text in known["detection"].items()]
    terms = page.definitions([*single, *metrics, *rules])
    return page.section("Definitions", terms, lead="A is the prediction, B the reference.")
