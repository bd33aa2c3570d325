"""What a paper's table is, and how our numbers are put into its columns."""

from dataclasses import dataclass

from nnunet_livseg.core.tables import markdown_table, number
from nnunet_livseg.evaluation.csv_tables import EMPTY_POLICY
from nnunet_livseg.evaluation.results import Comparison, FolderResult


@dataclass(frozen=True)
class Column:
    """A column of a paper's table.

    Args:
        title: As printed, unit included.
        value: Where our number is: ``tumor.assd`` (a metric's mean), ``tumor.dice_global``,
            ``lesions.group_50.recall``, ``type.HCC.tumor.dice`` (a stratum), ``slices.tumor.hd`` (axial slices), or
            empty where an evaluation cannot know it.
        scale: 100 where the paper prints percent.
        digits: Digits after the point.
        sd: Print mean ± sd.
    """

    title: str
    value: str = ""
    scale: float = 1
    digits: int = 2
    sd: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A printed table.

    Args:
        name: What to type after ``--table``.
        source: Paper and table.
        columns: After the first, which names the row.
        rows: Name and cells of each row, as printed.
        remarks: What has to be known to compare with it.
        per_case: One row of ours per case instead of one per method.
    """

    name: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()
    per_case: bool = False


def rows_of(text: str) -> tuple[tuple[str, ...], ...]:
    """Rows of a table written with ``|`` between cells."""
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in text.strip().splitlines())


def render(table: PaperTable, results: "list[FolderResult]", *, comparison: "Comparison | None" = None) -> str:
    """The table in Markdown: the quoted rows, then ours, then its remarks.

    Our best value is bold only where ``comparison`` proves it; quoted rows take no part, they are of other cases.
    """
    header = ["method", *(column.title for column in table.columns)]
    quoted = [[f"{name} (quoted)", *cells] for name, *cells in table.rows]
    if table.per_case:
        ours = [[f"{r.method}: {c.case}", *_case_cells(table, c)] for r in results for c in r.cases]
    else:
        ours = [[result.method, *(_cell(result, column, comparison) for column in table.columns)] for result in results]
    remarks = [
        f"Columns of {table.source}. Rows marked (quoted) are printed there and were measured on that paper's cases;",
        f"the others are ours, over {', '.join(f'{len(r.cases)} case(s) ({r.method})' for r in results)}. Only rows on "
        "the "
        "same cases can be compared.",
        *(
            [f"* in our rows: paired t-test against {comparison.names[0]}, p < 0.05, not corrected."]
            if comparison
            else []
        ),
        *table.remarks,
        _definitions(table, results[0]),
    ]
    return markdown_table(header, [*quoted, *ours]) + "\n" + "\n".join(remarks) + "\n"


def _definitions(table: PaperTable, result: FolderResult) -> str:
    known = result.metrics
    names = dict.fromkeys(column.value.rpartition(".")[2] for column in table.columns)
    texts = [f"{known[name].title}: {known[name].definition}" for name in names if name in known]
    return f"Our numbers (mode {result.options.mode}): {'; '.join(texts)}. {EMPTY_POLICY[result.options.mode]}"


def _cell(result: FolderResult, column: Column, comparison: "Comparison | None") -> str:
    found = _look_up(result.summary, column.value)
    if found is None:
        return "-"
    if isinstance(found, dict):
        text = number(found["mean"] * column.scale, column.digits)
        text += f"±{number(found['sd'] * column.scale, column.digits)}" if column.sd and found["n"] > 1 else ""
        text += f" ({found['n_infinite']} inf)" if found["n_infinite"] else ""
    else:
        text = number(found * column.scale, column.digits)
    text += "*" if _differs_from_first(result.method, column, comparison) else ""
    return f"**{text}**" if _proven_best(result.method, column, comparison) else text


def _differs_from_first(method: str, column: Column, comparison: "Comparison | None") -> bool:
    """The papers' star: the paired t-test against the first method."""
    structure, _, metric = column.value.partition(".")
    tests = comparison.pairs if comparison else []
    here = [p for p in tests if (p.structure, p.metric) == (structure, metric)]
    return any((p.a, p.b) == (comparison.names[0], method) and p.p_t < 0.05 for p in here)


def _proven_best(method: str, column: Column, comparison: "Comparison | None") -> bool:
    structure, _, metric = column.value.partition(".")
    known = comparison and any((p.structure, p.metric) == (structure, metric) for p in comparison.pairs)
    return bool(known) and comparison.best(structure, metric) == (method, True)


def _look_up(summary: dict, value: str) -> dict | float | None:
    if not value:
        return None
    *path, name = value.split(".")
    level = summary
    if len(path) == 2 and path[0] == "lesions":
        return summary.get("lesions", {}).get("detection", {}).get(path[1], {}).get(name)
    if path[0] == "slices" and "slices" in summary:
        return summary["slices"].get(path[1], {}).get(name)
    if path[0] == "slices":
        path = path[1:] if summary["ndim"] == 2 else []
    elif len(path) == 3:  # a stratum: column, group, structure
        families = {key.lower(): groups for key, groups in summary["strata"].items()}
        groups = {key.lower(): group for key, group in families.get(path[0].lower(), {}).items()}
        level = groups.get(path[1].lower(), {})
        path = path[2:]
    structure = level.get("structures", {}).get(path[0]) if path else None
    if structure is None:
        return None
    return structure["metrics"].get(name, structure.get(name))


def _case_cells(table: PaperTable, case: object) -> list[str]:
    cells = []
    for column in table.columns:
        structure, _, metric = column.value.partition(".")
        found = case.structures.get(structure, {}).get(metric)
        cells.append("-" if found is None else number(found * column.scale, column.digits))
    return cells
