"""The report of a comparison: what ``livseg compare`` writes as ``report.html``."""

import datetime
from pathlib import Path

from nnunet_livseg import __version__
from nnunet_livseg.core.files import write_text
from nnunet_livseg.core.tables import number
from nnunet_livseg.evaluation.comparison_tables import (
    comparison_cells,
    heading,
    p_text,
    reading,
    shown_metrics,
    verdict,
)
from nnunet_livseg.evaluation.results import Comparison
from nnunet_livseg.report import charts, page
from nnunet_livseg.report.evaluation_report import definition_section, distribution_figures, left_out, size_figures

_PLOTTED = ("dice", "assd", "hd95")
_MOST_PAIRS = 15  # drawn in one figure: those of six methods
_SAID_BY_DICE = ("jaccard", "voe")  # functions of the Dice: in comparison.md, not in the width of this page


def write_comparison_report(comparison: Comparison, path: str | Path) -> None:
    """Write the report as one self-contained HTML file."""
    write_text(path, comparison_html(comparison))


def comparison_html(comparison: Comparison) -> str:
    """The report as HTML text."""
    first = comparison.methods[0]
    facts = [
        f"{len(comparison.cases)} common cases",
        *([f"{len(comparison.left_out)} cases not common"] if comparison.left_out else []),
        f"{comparison.folds} fold{'s' if comparison.folds > 1 else ''}",
        f"mode {first.options.mode}",
        datetime.datetime.now().astimezone().strftime("%Y-%m-%d"),
    ]
    body = [left_out(*comparison.methods), _not_common(comparison)]
    structures = list(dict.fromkeys(pair.structure for pair in comparison.pairs))
    body += [structure_section(comparison, name) for name in sorted(structures, key=lambda name: name != "tumor")]
    body.append(page.section("Distribution over cases", distribution_figures(comparison.methods)))
    if first.summary.get("lesion_strata"):
        body.append(page.section("Lesions by size", size_figures(comparison.methods)))
    notes = "".join(f"<li>{page.escape(line.removeprefix('- '))}</li>" for line in reading(comparison).splitlines()[:6])
    body.append(page.section("How to read this", f"<ul>{notes}</ul>"))
    body.append(definition_section(first))
    footer = f"nnunet-livseg {__version__}. Every test of this page is in comparison.csv and comparison.json."
    *others, last = comparison.names
    title = f"{', '.join(others)} and {last}" if len(others) < 4 else f"{len(comparison.names)} methods"
    return page.page(title, kicker="Comparison of methods", facts=facts, body=body, footer=footer)


def _not_common(comparison: Comparison) -> str:
    if not comparison.left_out:
        return ""
    items = [(case, f"not in {', '.join(methods)}") for case, methods in comparison.left_out.items()]
    return page.warning("Skipped: cases that not every method has", items)


def structure_section(comparison: Comparison, structure: str, *, title: str = "") -> str:
    """Table, figures and tests of one structure."""
    plotted = [m for m in _PLOTTED if m in comparison.methods[0].metrics]
    tests = f"<details><summary>All tests</summary>{_tests(comparison, structure)}</details>"
    lead = (
        "Mean ± standard deviation. Bold: significantly better than every other method, by more than the noise floor."
    )
    return page.section(
        title or structure.capitalize(),
        _table(comparison, structure),
        page.figures(*(draw(comparison, structure, m) for draw in (_forest, _ranks) for m in plotted)),
        page.figures(*(f for m in plotted[:2] for f in _scatters(comparison, structure, m))),
        tests,
        lead=lead,
    )


def _table(comparison: Comparison, structure: str) -> str:
    known = comparison.methods[0].metrics
    metrics = [m for m in shown_metrics(comparison) if m not in _SAID_BY_DICE]
    header = ["method", *(heading(known[m], comparison.methods[0].unit) for m in metrics)]
    columns = [comparison_cells(comparison, structure, m) for m in metrics]
    return page.table(header, zip(comparison.names, *columns, strict=True))


def _pairs(comparison: Comparison, structure: str, metric: str) -> list:
    return [pair for pair in comparison.pairs if (pair.structure, pair.metric) == (structure, metric)]


def _tests(comparison: Comparison, structure: str) -> str:
    known = comparison.methods[0].metrics
    header = ("metric", "pair", "verdict", "cases", "mean difference", "95 % interval", "p (Holm)", "+/=/−")
    rows = [
        (known[m].title, f"{p.a} − {p.b}", verdict(p), str(p.n), number(p.difference),
         f"{number(p.ci95[0])} to {number(p.ci95[1])}", p_text(p.p_holm), f"{p.wins}/{p.ties}/{p.losses}")
        for m in shown_metrics(comparison)
        for p in _pairs(comparison, structure, m)
    ]  # fmt: skip
    return page.table(header, rows, left=3)


def _forest(comparison: Comparison, structure: str, metric: str) -> str:
    pairs = _pairs(comparison, structure, metric)
    row = comparison.methods[0].metrics[metric]
    unit = f" [{comparison.methods[0].unit}]" if row.unit == "length" else ""
    first = comparison.names[0]
    drawn = pairs if len(pairs) <= _MOST_PAIRS else [p for p in pairs if first in (p.a, p.b)]
    rows = [(f"{p.a} − {p.b}", p.difference, p.ci95, p.significant and not p.lacks_more) for p in drawn]
    svg = charts.forest(rows, title=f"difference of {row.title}{unit}", floor=pairs[0].noise_floor)
    note = "Mean paired difference with its 95 % interval; filled: p (Holm) < 0.05 and no method lacks more values."
    note += " Gray: the noise between two runs of one method." if pairs[0].noise_floor else ""
    note += f" Pairs with {first} only; “All tests” has every pair." if len(drawn) < len(pairs) else ""
    return page.figure(svg, f"{row.title}: differences", note)


def _ranks(comparison: Comparison, structure: str, metric: str) -> str:
    found = comparison.ranking.get(f"{structure}.{metric}")
    if not found:
        return ""
    shares = {name: entry["rank_shares"] for name, entry in found.items()}
    svg = charts.ranks(shares, {name: entry["mean_rank"] for name, entry in found.items()})
    title = f"{comparison.methods[0].metrics[metric].title}: ranking"
    note = "Discs: how often a method takes a rank when the cases are drawn again (10,000 times)."
    return page.figure(svg, title, note)


def _scatters(comparison: Comparison, structure: str, metric: str) -> list[str]:
    """Every other method against the first, case by case."""
    row = comparison.methods[0].metrics[metric]
    values = comparison.values(structure, metric)
    items = []
    for index, name in enumerate(comparison.names[1:], start=1):
        points = list(zip(values[:, 0].tolist(), values[:, index].tolist(), comparison.cases, strict=True))
        svg = charts.paired_scatter(points, x_title=comparison.names[0], y_title=name, better=row.better)
        note = f"Green: {name} is better; orange: {comparison.names[0]} is."
        items.append(page.figure(svg, f"{row.title}, case by case", note))
    return items
