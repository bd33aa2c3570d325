"""Rows of MFCNet ("Correlation Matters")."""

from nnunet_livseg.rows.schema import Variant

ROWS: tuple[Variant, ...] = ()
