"""Tables: CSV files as people and spreadsheets write them, and numbers as text."""

import csv
import io
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_livseg.core.errors import UserError

_SEPARATORS = ",;\t"
_BYTE_ORDER_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))  # of a spreadsheet's "Unicode text"


@dataclass(frozen=True)
class CsvRow:
    """A row of a table: the line of the file it begins on, and column to text without spaces around it."""

    line: int
    values: dict[str, str]


@dataclass(frozen=True)
class CsvTable:
    """The names of the columns, in order, and the rows below them."""

    columns: list[str]
    rows: list[CsvRow]


def read_csv(
    path: str | Path,
    *,
    required: Collection[str] = (),
    known: Collection[str] | None = None,
    known_spelling: Collection[str] = (),
) -> CsvTable:
    """Read a table as spreadsheets save it: separated by commas, semicolons or tabs, fields with or without quotes.

    Empty lines and empty fields beyond the last column are nothing.

    Args:
        path: A text file; UTF-8, or UTF-16 with a byte order mark.
        required: Columns that must be there.
        known: Columns that may be there beside those. Defaults to any.
        known_spelling: More names that, as the others, count as such in capitals, too.

    Raises:
        UserError: No readable text table, or its columns or fields are not as they must be; with the line.
    """
    path = Path(path)
    text = _text(path)
    first, _, rest = text.lstrip("\n").partition("\n")
    skipped = len(text) - len(text.lstrip("\n"))
    if first.lower().startswith("sep=") and len(first.rstrip()) == 5:  # a spreadsheet's own word for its separator
        lines, separator, skipped = rest, first[4], skipped + 1
    else:
        lines, separator = text.lstrip("\n"), _separator(first, required)
    parsed = _parsed(path, lines, separator, skipped)
    if not parsed:
        raise UserError(f"the table {path} is empty.\n  Its first line must hold the names of its columns.")
    (_, header), *body = parsed
    header = _names(header, [*required, *(known or ()), *known_spelling])
    _check_columns(path, header, body, required, known)
    rows = []
    for line, fields in body:
        if any(fields[len(header) :]):
            raise UserError(
                f"{path}, line {line}: has more fields than the header ({len(fields)} and {len(header)})."
                "\n  Put a field that contains a separator into quotes."
            )
        fields += [""] * (len(header) - len(fields))
        rows.append(CsvRow(line, {name: field for name, field in zip(header, fields, strict=False) if name}))
    return CsvTable([name for name in header if name], rows)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"the table {path} cannot be read: {error.strerror}.\n  Correct the path.") from None
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(_no_text(path, content, error.start)) from None
    if "\0" in text:
        raise UserError(_no_text(path, content, content.find(b"\0")))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _no_text(path: Path, content: bytes, position: int) -> str:
    if content.startswith((b"PK", b"\xd0\xcf\x11\xe0")):
        return f"the table {path} is a workbook of a spreadsheet and not a text table (UTF-8).\n  Save it as CSV UTF-8."
    line = content.count(b"\n", 0, position) + 1
    return f"the table {path}, line {line}: is not a text table (UTF-8).\n  Save it as CSV UTF-8."


def _separator(header: str, required: Collection[str]) -> str:
    """The one by which the header has all required columns, else most columns."""

    def fields(separator: str) -> list[str]:
        return [field.strip().lower() for field in next(csv.reader([header], delimiter=separator), [])]

    return max(_SEPARATORS, key=lambda separator: (set(required) <= set(fields(separator)), len(fields(separator))))


def _parsed(path: Path, text: str, separator: str, skipped: int) -> list[tuple[int, list[str]]]:
    """Line and fields of every row that holds something."""
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True, skipinitialspace=True)
    found, line = [], 1
    try:
        for fields in reader:
            fields = [field.strip() for field in fields]
            if any(fields):
                found.append((line + skipped, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {line + skipped}: the quotes do not pair, or a field is far too long ({error})."
            '\n  Write a quote within a field twice: "".'
        ) from None
    return found


def _names(header: list[str], known: Iterable[str]) -> list[str]:
    spelled = {name.lower(): name for name in known}
    return [spelled.get(name.lower(), name) for name in header]


def _check_columns(
    path: Path,
    header: list[str],
    body: list[tuple[int, list[str]]],
    required: Collection[str],
    known: Collection[str] | None,
) -> None:
    names = [name for name in header if name]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{path} has two columns {twice!r}.\n  Rename one, or remove it.")
    missing = [name for name in required if name not in names]
    if missing:
        raise UserError(
            f"{path} needs the columns {' and '.join(required)}; it has: {', '.join(names) or 'none'}."
            f"\n  Rename a column to {missing[0]}, or add it."
        )
    unknown = sorted(set(names) - {*required, *known}) if known is not None else []
    if unknown:
        raise UserError(
            f"{path}: unknown columns {unknown}; known: {sorted({*required, *known})}.\n  Rename or remove them."
        )
    for index, name in enumerate(header):
        line = next((line for line, fields in body if index < len(fields) and fields[index]), None)
        if not name and line is not None:
            raise UserError(
                f"{path}, line {line}: column {index + 1} contains a value, but has no name in the header. Name it."
            )


def csv_text(rows: Sequence[dict], header: Sequence[str] | None = None) -> str:
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


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are aligned left, the others right."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)) + "\n"


def number(value: float, digits: int = 3) -> str:
    """A number for people: fixed digits, ``-`` where undefined, an infinity sign."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{digits}f}"


def mean_sd(stats: dict, digits: int = 3) -> str:
    """``mean ± sd``, with the number of infinite values that were skipped; no spread of a single value."""
    spread = "" if math.isnan(stats["sd"]) else f" ± {number(stats['sd'], digits)}"
    left_out = f" ({stats['n_infinite']} inf)" if stats["n_infinite"] else ""
    return f"{number(stats['mean'], digits)}{spread}{left_out}"


def interval(bounds: Sequence[float], digits: int = 3) -> str:
    """``low to high``, or ``-`` where there is none."""
    low, high = bounds
    return "-" if math.isnan(low) else f"{number(low, digits)} to {number(high, digits)}"
