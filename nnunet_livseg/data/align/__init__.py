"""Contrast phases of one patient onto the grid of the primary phase. Needs no ground truth, except `tumor-center`."""

from nnunet_livseg.data.align.agreement import PhaseAgreement
from nnunet_livseg.data.align.registration import METHODS, Alignment, align

__all__ = ["METHODS", "Alignment", "PhaseAgreement", "align"]
