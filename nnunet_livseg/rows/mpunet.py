"""Rows of MPU-Net."""

from nnunet_livseg.rows.schema import Variant

ROWS: tuple[Variant, ...] = ()
