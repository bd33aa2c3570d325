"""How well each engine agrees with torch, row by row: the entries that were measured, and the page made from them.

python tests/networks/engine_table.py    writes docs/reference/engines.md anew from engines.json
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunet_livseg.core.files import write_text
from nnunet_livseg.inference.engines import FLOAT32
from nnunet_livseg.variants import VARIANTS, Variant

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
STORE, PAGE = REFERENCE / "engines.json", REFERENCE / "engines.md"
COMMAND = "pytest --long -m long tests/networks/test_engine_table.py"
PATCHES = ("random", "ct")


def graphs() -> dict[str, tuple[Variant, int]]:
    """One row of every network with its options and dimensions, by name: rows that share them share an entry."""
    return {name_of(row, dim): (row, dim) for row in reversed(VARIANTS) for dim in row.dims}


def name_of(row: Variant, dim: int) -> str:
    """The entry of a row: named after the first row with the same network."""
    first = next(one for one in VARIANTS if (one.network, one.options) == (row.network, row.options))
    return f"{first.name} {dim}d"


def used_versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript", *FLOAT32))


def entries() -> dict[str, dict[str, Any]]:
    """What was measured, by name."""
    return json.loads(STORE.read_text(encoding="utf-8")) if STORE.is_file() else {}


def record(name: str, entry: Mapping[str, Any]) -> None:
    """Keep an entry, in the order of the table."""
    found = {**entries(), name: {**entry, "versions": used_versions()}}
    lines = [f"{json.dumps(key)}: {json.dumps(found[key])}" for key in sorted(found, key=list(graphs()).index)]
    write_text(STORE, "{\n" + ",\n".join(lines) + "\n}\n")


_HEAD = """# What runs in which engine

Each row was built narrow, exported as ONNX, and run in every engine and in torch. *ct* is a patch through the liver of
a real CT (3D-IRCADb 17), *random* is noise. The numbers are the largest difference of the logits, as a share of the
largest logit, and the share of voxels with the same label. Weights are random, so labels differ sooner than after
training. `livseg export` measures the same for your model. Empty cells are not measured yet.

`{command}` makes this page.

{versions}

| trainer | dimensions | {columns} | cannot run |
|---|---|{lines}---|"""


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The document for these entries."""
    columns = [f"{engine}, {patch}" for engine in FLOAT32 for patch in PATCHES]
    versions = "\n".join(dict.fromkeys(f"Versions: {entry['versions']}." for entry in found.values()))
    head = _HEAD.format(command=COMMAND, versions=versions, columns=" | ".join(columns), lines="---|" * len(columns))
    lines = []
    for row in VARIANTS:
        for dim in row.dims:
            entry = found.get(name_of(row, dim), {"parity": {}, "not_exported": {}})
            cells = [_cell(entry["parity"].get(engine, {}).get(patch)) for engine in FLOAT32 for patch in PATCHES]
            reasons = "; ".join(f"{engine}: {reason}" for engine, reason in entry["not_exported"].items())
            lines.append(f"| `{row.trainer}` | {dim}D | {' | '.join(cells)} | {reasons.replace('|', ' ')} |")
    return "\n".join([head, *lines]) + "\n"


def _cell(parity: Mapping[str, float] | None) -> str:
    if parity is None:
        return ""
    share = parity["largest_difference"] / max(parity["largest_logit"], 1e-12)
    return f"{share:.0e}, {100 * parity['equal_labels']:.6g}%"


if __name__ == "__main__":
    write_text(PAGE, page(entries()))
