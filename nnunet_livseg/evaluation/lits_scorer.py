"""The 2017 LiTS scorer, oddities included, written from its described behavior.

Bilic et al., "The Liver Tumor Segmentation Benchmark (LiTS)", arXiv:1901.04056. Reproduced: one prediction over two
references below the threshold counts -1 detected; a good merge of two references counts one hit and one miss; RVD has
its arguments swapped; the largest burden error keeps its sign. Not reproduced: the crash where a reference has no
lesion.
"""

import math

from nnunet_livseg.evaluation.lesions import THRESHOLDS, LesionPair, tally
from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.metrics import structure_scores
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.overlap import ratio

OPTIONS = Options(mode="lits")
SCORES = ("dice", "jaccard", "voe", "rvd", "assd", "rmsd", "hd")


def lits_scores(pair: MaskPair) -> dict[str, float]:
    """Scores of one structure or lesion as the scorer defines them; Dice is 1 where both masks are empty."""
    scores = structure_scores(pair, OPTIONS)
    if pair.n_predicted == pair.n_reference == 0:
        scores |= {"dice": 1.0, "jaccard": 1.0, "voe": 0.0}
    scores["rvd"] = ratio(pair.n_reference - pair.n_predicted, pair.n_predicted)
    return scores


def lits_detected(lesions: LesionPair, threshold: float) -> int:
    """The scorer's number of detected lesions.

    A merged pair above the threshold counts 1, one that is not counts 1 less than its number of reference lesions.
    """
    return sum(1 if group.iou > threshold else 1 - len(group.reference) for group in lesions.groups)


def lits_detection(lesions: LesionPair) -> dict[str, dict[str, int]]:
    """Counts at both thresholds as the scorer pools them (``lits_0``, ``lits_50``)."""
    detected = {threshold: lits_detected(lesions, threshold) for threshold in THRESHOLDS}
    return {f"lits_{t * 100:.0f}": tally(lesions, number, number) for t, number in detected.items()}


def burden_difference(tumor: MaskPair, liver: MaskPair) -> float:
    """Reference minus predicted tumor burden; a liver without voxels has burden 0."""
    reference, predicted = ratio(tumor.n_reference, liver.n_reference), ratio(tumor.n_predicted, liver.n_predicted)
    return (0.0 if math.isnan(reference) else reference) - (0.0 if math.isnan(predicted) else predicted)
