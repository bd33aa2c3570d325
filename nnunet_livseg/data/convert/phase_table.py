"""A CSV table of multi-phase cases: one column per phase, one row per patient and study."""

import re
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import stem
from nnunet_livseg.core.tables import read_csv
from nnunet_livseg.data.convert.source_cases import FileVolume, SourceCase, SourceDataset

_OTHER_COLUMNS = ("case", "patient", "label", "mask")
_PHASE_LABEL, _PHASE_MASK = "label_", "mask_"


def find(table: Path, primary: str | None = None) -> SourceDataset:
    """Cases of a table with the columns of the phases (any names) and optionally ``case``, ``patient``, ``label``,
    ``mask`` (liver on the primary phase, e.g. predicted), ``mask_<phase>`` (liver on another phase) and
    ``label_<phase>`` (for tumor-center alignment).

    Args:
        table: Its paths are relative to it.
        primary: The phase that labels were drawn on; default: the first phase column.

    Raises:
        UserError: Fewer than two phases, an empty or missing file, a case twice, an unknown primary phase.
    """
    found = read_csv(table, known_spelling=_OTHER_COLUMNS)
    columns = found.columns
    phases = [
        name for name in columns if name not in _OTHER_COLUMNS and not name.startswith((_PHASE_LABEL, _PHASE_MASK))
    ]
    if len(phases) < 2:
        raise UserError(
            f"{table} needs a column for each of at least two phases; it has: {', '.join(columns) or 'none'}."
        )
    if primary and primary not in phases:
        raise UserError(f"--primary {primary}: there is no such phase in {table}; it has {', '.join(phases)}.")
    primary = primary or phases[0]
    ordered = [primary, *(name for name in phases if name != primary)]
    cases = [_case(table, row.line, row.values, ordered) for row in found.rows]
    names = [case.identifier for case in cases]
    if not cases or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise UserError(
            f"{table}: case {twice} is there twice.\n  Rename one, or remove it."
            if twice
            else f"{table} has no rows below its header.\n  Write one row for each case."
        )
    description = f"Multi-phase liver CT ({', '.join(ordered)}), phases aligned to {primary}"
    return SourceDataset(cases, "LiverPhases", description, "not stated", phases=tuple(ordered))


def _case(table: Path, line: int, row: dict[str, str], phases: list[str]) -> SourceCase:
    def volume(column: str, *, required: bool = False) -> FileVolume | None:
        name = row.get(column)
        if not name and required:
            raise UserError(f"{table}, line {line}: no file for phase {column!r}. Give the file, or remove the row.")
        if name and not (table.parent / name).is_file():
            raise UserError(
                f"{table}, line {line}: {table.parent / name} does not exist. Paths are relative to the table."
            )
        return FileVolume(table.parent / name) if name else None

    images = [volume(phase, required=True) for phase in phases]
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", row.get("case") or stem(images[0].path))
    labels = [volume(f"{_PHASE_LABEL}{phase}") for phase in phases[1:]]
    label = volume("label") or volume(f"{_PHASE_LABEL}{phases[0]}")
    return SourceCase(
        name,
        row.get("patient") or name,
        images[0],
        label,
        test=label is None,
        phases=tuple(images[1:]),
        mask=volume("mask") or volume(f"{_PHASE_MASK}{phases[0]}"),
        phase_masks=tuple(volume(f"{_PHASE_MASK}{phase}") for phase in phases[1:]),
        phase_labels=tuple(labels) if all(labels) else (),
    )
