"""Axial slices one by one, in pixels, as 2D papers report them.

Pang et al., "Correlation Matters", PAKDD 2020 (MFCNet): means over the slices that contain tumor, Hausdorff distance in
pixels, F1 as the harmonic mean of the mean precision and the mean recall.
"""

import math
from collections.abc import Sequence

import numpy as np

from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.overlap import Confusion, overlap_scores, ratio
from nnunet_livseg.evaluation.statistics import describe
from nnunet_livseg.evaluation.surface_distances import SurfaceDistances

SCORES = ("dice", "jaccard", "precision", "recall", "specificity", "hd")


def slice_scores(pair: MaskPair, neighbors: int) -> dict[str, list[float]]:
    """Scores of every axial slice (axis 0) whose reference holds the structure; ``hd`` in pixels.

    Pixels with the ignore label count neither way.
    """
    scores: dict[str, list[float]] = {name: [] for name in SCORES}
    counted = pair.slice_pixels
    counted = np.full(len(pair.reference), np.prod(pair.shape[1:])) if counted is None else counted
    for predicted, reference, n_pixels in zip(pair.predicted, pair.reference, counted.tolist(), strict=True):
        if reference.any():
            plane = MaskPair.of(predicted, reference, (1.0, 1.0), n_voxels=int(n_pixels))
            found = overlap_scores(Confusion.of(plane))
            found["hd"] = SurfaceDistances.of(plane, neighbors).hd_mm() if plane.n_predicted else math.inf
            for name in SCORES:
                scores[name].append(found[name])
    return scores


def summarize_slices(cases: Sequence[dict[str, list[float]]]) -> dict:
    """Every score over all slices of all cases, and MFCNet's F1."""
    pooled = {name: describe([value for case in cases for value in case[name]]) for name in SCORES}
    precision, recall = pooled["precision"]["mean"], pooled["recall"]["mean"]
    return pooled | {"f1": ratio(2 * precision * recall, precision + recall), "n_slices": pooled["dice"]["n"]}
