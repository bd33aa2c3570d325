"""The table of a dataset: methods with mean, interval, test against the baseline, and cost; for people and LaTeX."""

from collections.abc import Sequence

from nnunet_livseg.core.tables import csv_text, interval, markdown_table, number
from nnunet_livseg.evaluation.comparison_tables import p_text, verdict
from nnunet_livseg.evaluation.results import Comparison, PairedTest
from nnunet_livseg.evaluation.statistics import describe
from nnunet_livseg.study.study_results import Cost, DatasetResults

MAIN = "dice"


def table_cells(results: DatasetResults) -> tuple[list[str], list[list[str]]]:
    """Header and rows in Markdown; a difference is bold where it is significant and beyond the noise."""
    comparison = results.comparison
    structures = list(comparison.methods[0].inputs.structures.values)
    header = ["method", "seeds"]
    for structure in structures:
        header += [f"{structure} Dice [%]", "95 % interval", f"against {results.baseline}", "p (Holm)"]
    header += ["parameters [M]", "hours per fold", "memory [GiB]"]
    rows = []
    for name in comparison.names:
        row = [name, str(results.seeds[name])]
        for structure in structures:
            row += _score_cells(comparison, structure, name)
        rows.append(row + _cost_cells(results.costs[name]))
    return header, rows


def _score_cells(comparison: Comparison, structure: str, name: str) -> list[str]:
    stats = _described(comparison, structure, MAIN, name)
    cells = [number(100 * stats["mean"], 2), interval([100 * bound for bound in stats["ci95"]], 2)]
    test = test_of(comparison, structure, MAIN, name)
    if test is None:
        return [*cells, "", ""]
    low, high = (100 * bound for bound in test.ci95)
    text = f"{100 * test.difference:+.2f} ({interval((low, high), 2)})"
    proven = test.significant and not test.within_noise
    return [*cells, f"**{text}**" if proven else text, p_text(test.p_holm)]


def _cost_cells(cost: Cost) -> list[str]:
    parameters = "" if cost.parameters is None else number(cost.parameters / 1e6, 2)
    memory = "" if cost.memory_gib is None else number(cost.memory_gib, 2)
    return [parameters, number(cost.hours, 3 if cost.hours < 1 else 1), memory]


def _described(comparison: Comparison, structure: str, metric: str, name: str) -> dict:
    column = comparison.names.index(name)
    return describe(comparison.values(structure, metric)[:, column].tolist())


def test_of(comparison: Comparison, structure: str, metric: str, name: str) -> PairedTest | None:
    """The test of a method against the baseline."""
    found = (p for p in comparison.pairs if (p.structure, p.metric, p.a) == (structure, metric, name))
    return next(found, None)


def markdown(results: DatasetResults) -> str:
    """The table as Markdown."""
    header, rows = table_cells(results)
    return markdown_table(header, rows)


def scores_csv(results: DatasetResults) -> str:
    """Every metric of every method with its test; the same trainings give the same file."""
    comparison = results.comparison
    rows = []
    for structure in comparison.methods[0].inputs.structures.values:
        for metric, row in comparison.methods[0].metrics.items():
            if row.better:
                rows += [_score_row(comparison, structure, metric, name) for name in comparison.names]
    return csv_text(rows)


def _score_row(comparison: Comparison, structure: str, metric: str, name: str) -> dict:
    stats = _described(comparison, structure, metric, name)
    row = {"structure": structure, "metric": metric, "method": name, "cases": stats["n"], "mean": stats["mean"]}
    row |= {"sd": stats["sd"], "ci95_low": stats["ci95"][0], "ci95_high": stats["ci95"][1]}
    test = test_of(comparison, structure, metric, name)
    if test is None:
        names = ("difference", "difference_low", "difference_high", "p_wilcoxon", "p_holm", "noise_floor", "verdict")
        return row | dict.fromkeys(names, "")
    row |= {"difference": test.difference, "difference_low": test.ci95[0], "difference_high": test.ci95[1]}
    row |= {"p_wilcoxon": test.p_wilcoxon, "p_holm": test.p_holm}
    return row | {"noise_floor": "" if test.noise_floor is None else test.noise_floor, "verdict": verdict(test)}


# --- LaTeX ------------------------------------------------------------------------------------------------------------


def latex(results: DatasetResults) -> str:
    """The table for LaTeX with booktabs, which a paper can take by ``\\input``."""
    header, rows = table_cells(results)
    lines = [r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}", r"\toprule", _latex_row(header), r"\midrule"]
    lines += [_latex_row(row) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex_cell, cells)) + r" \\"


def _latex_cell(cell: str) -> str:
    bold = cell.startswith("**")
    text = cell.strip("*")
    for sign in "&%#_$":
        text = text.replace(sign, f"\\{sign}")
    text = text.replace("<", "$<$").replace("-", "$-$" if text[:1] in "+-0123456789" else "-").replace("+", "$+$")
    return f"\\textbf{{{text}}}" if bold else text
