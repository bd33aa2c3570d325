"""Lesion by lesion: components, sizes, overlaps, and which lesions count as found."""

# Letters: R number of reference lesions, P number of predicted lesions; lesions are numbered from 1

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.overlap import ratio
from nnunet_livseg.imaging.masks import label_components

THRESHOLDS = (0.0, 0.5)  # of the intersection over union, strictly above


@dataclass(frozen=True)
class LesionGroup:
    """Lesions that hang together through overlaps: merged, they are one object on each side.

    Args:
        reference: Numbers of the reference lesions.
        predicted: Numbers of the predicted lesions.
        iou: Intersection over union of the merged objects.
    """

    reference: tuple[int, ...]
    predicted: tuple[int, ...]
    iou: float


class LesionPair:
    """The lesions of a predicted and a reference tumor mask and their overlaps.

    Args:
        pair: Tumor masks.
        neighbors: 6, 18 or 26: what holds a lesion together.
    """

    def __init__(self, pair: MaskPair, neighbors: int = 6) -> None:
        self.pair = pair
        self.predicted, self.n_predicted = label_components(pair.predicted, neighbors=neighbors)
        self.reference, self.n_reference = label_components(pair.reference, neighbors=neighbors)
        self.predicted_sizes = np.bincount(self.predicted.ravel(), minlength=self.n_predicted + 1)
        self.reference_sizes = np.bincount(self.reference.ravel(), minlength=self.n_reference + 1)
        self.predicted_boxes = ndimage.find_objects(self.predicted)
        self.reference_boxes = ndimage.find_objects(self.reference)

    @cached_property
    def overlaps(self) -> dict[tuple[int, int], int]:
        """Shared voxels of each overlapping (reference, predicted) pair of lesions."""
        both = self.pair.predicted & self.pair.reference
        code = self.reference[both].astype(np.int64) * (self.n_predicted + 1) + self.predicted[both]
        codes, counts = np.unique(code, return_counts=True)
        pairs = zip(*(part.tolist() for part in np.divmod(codes, self.n_predicted + 1)), strict=True)
        return dict(zip(pairs, counts.tolist(), strict=True))

    def iou(self, reference: int, predicted: int) -> float:
        """Intersection over union of two lesions."""
        shared = self.overlaps.get((reference, predicted), 0)
        return shared / int(self.reference_sizes[reference] + self.predicted_sizes[predicted] - shared)

    @cached_property
    def groups(self) -> list[LesionGroup]:
        """Overlapping lesions merged on both sides until every group stands alone."""
        if not self.overlaps:
            return []
        rows, columns = np.transpose(list(self.overlaps))
        size = self.n_reference + self.n_predicted + 2
        graph = coo_matrix((np.ones(len(rows)), (rows, columns + self.n_reference + 1)), shape=(size, size))
        _, member_of = connected_components(graph, directed=False)
        found: dict[int, tuple[set, set]] = {}
        for reference, predicted in self.overlaps:
            sides = found.setdefault(int(member_of[reference]), (set(), set()))
            sides[0].add(reference)
            sides[1].add(predicted)
        return [self._group(tuple(sorted(r)), tuple(sorted(p))) for r, p in found.values()]

    def _group(self, reference: tuple[int, ...], predicted: tuple[int, ...]) -> LesionGroup:
        shared = sum(self.overlaps.get((r, p), 0) for r in reference for p in predicted)
        union = int(self.reference_sizes[list(reference)].sum() + self.predicted_sizes[list(predicted)].sum()) - shared
        return LesionGroup(reference, predicted, shared / union)

    @cached_property
    def matches(self) -> dict[int, int]:
        """One-to-one matching, reference to predicted, with the largest sum of intersections over unions."""
        if not self.overlaps:
            return {}
        rows, columns = (sorted(set(side)) for side in zip(*self.overlaps, strict=True))
        row_of, column_of = ({number: i for i, number in enumerate(side)} for side in (rows, columns))
        score = np.zeros((len(rows), len(columns)))
        for r, p in self.overlaps:
            score[row_of[r], column_of[p]] = self.iou(r, p)
        chosen = zip(*linear_sum_assignment(score, maximize=True), strict=True)
        return {rows[i]: columns[j] for i, j in chosen if score[i, j] > 0}

    def mask_pair(self, reference: tuple[int, ...], predicted: tuple[int, ...]) -> MaskPair:
        """Masks of some lesions of each side, cropped to them."""
        boxes = [self.reference_boxes[r - 1] for r in reference] + [self.predicted_boxes[p - 1] for p in predicted]
        box = tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))
        masks = np.isin(self.predicted[box], predicted), np.isin(self.reference[box], reference)
        return MaskPair.of(*masks, self.pair.spacing_mm)


def detection_counts(lesions: LesionPair) -> dict[str, dict[str, int]]:
    """Found lesions, corrected LiTS way (``group_0``, ``group_50``) and one to one (``matched_0``, ``matched_50``).

    A group above the threshold counts all its reference lesions as found and all its predicted lesions as true. In the
    one-to-one matching each reference lesion is found by one predicted lesion at most; further pieces are false.
    """
    groups, matches = {}, {}
    for threshold in THRESHOLDS:
        good = [group for group in lesions.groups if group.iou > threshold]
        found, true = sum(len(g.reference) for g in good), sum(len(g.predicted) for g in good)
        matched = sum(lesions.iou(r, p) > threshold for r, p in lesions.matches.items())
        groups[f"group_{threshold * 100:.0f}"] = tally(lesions, found, true)
        matches[f"matched_{threshold * 100:.0f}"] = tally(lesions, matched, matched)
    return groups | matches


def tally(lesions: LesionPair, found: int, true: int) -> dict[str, int]:
    """Found and missed reference lesions, true and false predicted ones."""
    return {"found": found, "missed": lesions.n_reference - found, "true": true, "false": lesions.n_predicted - true}


def detection_scores(counts: dict[str, int]) -> dict[str, float]:
    """Precision, recall and F1 of pooled counts; NaN where there is nothing to divide by."""
    precision = ratio(counts["true"], counts["true"] + counts["false"])
    recall = ratio(counts["found"], counts["found"] + counts["missed"])
    # 0/0 in F1 is 0 as soon as there is a lesion on either side
    f1 = 0.0 if precision + recall == 0 else ratio(2 * precision * recall, precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1}
