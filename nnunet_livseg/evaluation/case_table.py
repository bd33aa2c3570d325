"""A CSV table of facts about cases (type, phase, site, ...)."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.tables import read_csv
from nnunet_livseg.imaging.label_maps import label_map_stem


def read_case_table(path: str | Path, cases: Iterable[str]) -> dict[str, dict[str, str]]:
    """Map case to column to text. The column ``case`` (else the first) names the case, a file ending is dropped.

    Raises:
        UserError: No such file, no columns, a case twice, or no row that belongs to any of ``cases``.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no case table {path}.\n  Give a CSV file with a column `case` and others.")
    found = read_csv(path, known_spelling=("case",))
    if len(found.columns) < 2 or not found.rows:
        raise UserError(
            f"the case table {path} is incomplete.\n"
            "  Its first line must name at least two columns, and the rows below it are the cases."
        )
    key = "case" if "case" in found.columns else found.columns[0]
    table: dict[str, dict[str, str]] = {}
    for row in found.rows:
        case = label_map_stem(row.values.pop(key))
        if case in table:
            raise UserError(
                f"the case table {path} has two rows for the case {case!r}, the second in line {row.line}. Remove one."
            )
        table[case] = row.values
    wanted = set(cases)
    if not wanted & table.keys():
        shown = ", ".join(list(table)[:3])
        raise UserError(
            f"no row of the case table {path} belongs to an evaluated case.\n"
            f"  Its column {key!r} contains {shown}; cases are called {', '.join(sorted(wanted)[:3])}."
        )
    return {case: row for case, row in table.items() if case in wanted}


def apart_from(
    taken: Collection[str], table: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The table with other names for columns that the results have as well, and a note about each of these.

    Args:
        taken: Names of the results' own columns, which would replace those of the table.
        table: Case to column to text.
    """
    columns = dict.fromkeys(column for row in table.values() for column in row)
    names = {}
    for column in columns:
        name = column
        while name in taken or (name != column and name in columns):
            name = f"table_{name}"
        names[column] = name
    notes = [
        f"the column {column} of the case table is called {name} here, because the results have a {column} of their own"
        for column, name in names.items()
        if name != column
    ]
    return {case: {names[column]: text for column, text in row.items()} for case, row in table.items()}, notes
