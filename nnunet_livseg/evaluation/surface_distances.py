"""Distances between the surfaces of two masks.

The surface is the mask minus its erosion; distances run between voxel centers, in mm. What lies outside the image
counts as background, so a mask that touches the image border has a surface there (as in MedPy and MONAI).
Nearest neighbors come from a k-d tree over surface voxels of the joint bounding box: the same numbers as a Euclidean
distance transform, without touching the voxels in between.
"""

# Shapes: *C the joint bounding box; N, M numbers of surface voxels; D dimensions

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.imaging.masks import surface_voxels

_LEAF_SIZE = 12
_CHUNK = 500_000  # rows per query: bounds the memory of masks that are all surface


def nearest_distances_mm(
    points: np.ndarray, targets: np.ndarray, spacing_mm: tuple[float, ...], *, limit_mm: float = np.inf
) -> np.ndarray:
    """Distance from each of ``points (N, D)`` to the nearest of ``targets (M, D)``; both are voxel indices.

    Infinite where there is no target, or none within ``limit_mm``.
    """
    distances = np.full(len(points), np.inf)
    if not len(targets) or not len(points):
        return distances
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    tree = cKDTree(targets * spacing, leafsize=_LEAF_SIZE, balanced_tree=False, compact_nodes=False)
    for start in range(0, len(points), _CHUNK):
        part = points[start : start + _CHUNK]
        _, nearest = tree.query(part * spacing, distance_upper_bound=limit_mm)
        found = nearest < len(targets)
        # from the integer offsets, so that a distance is the same wherever in the image it is measured
        steps = (part[found] - targets[nearest[found]]) * spacing
        distances[start : start + _CHUNK][found] = np.sqrt(np.square(steps).sum(axis=1))
    return distances


def directed_distances_mm(
    source: np.ndarray, target: np.ndarray, spacing_mm: tuple[float, ...], *, limit_mm: float = np.inf
) -> np.ndarray:
    """Distance from each true voxel of ``source (*C)``, in index order, to the nearest one of ``target (*C)``."""
    points = np.argwhere(source)
    distances = np.zeros(len(points))
    apart = ~target[source]  # shared voxels are most of a good prediction's surface and need no search
    distances[apart] = nearest_distances_mm(points[apart], np.argwhere(target), spacing_mm, limit_mm=limit_mm)
    return distances


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm from each surface voxel of one mask to the surface of the other.

    Args:
        from_predicted: ``(N,)``, predicted surface to reference surface.
        from_reference: ``(M,)``, reference surface to predicted surface.
    """

    from_predicted: np.ndarray
    from_reference: np.ndarray

    @classmethod
    def of(cls, pair: MaskPair, neighbors: int = 6) -> "SurfaceDistances":
        predicted, reference = surface_voxels(pair.predicted, neighbors), surface_voxels(pair.reference, neighbors)
        return cls(
            directed_distances_mm(predicted, reference, pair.spacing_mm),
            directed_distances_mm(reference, predicted, pair.spacing_mm),
        )

    @property
    def pooled(self) -> np.ndarray:
        return np.concatenate([self.from_predicted, self.from_reference])

    def assd_mm(self) -> float:
        """Mean of the pooled distances."""
        return float(self.pooled.mean()) if self.pooled.size else np.nan

    def rmsd_mm(self) -> float:
        """Root mean square of the pooled distances."""
        return float(np.sqrt(np.square(self.pooled).mean())) if self.pooled.size else np.nan

    def hd_mm(self) -> float:
        """The largest distance of either direction."""
        return float(self.pooled.max()) if self.pooled.size else np.nan

    def hd95_mm(self, kind: str = "max") -> float:
        """The larger of the directed 95th percentiles (``max``), or the percentile of the ``pooled`` distances."""
        if not self.pooled.size:
            return np.nan
        if not np.isfinite(self.pooled).all():  # one mask is empty: percentiles of infinities would be NaN
            return np.inf
        if kind == "pooled":
            return float(np.percentile(self.pooled, 95))
        return float(max(np.percentile(self.from_predicted, 95), np.percentile(self.from_reference, 95)))

    def share_within(self, tolerance_mm: float) -> float:
        """Share of all surface voxels of both masks within the tolerance of the other surface."""
        return float((self.pooled <= with_slack(tolerance_mm)).mean()) if self.pooled.size else np.nan


def with_slack(tolerance_mm: float) -> float:
    """The tolerance, so that 3 x 0.8 mm (2.4000000000000004 in floating point) is within 2.4 mm."""
    return tolerance_mm * (1 + 1e-9)
