"""How well two phases lie on each other: numbers that need no reference segmentation, and one picture."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.files import atomic_path

WINDOW_HU = (-150.0, 300.0)  # fat to enhanced vessels: what both phases show, whatever the contrast
BODY_HU = -100.0
_BINS = 48
_TILES = 8  # of the checkerboard, per side


@dataclass(frozen=True)
class PhaseAgreement:
    """Agreement of a phase with the primary phase.

    Args:
        mutual_information: Of the windowed values inside the region of interest, in nats; higher is better.
        body_dice: Dice of the two bodies (above -100 HU) where both scans reach, 0 to 1.
        liver_dice: Dice of the two liver masks, if both phases came with one.
    """

    mutual_information: float
    body_dice: float
    liver_dice: float | None = None

    def rounded(self) -> dict[str, float]:
        """The measured numbers, rounded for a record."""
        return {name: round(value, 4) for name, value in asdict(self).items() if value is not None}


def windowed(image: sitk.Image) -> sitk.Image:
    """HU clipped to what soft tissue shows, float32."""
    return sitk.Clamp(sitk.Cast(image, sitk.sitkFloat32), sitk.sitkFloat32, *WINDOW_HU)


def mutual_information(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mutual information of two samples of HU from a joint histogram over the window, in nats; 0 for no samples."""
    if ours.size == 0:
        return 0.0
    joint, *_ = np.histogram2d(
        np.clip(ours, *WINDOW_HU), np.clip(theirs, *WINDOW_HU), bins=_BINS, range=[WINDOW_HU] * 2
    )
    joint /= joint.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / independent[filled])).sum())


def dice(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Dice of two boolean arrays; 1 where both are empty."""
    total = int(ours.sum()) + int(theirs.sum())
    return 2 * int((ours & theirs).sum()) / total if total else 1.0


def picture(primary: sitk.Image, before: sitk.Image, after: sitk.Image, region: np.ndarray, path: Path) -> None:
    """Write a PNG: axial and coronal checkerboards and red-green overlays, before and after.

    Both planes go through the center of ``region``. In the overlays the primary phase is green and the other magenta:
    gray where they agree.
    """
    from matplotlib.figure import Figure

    z, y = (round(float(axis.mean())) for axis in np.nonzero(region)[:2])
    spacing_x, spacing_y, spacing_z = primary.GetSpacing()
    scaled = [_scaled(sitk.GetArrayViewFromImage(image)) for image in (primary, before, after)]
    width, height, depth = (size * mm for size, mm in zip(primary.GetSize(), primary.GetSpacing(), strict=True))
    figure = Figure(figsize=(14, 0.9 + 3.5 * (height + depth) / width), layout="constrained")
    grid = figure.subplots(2, 4, height_ratios=(height, depth))
    planes = (
        ("axial", lambda a: a[z], spacing_y / spacing_x),
        ("coronal", lambda a: a[::-1, y], spacing_z / spacing_x),
    )
    for row, (name, cut, aspect) in zip(grid, planes, strict=True):
        for column, when in enumerate(("before", "after")):
            ours, theirs = cut(scaled[0]), cut(scaled[1 + column])
            for axes, shown, kind in (
                (row[column], _checkerboard(ours, theirs), "checkerboard"),
                (row[2 + column], np.stack([theirs, ours, theirs], axis=-1), "overlay"),
            ):
                axes.imshow(shown, cmap="gray", vmin=0, vmax=1, aspect=aspect)
                axes.set_title(f"{name}, {kind} {when}", fontsize=10)
                axes.axis("off")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90)


def _scaled(values: np.ndarray) -> np.ndarray:
    low, high = WINDOW_HU
    return (np.clip(values, low, high) - low) / (high - low)


def _checkerboard(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    rows, columns = (np.arange(size) * _TILES // size for size in ours.shape)
    return np.where((rows[:, None] + columns) % 2, ours, theirs)
