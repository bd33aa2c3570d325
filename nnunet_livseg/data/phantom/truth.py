"""The case table: what the label map says about every tumor."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from nnunet_livseg.data.phantom.fields import Array, Grid
from nnunet_livseg.data.phantom.tissues import PHASES
from nnunet_livseg.data.phantom.tumors import Tumor


@dataclass(frozen=True)
class TumorTruth:
    """One row of the case table, without the case.

    Args:
        lesion: Number of the tumor in its case, from 1.
        type: Type of tumor.
        visible_in: ``"all phases"`` or ``"arterial phase"``.
        voxels: Voxels with the tumor label.
        volume_ml: Their volume.
        diameter_mm: Diameter of the ball of that volume.
        center_voxel: Center of mass, index (z, y, x), from 0.
        center_mm: The same in the image's physical coordinates (z, y, x; LPS).
        mean_hu: Mean of the written image over the tumor, one per phase.
    """

    lesion: int
    type: str
    visible_in: str
    voxels: int
    volume_ml: float
    diameter_mm: float
    center_voxel: tuple[float, float, float]
    center_mm: tuple[float, float, float]
    mean_hu: tuple[float, ...]

    def row(self) -> dict[str, object]:
        """Flat columns, with axes and phases in the names."""
        flat = {k: v for k, v in asdict(self).items() if k not in ("center_voxel", "center_mm", "mean_hu")}
        flat["volume_ml"], flat["diameter_mm"] = f"{self.volume_ml:.4f}", f"{self.diameter_mm:.2f}"
        for axis, index, mm in zip("zyx", self.center_voxel, self.center_mm, strict=True):
            flat[f"{axis}_voxel"], flat[f"{axis}_mm"] = f"{index:.2f}", f"{mm:.2f}"
        for phase, hu in zip(PHASES, self.mean_hu, strict=False):
            flat[f"mean_hu_{phase.replace(' ', '_')}"] = f"{hu:.1f}"
        return flat


def measure_tumors(planned: list[Tumor], lesion: Array, image: Array, grid: Grid) -> list[TumorTruth]:
    """Measure every tumor that has at least one voxel.

    Args:
        planned: The tumors that were painted.
        lesion: Number of the tumor in each voxel, (Z, Y, X).
        image: HU, (phases, Z, Y, X).
        grid: Voxel grid of both.
    """
    boxes = ndimage.find_objects(lesion, max_label=max((t.number for t in planned), default=0))
    found = zip(planned, boxes, strict=True)
    return [_measure(tumor, box, lesion, image, grid) for tumor, box in found if box is not None]


def _measure(tumor: Tumor, box: tuple[slice, ...], lesion: Array, image: Array, grid: Grid) -> TumorTruth:
    mask = lesion[box] == tumor.number
    index = np.argwhere(mask).mean(axis=0) + [s.start for s in box]
    volume_ml = int(mask.sum()) * grid.voxel_ml
    return TumorTruth(
        lesion=tumor.number,
        type=tumor.type,
        visible_in="arterial phase" if tumor.arterial_only else "all phases",
        voxels=int(mask.sum()),
        volume_ml=volume_ml,
        diameter_mm=(6000 * volume_ml / np.pi) ** (1 / 3),
        center_voxel=tuple(float(i) for i in index),
        center_mm=tuple(float(o + i * s) for o, i, s in zip(grid.origin_mm, index, grid.spacing_mm, strict=True)),
        mean_hu=tuple(float(phase[box][mask].mean()) for phase in image),
    )
