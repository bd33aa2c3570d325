"""Rows of the multi-phase SAM + URIM."""

from nnunet_livseg.rows.schema import Variant

ROWS: tuple[Variant, ...] = ()
