"""Augmentation that recipes add to nnU-Net's.

``augmentation`` ``"ct"`` adds steps for models that must take CTs of other scanners, protocols and fields of view. They
work on intensities that were clipped to a window and then scaled, as nnU-Net's CTNormalization does, so no value leaves
the window: air stays black.

``elastic`` switches on nnU-Net's elastic deformation: how often (``probability``), how smooth (``scale``: the sigma of
the Gaussian that smooths the random displacements, as a share of the patch's edge) and how far (``magnitude``: the
largest displacement, as a share of that sigma, so that smoother deformations may reach further; up to about 1 the image
does not fold).
"""

# Shape letters:  C channels, *S spatial sizes, the first of which is the slice axis

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The ends of the HU window in normalized intensities, and how much one HU is."""

    low: float
    high: float
    per_hu: float

    @classmethod
    def of_plans(cls, plans: Mapping[str, Any]) -> "Window":
        """That of channel 0, from the foreground's properties in nnU-Net's plans."""
        hu = plans["foreground_intensity_properties_per_channel"]["0"]
        low, high = ((hu[f"percentile_{end}"] - hu["mean"]) / hu["std"] for end in ("00_5", "99_5"))
        return cls(low, high, 1 / hu["std"])


class CutFieldOfView(BasicTransform):
    """Blank the slices beyond a first and a last one, as where a scan ends in the liver.

    What is blanked is 0, as nnU-Net pads images, and background.
    """

    def __init__(self, most: float = 0.6) -> None:
        super().__init__()
        self.most = most  # share of the slices

    def get_parameters(self, **data: Any) -> dict[str, int]:
        slices = data["image"].shape[1]
        cut = int(_uniform(0, self.most) * slices)
        below = int(_uniform(0, 1) * (cut + 1)) if _uniform(0, 1) < 0.5 else cut * int(_uniform(0, 2))
        return {"first": below, "last": slices - (cut - below)}

    def _apply_to_image(self, image: Tensor, first: int, last: int) -> Tensor:
        image[:, :first], image[:, last:] = 0, 0
        return image

    def _apply_to_segmentation(self, segmentation: Tensor, first: int, last: int) -> Tensor:
        segmentation[:, :first], segmentation[:, last:] = 0, 0
        return segmentation


class ThickSlices(ImageOnlyTransform):
    """Average two or three neighboring slices each."""

    def get_parameters(self, **data: Any) -> dict[str, int]:
        return {"thickness": 2 + int(_uniform(0, 2)), "start": int(_uniform(0, 3))}

    def _apply_to_image(self, image: Tensor, thickness: int, start: int) -> Tensor:
        for first in range(start, image.shape[1], thickness):
            image[:, first : first + thickness] = image[:, first : first + thickness].mean(1, keepdim=True)
        return image


class Contrast(ImageOnlyTransform):
    """Other contrast of what lies within the window: scaled around 100 HU and shifted, as phases and kV differ."""

    def __init__(self, window: Window, *, shift_hu: float = 35, factor: tuple[float, float] = (0.7, 1.4)) -> None:
        super().__init__()
        self.window, self.shift_hu, self.factor = window, shift_hu, factor

    def get_parameters(self, **data: Any) -> dict[str, float]:
        shift = _uniform(-self.shift_hu, self.shift_hu) * self.window.per_hu
        return {"shift": shift, "factor": _uniform(*self.factor)}

    def _apply_to_image(self, image: Tensor, shift: float, factor: float) -> Tensor:
        low, high = self.window.low, self.window.high
        center = low + 0.7 * (high - low)
        inside = (image > low) & (image < high)
        changed = ((image - center) * factor + center + shift).clamp(low, high)
        return torch.where(inside, changed, image)


class ScannerNoise(ImageOnlyTransform):
    """Noise of a strength and a grain of its own in each patch; it does not leave the window."""

    def __init__(self, window: Window, *, most_hu: float = 35) -> None:
        super().__init__()
        self.window, self.most_hu = window, most_hu

    def get_parameters(self, **data: Any) -> dict[str, Any]:
        return {"sigma": _uniform(0, self.most_hu) * self.window.per_hu, "smooth": _uniform(0, 1) < 0.5}

    def _apply_to_image(self, image: Tensor, sigma: float, smooth: bool) -> Tensor:
        noise = torch.randn_like(image)
        if smooth:
            pool = torch.nn.functional.avg_pool3d if image.ndim == 4 else torch.nn.functional.avg_pool2d
            noise = pool(noise, 3, stride=1, padding=1)
            noise /= noise.std()
        noisy = (image + sigma * noise).clamp(self.window.low, self.window.high)
        return torch.where(image > self.window.low, noisy, image)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(1).item()


def with_ct_variation(transforms: BasicTransform, window: Window) -> BasicTransform:
    """nnU-Net's ``transforms``, after the first of which (the spatial one) the field of view and the CT vary."""
    spatial, *others = transforms.transforms
    ours = (
        (ThickSlices(), 0.2),
        (Contrast(window), 0.4),
        (ScannerNoise(window), 0.3),
        (CutFieldOfView(), 0.3),
    )
    return ComposeTransforms([spatial, *(RandomTransform(transform, p) for transform, p in ours), *others])


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
