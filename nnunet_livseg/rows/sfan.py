"""Rows of SFAN."""

from nnunet_livseg.rows.schema import Variant

ROWS: tuple[Variant, ...] = ()
