"""Elastic deformation in nnU-Net's augmentation, which has it switched off.

A recipe's ``elastic`` entry says how often (``probability``), how smooth (``scale``: the sigma of the Gaussian that
smooths the random displacements, as a share of the patch's edge) and how far (``magnitude``: the largest displacement,
as a share of that sigma, so that smoother deformations may reach further; up to about 1 the image does not fold).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform


@dataclass(frozen=True)
class Magnitude:
    """Draws the largest displacement in voxels for one axis; batchgeneratorsv2 calls it."""

    low: float
    high: float

    def __call__(self, *, patch_size: Sequence[int], dim: int, deformation_scale: float, **_: Any) -> float:
        """Displacement for axis ``dim`` of a patch whose displacements are smoothed by ``deformation_scale``."""
        share = np.random.uniform(self.low, self.high)  # noqa: NPY002 - the generator that nnU-Net seeds in its workers
        return share * deformation_scale * patch_size[dim]


def deform_elastically(transforms: BasicTransform, elastic: Mapping[str, Any]) -> int:
    """Switch elastic deformation on in all spatial transforms among ``transforms``; returns how many there are."""
    parts = getattr(transforms, "transforms", [transforms])
    spatial = [part for part in parts if isinstance(part, SpatialTransform)]
    for part in spatial:
        part.p_elastic_deform = elastic["probability"]
        part.elastic_deform_scale = tuple(elastic["scale"])
        part.elastic_deform_magnitude = Magnitude(*elastic["magnitude"])
        part.p_synchronize_def_scale_across_axes = 1  # one scale for all axes, as with zooming
    return len(spatial)


def with_elastic(
    make: Callable[..., BasicTransform], elastic: Mapping[str, Any], log: Callable[[str], None]
) -> Callable[..., BasicTransform]:
    """``make``, nnU-Net's ``get_training_transforms``, with elastic deformation in what it returns."""

    def deforming(*args: Any, **kwargs: Any) -> BasicTransform:
        transforms = make(*args, **kwargs)
        if not deform_elastically(transforms, elastic):
            log("The recipe's elastic deformation is not used: this trainer's augmentation has no SpatialTransform.")
        return transforms

    return deforming
