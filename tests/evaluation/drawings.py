"""Small drawings that the evaluation's tests share (imported by path: tests are no package)."""

import numpy as np
from scipy import ndimage

SPACING_MM = (5.0, 0.8, 0.8)


def box(*ranges, shape=(20, 30, 40)):
    """A mask that is true in half-open index ranges, one per axis."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def blob(seed, *, shape=(14, 22, 26), level=0.0, smooth=2.0):
    """A random connected-looking shape; may touch the image border."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), smooth, mode="wrap")
    return noise > noise.mean() + level * noise.std()


def liver_scan(shape=(12, 24, 28), *, lesions=(), liver=((2, 10), (3, 21), (3, 25))):
    """A label map: liver 1 as a box, tumors 2 as boxes."""
    labels = np.zeros(shape, dtype=np.uint8)
    labels[tuple(slice(*r) for r in liver)] = 1
    for lesion in lesions:
        labels[tuple(slice(*r) for r in lesion)] = 2
    return labels
