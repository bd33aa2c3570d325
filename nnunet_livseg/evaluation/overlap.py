"""Scores from the confusion matrix. Undefined is NaN, and only undefined is NaN."""

import math
from dataclasses import dataclass

from nnunet_livseg.evaluation.mask_pair import MaskPair


@dataclass(frozen=True)
class Confusion:
    """Voxel counts of a pair of masks (Python integers: the products in MCC overflow 64 bits)."""

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, pair: MaskPair) -> "Confusion":
        tp = pair.n_both
        fp, fn = pair.n_predicted - tp, pair.n_reference - tp
        return cls(tp, fp, fn, pair.n_voxels - tp - fp - fn)


def ratio(numerator: float, denominator: float) -> float:
    """``numerator / denominator``; x/0 is infinite with the sign of x, and 0/0 is NaN."""
    if denominator:
        return numerator / denominator
    return math.copysign(math.inf, numerator) if numerator else math.nan


def overlap_scores(c: Confusion) -> dict[str, float]:
    """All scores of the confusion matrix; every score is NaN where both masks are empty."""
    if c.tp + c.fp + c.fn == 0:
        return dict.fromkeys(_SCORES, math.nan)
    return {name: score(c) for name, score in _SCORES.items()}


def _dice(c: Confusion) -> float:
    return ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def _jaccard(c: Confusion) -> float:
    return ratio(c.tp, c.tp + c.fp + c.fn)


def _mcc(c: Confusion) -> float:
    margins = (c.tp + c.fp) * (c.tp + c.fn) * (c.tn + c.fp) * (c.tn + c.fn)
    return (c.tp * c.tn - c.fp * c.fn) / math.sqrt(margins) if margins else 0.0


_SCORES = {
    "dice": _dice,
    "jaccard": _jaccard,
    "voe": lambda c: 1 - _jaccard(c),
    "rvd": lambda c: ratio(c.fp - c.fn, c.tp + c.fn),
    "accuracy": lambda c: ratio(c.tp + c.tn, c.tp + c.fp + c.fn + c.tn),
    "precision": lambda c: ratio(c.tp, c.tp + c.fp),
    "recall": lambda c: ratio(c.tp, c.tp + c.fn),
    "specificity": lambda c: ratio(c.tn, c.tn + c.fp),
    "npv": lambda c: ratio(c.tn, c.tn + c.fn),
    "f1": _dice,
    "mcc": _mcc,
}
