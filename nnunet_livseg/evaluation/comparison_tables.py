"""A comparison as files: ``comparison.json``, ``comparison.csv`` and ``comparison.md``."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from nnunet_livseg import __version__
from nnunet_livseg.core.files import write_json, write_text
from nnunet_livseg.core.tables import csv_text, markdown_table, number
from nnunet_livseg.evaluation.csv_tables import definitions
from nnunet_livseg.evaluation.results import Comparison

SCHEMA = "nnunet_livseg.comparison/1"
SHOWN = (
    "dice",
    "jaccard",
    "voe",
    "rvd",
    "assd",
    "rmsd",
    "hd95",
    "hd",
    "nsd_",
    "precision",
    "recall",
)  # in the paper's table
PERCENT = {"dice", "jaccard", "voe", "rvd", "precision", "recall"}


FILES = ("comparison.json", "comparison.csv", "comparison.md", "report.html")  # the first is the record, and first


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write all three files whole."""
    document, table, text = (out / name for name in FILES[:3])
    write_json(document, comparison_document(comparison))
    write_text(table, csv_text([_pair_row(pair) for pair in comparison.pairs]))
    write_text(text, comparison_markdown(comparison))


def _pair_row(pair: object) -> dict:
    row = asdict(pair)
    low, high = row.pop("ci95")
    row["winner"] = row["winner"] or ""
    verdicts = {"significant": int(pair.significant), "within_noise": int(pair.within_noise)}
    return row | {"ci95_low": low, "ci95_high": high, **verdicts}


def comparison_document(comparison: Comparison) -> dict:
    """The content of ``comparison.json``."""
    first = comparison.methods[0]
    return {
        "schema": SCHEMA,
        "created_with": f"nnunet-livseg {__version__}",
        "methods": comparison.names,
        "n_cases": len(comparison.cases),
        "cases": comparison.cases,
        "left_out": comparison.left_out,
        "folds": comparison.folds,
        "options": first.options.as_dict(),
        "units": {"length": first.unit},
        "definitions": definitions(first) | {"tests": f"{TESTS} {LACKING}"},
        "tests": [_pair_row(pair) for pair in comparison.pairs],
        "ranking": comparison.ranking,
    }


TESTS = (
    "Paired over the cases that every method has. p: two-sided Wilcoxon signed-rank test, adjusted by Holm over all "
    "tested pairs of methods in one metric. The paired t-test and a 95 % percentile bootstrap of the mean difference "
    "are in comparison.csv. Where 0 is best (RVD), absolute values are compared. Mean difference, interval and t-test "
    "use the cases in which both methods have a value; the others are counted as excluded."
)
LACKING = (
    "If a method misses or invents a lesion, a value can be infinite or undefined. Such a case counts as its worst "
    "result in the Wilcoxon test and in the ranking. A method with more such cases than another is never called better "
    "nor printed bold, because its values come from easier cases. --worst diagonal gives these cases a distance, so "
    "that all cases enter the means."
)


def shown_metrics(comparison: Comparison) -> list[str]:
    """The metrics of the paper's table, in its order."""
    known = comparison.methods[0].metrics
    return [
        name for prefix in SHOWN for name in known if name == prefix or (prefix[-1] == "_" and name.startswith(prefix))
    ]


def comparison_markdown(comparison: Comparison) -> str:
    """One table per structure in the papers' format, then the tests, then what to make of them."""
    structures = list(dict.fromkeys(pair.structure for pair in comparison.pairs))
    parts = ["# Comparison of " + ", ".join(comparison.names), _cases(comparison)]
    for structure in structures:
        parts += [f"## {structure}", paper_table(comparison, structure), tests_table(comparison, structure)]
    return "\n\n".join(part.strip() for part in [*parts, "## How to read this", reading(comparison)]) + "\n"


def _cases(comparison: Comparison) -> str:
    text = f"{len(comparison.cases)} cases that every method has; mode {comparison.methods[0].options.mode}."
    if comparison.left_out:
        text += " Skipped: " + "; ".join(f"{c} (not in {', '.join(m)})" for c, m in comparison.left_out.items()) + "."
    return text


def paper_table(comparison: Comparison, structure: str) -> str:
    """Methods as rows; mean ± sd; the best value bold only where it is proven against every other method."""
    known = comparison.methods[0].metrics
    metrics = shown_metrics(comparison)
    header = ["method", *(heading(known[m], comparison.methods[0].unit) for m in metrics)]
    columns = [comparison_cells(comparison, structure, m) for m in metrics]
    return markdown_table(header, [[name, *cells] for name, *cells in zip(comparison.names, *columns, strict=True)])


def heading(metric: object, unit: str) -> str:
    if metric.unit == "length":
        return f"{metric.title} [{unit}]"
    return f"{metric.title} [%]" if metric.name in PERCENT or metric.name.startswith("nsd_") else metric.title


def comparison_cells(comparison: Comparison, structure: str, metric: str) -> list[str]:
    """A metric's column, one cell per method, in Markdown."""
    values = comparison.values(structure, metric)
    best, proven = comparison.best(structure, metric)
    percent = metric in PERCENT or metric.startswith("nsd_")
    cells = []
    lacking = comparison.lacking(structure, metric)
    for name, column, lacks in zip(comparison.names, values.T, lacking.T, strict=True):
        finite = column[np.isfinite(column)] * (100 if percent else 1)
        sd = finite.std(ddof=1) if len(finite) > 1 else float("nan")
        mean = finite.mean() if len(finite) else float("nan")
        n_infinite, n_lacking = int(np.isinf(column).sum()), int(lacks.sum())
        counts = [f"{n_infinite} inf"] * (n_infinite > 0)
        counts += [f"{n_lacking - n_infinite} undefined"] * (n_lacking > n_infinite)
        text = f"{number(mean, 2)} ± {number(sd, 2)}" + (f" ({', '.join(counts)})" if counts else "")
        cells.append(f"**{text}**" if proven and name == best else text)
    return cells


def tests_table(comparison: Comparison, structure: str) -> str:
    """The tests of the metrics shown."""
    header = (
        "metric",
        "pair",
        "cases",
        "mean difference",
        "95 % interval",
        "p (Holm)",
        "better/equal/worse",
        "verdict",
    )
    known = comparison.methods[0].metrics
    rows = [
        (known[p.metric].title, f"{p.a} - {p.b}", f"{p.n}" + (f" ({p.n_left_out} excluded)" if p.n_left_out else ""),
         number(p.difference), f"{number(p.ci95[0])} to {number(p.ci95[1])}", p_text(p.p_holm),
         f"{p.wins}/{p.ties}/{p.losses}", verdict(p))
        for metric in shown_metrics(comparison)
        for p in comparison.pairs
        if (p.structure, p.metric) == (structure, metric)
    ]  # fmt: skip
    return markdown_table(header, rows, left=2)


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else number(p)


def verdict(pair: object) -> str:
    """What a pair shows, in words."""
    if pair.within_noise:
        return f"within the noise of two runs ({pair.noise_floor:g})"
    if pair.significant:
        return f"significant: {pair.winner}" if pair.lacks_more else "significant"
    if pair.lacks_more is None:
        return "not significant"
    more, fewer = max(pair.lacking_a, pair.lacking_b), min(pair.lacking_a, pair.lacking_b)
    return f"not significant: {pair.lacks_more} has no value in {more} cases, the other in {fewer}"


def reading(comparison: Comparison) -> str:
    """How the numbers were made, and what they cannot show."""
    floor = next((p.noise_floor for p in comparison.pairs if p.noise_floor is not None), None)
    lines = [
        f"- {TESTS}",
        f"- {LACKING}",
        "- Bold: the best mean, only where the test finds it better than every other method, by more than the noise "
        "floor.",
        *(
            [
                f"- Noise floor of the tumor Dice: {floor:g}. The same method in two laboratories differs by up to "
                "0.06 on one "
                "fold of LiTS and by 0.006 in the mean of five folds. A gain of one fold below 0.06, or of five "
                "folds below "
                f"0.01, is not evidence, significant or not. These predictions come from {comparison.folds} fold(s)."
            ]
            if floor is not None
            else []
        ),
        "- A test over cases shows whether the difference would hold for other patients. Only repeated trainings show "
        "whether it would hold for another training of the same method.",
    ]
    if len(comparison.cases) < 6:
        lines.append(
            f"- With {len(comparison.cases)} cases the Wilcoxon test cannot reach p < 0.05, whatever the difference. "
            "It needs 6 cases."
        )
    metrics = comparison.methods[0].metrics
    lines += [f"- {metrics[m].title}: {metrics[m].definition}" for m in shown_metrics(comparison)]
    return "\n".join(lines)
