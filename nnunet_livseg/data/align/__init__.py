"""Align the contrast phases of a patient on one grid. Needs no reference segmentation, except `tumor-center`."""

from nnunet_livseg.data.align.agreement import PhaseAgreement
from nnunet_livseg.data.align.registration import METHODS, Alignment, align

__all__ = ["METHODS", "Alignment", "PhaseAgreement", "align"]
