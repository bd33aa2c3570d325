"""Draw docs/images/synthetic_tumors.png: ``python docs/images/synthetic_tumors.py CT LABELS`` in the project's folder.

LABELS has the liver of the CT as 1, such as ``segmentation.nii.gz`` of ``livseg segment``.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import SimpleITK as sitk
import torch

from nnunet_livseg.core.labels import LIVER_AND_TUMOR, structures_from_labels
from nnunet_livseg.training.augmentation import SyntheticTumors, Window

WINDOW = Window(low=-110.0, high=190.0, per_hu=1.0)
SPACING_MM = (2.5, 1.5, 1.5)
SEEDS = (1, 2, 4, 6)


def resampled(path: str, interpolator: int) -> np.ndarray:
    """Voxels (z, y, x) of a file at ``SPACING_MM``."""
    image = sitk.DICOMOrient(sitk.ReadImage(path), "LPS")
    spacing = SPACING_MM[::-1]
    size = [round(n * s / mm) for n, s, mm in zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)]
    grid = (image.GetOrigin(), spacing, image.GetDirection())
    return sitk.GetArrayFromImage(sitk.Resample(image, size, sitk.Transform(), interpolator, *grid, -1024.0))


def main() -> None:
    """A slice with the tumors of each seed, and below it their outlines."""
    image = torch.from_numpy(resampled(sys.argv[1], sitk.sitkLinear).astype(np.float32)).clamp(WINDOW.low, WINDOW.high)
    liver = torch.from_numpy((resampled(sys.argv[2], sitk.sitkNearestNeighbor) > 0).astype(np.int16))
    step = SyntheticTumors(WINDOW, SPACING_MM, structures_from_labels(LIVER_AND_TUMOR))
    at = int(liver.sum((1, 2)).argmax())
    (top, bottom), (left, right) = ((int(i.min()), int(i.max()) + 1) for i in liver[at].nonzero(as_tuple=True))
    box = np.s_[at - 16 : at + 16, top - 8 : bottom + 8, left - 8 : right + 8]
    figure, axes = plt.subplots(2, len(SEEDS), figsize=(11, 4.3), layout="constrained", facecolor="black")
    for seed, column in zip(SEEDS, axes.T, strict=True):
        torch.manual_seed(seed)
        drawn = step(image=image[box][None].clone(), segmentation=liver[box][None].clone())
        tumor = (drawn["segmentation"][0] == LIVER_AND_TUMOR["tumor"]).numpy()
        z = int(tumor.sum((1, 2)).argmax())
        for ax in column:
            ax.imshow(drawn["image"][0, z], cmap="gray", vmin=WINDOW.low, vmax=WINDOW.high)
            ax.axis("off")
        column[1].contour(tumor[z], levels=[0.5], colors="#ffd23d", linewidths=1.2)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=75, facecolor="black")


if __name__ == "__main__":
    main()
