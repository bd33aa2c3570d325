"""The report of a study: one page, one table per dataset, and the same as Markdown, CSV, LaTeX and vector figures."""

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nnunet_livseg import __version__
from nnunet_livseg.core.files import write_text
from nnunet_livseg.report import page
from nnunet_livseg.report.comparison_report import structure_section
from nnunet_livseg.report.learning_curves import learning_curves
from nnunet_livseg.study.status import all_states
from nnunet_livseg.study.study_jobs import StudyPlan
from nnunet_livseg.study.study_results import DatasetResults, dataset_results, test_case_results
from nnunet_livseg.study.study_tables import latex, markdown, scores_csv, table_cells

LEAD = (
    "Means over the cases that all methods have; with several seeds, over seeds first. Intervals are 95 % percentile "
    "bootstraps. Each method is tested against the baseline (Wilcoxon signed-rank, Holm over the methods). Bold: "
    "significant and larger than the noise between two runs."
)
FEW = 6  # cases below which the Wilcoxon test cannot reach p < 0.05


@dataclass(frozen=True)
class WrittenReport:
    """What was written: the tables as text, and how many trainings are missing."""

    text: str
    missing: int


def write_study_report(plan: StudyPlan, *, latex: bool = False) -> WrittenReport:
    """Evaluate what is finished and write ``report.html``, ``report.md`` and, per dataset, its tables and figures."""
    states = all_states(plan)
    kinds = (dataset_results, test_case_results) if plan.study.test else (dataset_results,)
    results = [kind(plan, dataset, states) for dataset in plan.datasets for kind in kinds]
    out = plan.study.folder
    for one in results:
        _write_tables(plan, one, with_latex=latex)
    text = "\n\n".join(_text(one) for one in results)
    write_text(out / "report.md", f"# {plan.study.path.stem}\n\n{text}\n")
    write_text(out / "report.html", report_html(plan, results))
    return WrittenReport(text, sum(len(one.missing) for one in results))


def _write_tables(plan: StudyPlan, results: DatasetResults, *, with_latex: bool) -> None:
    out, name = plan.study.folder, results.file
    for figure, svg in _figures(results).items():
        write_text(out / "figures" / f"{name}_{figure}.svg", page.drawn_for_a_file(svg))
    if results.comparison is None:
        return
    write_text(out / f"scores_{name}.csv", scores_csv(results))
    if with_latex:
        write_text(out / f"table_{name}.tex", latex(results))


def _figures(results: DatasetResults) -> Mapping[str, str]:
    """Vector figures by name; those of the tests are parts of the page's sections."""
    figures = {}
    if results.curves:
        figures["learning_curves"] = learning_curves(_dice_curves(results), title="Dice of validation patches")
    for structure, section in _sections(results).items():
        found = re.findall(r"<svg.*?</svg>", section, flags=re.DOTALL)
        figures |= {f"{structure}_{number}": svg for number, svg in enumerate(found, start=1)}
    return figures


def _dice_curves(results: DatasetResults) -> dict[str, list[dict[int, float]]]:
    return {label: [log.dice for log in logs] for label, logs in results.curves.items() if logs}


def _sections(results: DatasetResults) -> dict[str, str]:
    """Every test and figure of each structure, where there is something to compare."""
    comparison = results.comparison
    if comparison is None or not comparison.pairs:
        return {}
    structures = list(dict.fromkeys(pair.structure for pair in comparison.pairs))
    return {name: structure_section(comparison, name, title=f"{results.title}: {name}") for name in structures}


def _text(results: DatasetResults) -> str:
    parts = [f"## {results.title}", _table_or_why(results), *_notes(results)]
    if results.missing:
        parts.append("Not finished:\n\n" + "\n".join(f"- {name}: {s.word}" for name, s in results.missing.items()))
    return "\n\n".join(parts)


def _table_or_why(results: DatasetResults) -> str:
    return markdown(results) if results.comparison is not None else results.why


def _notes(results: DatasetResults) -> list[str]:
    """What a reader must know of these numbers."""
    if results.comparison is None:
        return []
    notes = []
    for structure in results.comparison.methods[0].inputs.structures.values:
        if (floor := results.floors.get(f"{structure}.dice")) is not None:
            notes.append(
                f"Noise floor from seeds: the {structure} Dice of two runs differs by up to {100 * floor:.2f}."
            )
    if not results.floors:
        notes.append("One seed: how far two runs of one method differ has not been measured here.")
    if results.baseline not in results.comparison.names:
        notes.append(f"The baseline {results.baseline} has no results yet, so nothing is tested.")
    if len(results.comparison.cases) < FEW:
        count = len(results.comparison.cases)
        notes.append(f"With {count} cases the Wilcoxon test cannot reach p < 0.05, whatever the difference.")
    return notes


def report_html(plan: StudyPlan, results: list[DatasetResults]) -> str:
    """The page."""
    study = plan.study
    facts = [
        f"{len(plan.methods)} methods",
        f"{len(study.folds)} folds",
        f"{len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}",
        f"baseline {plan.baseline}",
        datetime.datetime.now().astimezone().strftime("%Y-%m-%d"),
    ]
    body = [part for one in results for part in _dataset_sections(one)]
    if plan.left_out:
        body.append(page.warning("Combinations that do not exist", plan.left_out.items()))
    footer = f"nnunet-livseg {__version__}. Every number is in the CSV files beside this page."
    return page.page(study.path.stem, kicker="Study", facts=facts, body=body, footer=footer)


def _dataset_sections(results: DatasetResults) -> list[str]:
    table = f"<p>{page.escape(results.why)}</p>"
    if results.comparison is not None:
        table = page.table(*table_cells(results))
    notes = "".join(f"<li>{page.escape(note)}</li>" for note in _notes(results))
    figure = ""
    if results.curves:
        figure = page.figure(
            learning_curves(_dice_curves(results), title="Dice"),
            "Learning curves",
            "Dice of the validation patches, as nnU-Net estimates it while it trains; mean over folds and seeds.",
        )
    section = page.section(results.title, table, f"<ul>{notes}</ul>" if notes else "", figure, lead=LEAD)
    missing = [(name, f"{state.word} {state.remark}".strip()) for name, state in results.missing.items()]
    warning = page.warning("Not finished", missing) if missing else ""
    return [section, warning, *_sections(results).values()]
