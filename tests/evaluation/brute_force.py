"""The definitions a second time, by loops and full distance tables, sharing no code with the package."""

import itertools
import math

import numpy as np


def confusion(a, b):
    pairs = list(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return [pairs.count(key) for key in ((True, True), (True, False), (False, True), (False, False))]


def overlap(a, b):
    tp, fp, fn, tn = confusion(a, b)
    return {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "jaccard": tp / (tp + fp + fn),
        "voe": (fp + fn) / (tp + fp + fn),
        "rvd": (int(a.sum()) - int(b.sum())) / int(b.sum()),
        "accuracy": (tp + tn) / a.size,
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "npv": tn / (tn + fn),
        "mcc": float(np.corrcoef(a.ravel(), b.ravel())[0, 1]),
    }


def surface_points(mask, neighbors):
    reach = {6: 1, 18: 2, 26: 3}[neighbors]
    steps = [s for s in itertools.product((-1, 0, 1), repeat=mask.ndim) if 0 < sum(map(abs, s)) <= reach]
    points = []
    for voxel in np.argwhere(mask):
        for step in steps:
            other = voxel + step
            outside = (other < 0).any() or (other >= mask.shape).any()
            if outside or not mask[tuple(other)]:
                points.append(voxel)
                break
    return np.array(points)


def directed(points, targets, spacing):
    return np.array([min(math.dist(p * spacing, t * spacing) for t in targets) for p in points])


def percentile95(values):
    ordered = sorted(values)
    place = 0.95 * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def distances(a, b, spacing, neighbors=6):
    spacing = np.array(spacing)
    pa, pb = surface_points(a, neighbors), surface_points(b, neighbors)
    ab, ba = directed(pa, pb, spacing), directed(pb, pa, spacing)
    pooled = [*ab, *ba]
    return {
        "assd": sum(pooled) / len(pooled),
        "rmsd": math.sqrt(sum(d * d for d in pooled) / len(pooled)),
        "hd95": max(percentile95(ab), percentile95(ba)),
        "hd95_pooled": percentile95(pooled),
        "hd": max(pooled),
        "nsd_voxels": lambda t: sum(d <= t for d in pooled) / len(pooled),
    }


def longest_diameter(mask, spacing):
    points = [
        [(v + s / 2 * (axis == k)) * h for k, (v, h) in enumerate(zip(voxel, spacing, strict=True))]
        for voxel in np.argwhere(mask).tolist()
        for axis in range(mask.ndim)
        for s in (-1, 1)
    ]
    return max(math.dist(p, q) for p in points for q in points)
