"""Writes the tables that follow from the code into README.md and docs: python docs/generate.py

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`; a test says when one is stale.
"""

import re
from collections.abc import Callable
from pathlib import Path

from nnunet_livseg.reference import count_parameters
from nnunet_livseg.variants import VARIANTS

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def rows_of(paper: str | None = None) -> str:
    """Trainer, parameters and reproduced row of every variant (of one paper)."""
    lines = ["| trainer (`-tr`) | `livseg plan -m` | parameters | dimensions | reproduces |", "|---|---|---|---|---|"]
    for row in VARIANTS:
        if paper in (None, row.paper.key):
            parameters = f"{count_parameters(row) / 1e6:.2f}M"
            dims = ", ".join(f"{dim}D" for dim in row.dims)
            note = f" ({row.note})" if row.note else ""
            lines.append(f"| `{row.trainer}` | `{row.name}` | {parameters} | {dims} | {row.reproduces}{note} |")
    return "\n".join(lines)


def main_trainers() -> str:
    """One line per paper: its full network."""
    lines = ["| system | trainer | rows in all | page |", "|---|---|---|---|"]
    for key in dict.fromkeys(row.paper.key for row in VARIANTS):
        rows = [row for row in VARIANTS if row.paper.key == key]
        paper = rows[0].paper
        lines.append(f"| {paper.citation} | `{rows[0].trainer}` | {len(rows)} | [{paper.page}]({paper.page}) |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "systems": main_trainers,
    "variants": rows_of,
    **{f"variants {key}": (lambda key=key: rows_of(key)) for key in dict.fromkeys(r.paper.key for r in VARIANTS)},
}


def filled(text: str) -> str:
    """``text`` with every generated table renewed."""

    def fill(found: re.Match) -> str:
        return f"<!-- generated: {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- generated: (.+?) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text()
        if filled(text) != text:
            page.write_text(filled(text))
            print("renewed", page.relative_to(PROJECT))
