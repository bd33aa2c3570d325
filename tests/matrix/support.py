"""What the matrix found: its cells, the store of their outcomes, and the page that is made from it.

python tests/matrix/support.py    writes docs/reference/support.md anew from support.json
"""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from itertools import product
from pathlib import Path

from nnunet_livseg import __version__
from nnunet_livseg.core.files import write_text
from nnunet_livseg.variants import VARIANTS, Variant

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
STORE, PAGE = REFERENCE / "support.json", REFERENCE / "support.md"
COMMAND = "pytest --long -m long tests/matrix"
LABELS = {"labels": "lesions", "regions": "regions", "ignore": "ignore"}  # to the phantom's label styles
STAGES = (("2d",), ("3d_fullres",), ("3d_lowres", "3d_cascade_fullres"))
CONFIGURATIONS = tuple(name for stage in STAGES for name in stage)
PASSED, REFUSED, FAILED = "passed", "refused", "failed"


# entries that recipes got after cells were run; at these values they train what was trained before
NEW_ENTRIES = (
    ", probabilistic_oversampling=False, elastic=None",
    ", mirror=True, augmentation='nnunet'",
    ", seed=None",
    ", synthetic_tumors=0.0",
)


@dataclass(frozen=True)
class Cell:
    """One row of the table with one configuration and one kind of labels."""

    row: Variant
    configuration: str
    labels: str

    def __str__(self) -> str:
        return f"{self.row.trainer} {self.configuration} {self.labels}"

    @property
    def digest(self) -> str:
        """Changes with what is trained, not with remarks or presets."""
        row = self.row
        trained = (row.network, row.options, row.region_options, row.loss, row.recipe, row.dims, row.phases)
        known = repr(trained)
        for entries in NEW_ENTRIES:
            known = known.replace(entries, "")
        return hashlib.sha256(known.encode()).hexdigest()[:8]


def cells() -> Iterator[Cell]:
    """All cells: the most used configurations first, and a cascade right after its first stage."""
    for stage, labels, row in product(STAGES, LABELS, VARIANTS):
        yield from (Cell(row, configuration, labels) for configuration in stage)


def used_versions() -> str:
    """What a cell is run with."""
    others = ", ".join(f"{name} {version(name)}" for name in ("nnunetv2", "torch"))
    return f"nnunet_livseg {__version__}, {others}, Python {platform.python_version()}"


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: ``passed``; or ``refused`` or ``failed``, with a message."""

    outcome: str
    digest: str
    seconds: float
    message: str = ""
    date: str = field(default_factory=lambda: date.today().isoformat())
    versions: str = field(default_factory=used_versions)


class Store:
    """The outcomes in a JSON file, one line each; those of rows that have changed since do not count."""

    def __init__(self, path: Path = STORE) -> None:
        self.path = path

    def outcomes(self) -> dict[str, Outcome]:
        """By cell, in the order of the matrix."""
        stored = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        found = {str(cell): (cell, stored[str(cell)]) for cell in cells() if str(cell) in stored}
        return {name: Outcome(**entry) for name, (cell, entry) in found.items() if entry["digest"] == cell.digest}

    def settled(self, cell: Cell) -> Outcome | None:
        """The outcome of a cell that need not run again."""
        outcome = self.outcomes().get(str(cell))
        return outcome if outcome and outcome.outcome != FAILED else None

    def record(self, cell: Cell, outcome: Outcome) -> None:
        outcomes = {**self.outcomes(), str(cell): outcome}
        ordered = (str(cell) for cell in cells() if str(cell) in outcomes)
        lines = (f"{json.dumps(name)}: {json.dumps(_entry(outcomes[name]))}" for name in ordered)
        write_text(self.path, "{\n" + ",\n".join(lines) + "\n}\n")


def _entry(outcome: Outcome) -> dict:
    return {key: value for key, value in asdict(outcome).items() if value != ""}


# --- the page ---------------------------------------------------------------------------------------------------------

_HEAD = """# What works with what

Each cell is one trainer with one of nnU-Net's configurations and one kind of labels (`labels`: liver and tumor;
`regions`: liver with tumor, and tumor; `ignore`: some slices have the ignore label).

- *yes*: trained on phantoms for one epoch, resumed for a second, validated, predicted, exported, imported elsewhere,
  and predicted again with the same probabilities; by nnU-Net's commands, on a CPU, with plans of `livseg plan`.
- *no*: rejected at the start, for the reason below the table.
- empty: not run since the row last changed. Changed code of a network does not empty its cells.

The networks are tiny and an epoch is one iteration: this is about what runs, not about accuracy. `{command}` makes this
page. It runs the cells that `support.json` does not have.

{counts}
"""


def page(outcomes: Mapping[str, Outcome]) -> str:
    """The document for these outcomes."""
    messages = list(dict.fromkeys(outcome.message for outcome in outcomes.values() if outcome.message))
    columns = list(product(CONFIGURATIONS, LABELS))
    lines = [
        "| trainer | " + " | ".join(f"{configuration} {labels}" for configuration, labels in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for row in VARIANTS:
        found = (outcomes.get(str(Cell(row, *column))) for column in columns)
        lines.append(f"| `{row.trainer}` | " + " | ".join(_word(outcome, messages) for outcome in found) + " |")
    notes = [f"\nNote {number}:\n\n```text\n{message}\n```" for number, message in enumerate(messages, 1)]
    return "\n".join([_HEAD.format(command=COMMAND, counts=_counts(outcomes)), *lines, *notes]) + "\n"


def _word(outcome: Outcome | None, messages: list[str]) -> str:
    if outcome is None:
        return ""
    word = {PASSED: "yes", REFUSED: "no", FAILED: "failed"}[outcome.outcome]
    return f"{word} ({messages.index(outcome.message) + 1})" if outcome.message else word


def _counts(outcomes: Mapping[str, Outcome]) -> str:
    total = sum(1 for _ in cells())
    ended = [outcome.outcome for outcome in outcomes.values()]
    counts = ", ".join(f"{ended.count(kind)} {kind}" for kind in (PASSED, REFUSED, FAILED))
    lines = [f"{total} cells: {counts}, {total - len(ended)} not run."]
    for versions in dict.fromkeys(outcome.versions for outcome in outcomes.values()):
        made = [outcome for outcome in outcomes.values() if outcome.versions == versions]
        first, last = min(o.date for o in made), max(o.date for o in made)
        days = first if first == last else f"{first} to {last}"
        minutes = sum(o.seconds for o in made) / 60
        lines.append(f"{len(made)} on {days} in {minutes:.0f} minutes on one core, with {versions}.")
    return "\n".join(lines)


if __name__ == "__main__":
    write_text(PAGE, page(Store().outcomes()))
