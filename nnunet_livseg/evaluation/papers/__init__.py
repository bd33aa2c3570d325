"""The five papers' tables in their own columns: their printed rows beside ours, marked as quoted.

A table is data: columns that say which of our numbers belongs there, and the rows as printed. ``TABLES`` holds all.
"""

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.evaluation.paper_table import Column, PaperTable, render
from nnunet_livseg.evaluation.papers import dpcnet, mfcnet, mpunet, sam_urim, sfan

TABLES = {table.name: table for paper in (dpcnet, sfan, mfcnet, mpunet, sam_urim) for table in paper.TABLES}

__all__ = ["TABLES", "Column", "PaperTable", "paper_table", "render"]


def paper_table(name: str) -> PaperTable:
    """The table of that name.

    Raises:
        UserError: There is none.
    """
    if name not in TABLES:
        raise UserError(f"there is no table {name!r}.\n  Tables: {', '.join(TABLES)}")
    return TABLES[name]
