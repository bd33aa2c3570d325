"""Draws a prediction over a CT: python docs/images/overlay.py IMAGE PREDICTION OUT.png [--reference R] [--axial Z ...]

Liver with tumors magenta, tumors yellow, the reference's liver green; window 40/300 HU; radiological display.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk

matplotlib.use("agg")
import matplotlib.pyplot as plt

LOW_HU, HIGH_HU = -110, 190


def read(path: str) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Voxels (z, y, x), towards head, back and left, and their spacing in mm."""
    image = sitk.DICOMOrient(sitk.ReadImage(path), "LPS")
    return sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]


def outline(axis, mask: np.ndarray, color: str) -> None:
    """Contour of a mask, if there is anything in it."""
    if mask.any():
        axis.contour(mask, levels=[0.5], colors=color, linewidths=1.3)


def main() -> None:
    """Read the arguments, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("prediction")
    parser.add_argument("out", type=Path)
    parser.add_argument("--reference", help="label map on the grid of the image's last slices")
    parser.add_argument("--axial", type=int, nargs="*", default=[])
    parser.add_argument("--coronal", type=int, nargs="*", default=[])
    args = parser.parse_args()
    image, spacing = read(args.image)
    predicted, _ = read(args.prediction)
    reference = np.zeros_like(predicted)
    if args.reference:
        labels, _ = read(args.reference)
        reference[len(reference) - len(labels) :] = labels
    views = [(f"slice {z}", (z,), 1.0) for z in args.axial]
    views += [(f"coronal {y}", (slice(None, None, -1), y), spacing[0] / spacing[2]) for y in args.coronal]
    figure, axes = plt.subplots(1, len(views), figsize=(5 * len(views), 4.6), squeeze=False, facecolor="black")
    for axis, (title, where, aspect) in zip(axes[0], views, strict=True):
        axis.imshow(np.clip(image[where], LOW_HU, HIGH_HU), cmap="gray", vmin=LOW_HU, vmax=HIGH_HU, aspect=aspect)
        outline(axis, predicted[where] > 0, "#ff3df2")
        outline(axis, predicted[where] == 2, "#ffd23d")
        outline(axis, reference[where] > 0, "#2fdc5a")
        axis.set_title(title, color="white", fontsize=10)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(args.out, dpi=90, facecolor="black")


if __name__ == "__main__":
    main()
