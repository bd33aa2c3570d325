"""Augmentation that recipes add to nnU-Net's.

``augmentation`` ``"ct"`` adds steps for models that must take CTs of other scanners, protocols and fields of view, also
with oral contrast or with masses of other organs. They work on intensities that were clipped to a window and then
scaled, as nnU-Net's CTNormalization does, so no value leaves the window: air stays black.

``elastic`` switches on nnU-Net's elastic deformation: how often (``probability``), how smooth (``scale``: the sigma of
the Gaussian that smooths the random displacements, as a share of the patch's edge) and how far (``magnitude``: the
largest displacement, as a share of that sigma, so that smoother deformations may reach further; up to about 1 the image
does not fold).

``synthetic_tumors`` is the share of training patches in which tumors are drawn into the healthy liver, because few
patients show few places, sizes and shapes of tumors. The idea is that of Hu et al., "Label-Free Liver Tumor
Segmentation", CVPR 2023; shapes and textures here are simpler.
"""

# Shape letters:  C channels, *S spatial sizes, the first of which is the slice axis

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor
from torch.nn import functional

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import TUMOR, Structures, structures_from_labels
from nnunet_livseg.recipes import Recipe

DIAMETER_MM = (6.0, 60.0)  # drawn evenly on a logarithmic scale: small tumors are the common ones
MOST = 4  # tumors in one patch
LEAST_LIVER = 200  # voxels of healthy liver in a patch, below which nothing is drawn
LEAST_TUMOR = 8  # voxels
DARKEST_HU, BRIGHT_HU, BRIGHT_SHARE = 80, (15, 50), 0.08


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


class FillBackground(BasicTransform):
    """Fill a part of the background with something else; the labels stay, and the filling ends where the liver begins.

    Its center is not air. A subclass says what fills it.

    Args:
        window: Of channel 0; the values of all channels become the filling's.
        spacing_mm: Size of a voxel.
    """

    diameters_mm: tuple[float, float]

    def __init__(self, window: Window, spacing_mm: Sequence[float]) -> None:
        super().__init__()
        self.window, self.spacing_mm = window, tuple(spacing_mm)

    def apply(self, data_dict: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Fill a part of ``image`` (C, *S) where the first channel of ``segmentation`` (., *S) is background."""
        image, labels = data_dict["image"], data_dict["segmentation"][0]
        background = labels == 0
        places = (background & (image[0] > self.window.low)).nonzero()
        if not len(places):
            return data_dict
        center = places[int(_uniform(0, len(places)))]
        diameter_mm = _uniform(*self.diameters_mm)
        box, radius = _rough_ellipsoid(center, diameter_mm, self.spacing_mm, labels.shape)
        share = ((1 - radius) / 0.1 + 0.5).clamp(0, 1) * background[box]
        filling = self.filling(radius)
        for channel in image:
            channel[box] += share * (filling - channel[box])
        return data_dict

    @abstractmethod
    def filling(self, radius: Tensor) -> Tensor:
        """Values (*S) in the window, for the distance (*S) of voxels from the center, which is 1 at the surface."""


class OralContrast(FillBackground):
    """Contrast that the patient drank, in stomach and bowel: as bright as the window goes, with darker food in it."""

    diameters_mm = (25.0, 110.0)

    def filling(self, radius: Tensor) -> Tensor:
        low, high = self.window.low, self.window.high
        food = _smooth_noise(radius.shape, nodes=int(_uniform(6, 20))) - _uniform(0.5, 2)
        return high - food.clamp(0, 1) * _uniform(0.2, 1) * (high - low)


class ExtrahepaticMass(FillBackground):
    """A mass of another organ, such as the kidney: soft tissue with noise, sometimes with a darker core."""

    diameters_mm = (20.0, 120.0)

    def filling(self, radius: Tensor) -> Tensor:
        low, high, per_hu = self.window.low, self.window.high, self.window.per_hu
        level = low + _uniform(0.25, 0.8) * (high - low)
        texture = _uniform(0, 12) * _smooth_noise(radius.shape, nodes=int(_uniform(4, 10)))
        noise = _uniform(3, 20) * torch.randn_like(radius)
        core = _uniform(10, 50) * ((_uniform(0.4, 0.9) - radius) / 0.2).clamp(0, 1) if _uniform(0, 1) < 0.4 else 0
        return (level + (texture + noise - core) * per_hu).clamp(low, high)


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


def ct_variation(window: Window, spacing_mm: Sequence[float]) -> list[BasicTransform]:
    """The steps of ``augmentation`` ``"ct"``: bowel, masses of other organs, field of view and the CT itself vary."""
    ours = (
        (OralContrast(window, spacing_mm), 0.25),
        (ExtrahepaticMass(window, spacing_mm), 0.4),
        (ThickSlices(), 0.2),
        (Contrast(window), 0.4),
        (ScannerNoise(window), 0.3),
        (CutFieldOfView(), 0.3),
    )
    return [RandomTransform(transform, p) for transform, p in ours]


def after_the_spatial(transforms: BasicTransform, ours: Sequence[BasicTransform]) -> BasicTransform:
    """nnU-Net's ``transforms`` with ``ours`` after the spatial one, which takes thick slices one by one."""
    theirs = transforms.transforms
    spatial = (SpatialTransform, Convert2DTo3DTransform)
    at = max((number for number, step in enumerate(theirs, start=1) if isinstance(step, spatial)), default=0)
    return ComposeTransforms([*theirs[:at], *ours, *theirs[at:]])


class SyntheticTumors(BasicTransform):
    """One to ``MOST`` tumors in the healthy liver of a patch, in its image and in its labels.

    Args:
        window: Of channel 0; the values of all channels change alike and stay in it.
        spacing_mm: Size of a voxel.
        structures: What the labels mean.

    Raises:
        UserError: The labels do not have a liver and exactly one kind of tumor.
    """

    def __init__(self, window: Window, spacing_mm: Sequence[float], structures: Structures) -> None:
        super().__init__()
        tumor = structures.values.get(TUMOR, ())
        if len(tumor) != 1 or not structures.healthy:
            raise UserError(
                f"the recipe asks for synthetic tumors, but {structures.source} does not have a liver and exactly one"
                " kind of tumor.\n  Plan without --synthetic-tumors."
            )
        self.window, self.spacing_mm = window, tuple(spacing_mm)
        self.healthy, self.tumor = structures.healthy, tumor[0]

    def apply(self, data_dict: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Draw into ``image`` (C, *S) and the first channel of ``segmentation`` (., *S), in place."""
        image, labels = data_dict["image"], data_dict["segmentation"][0]
        healthy = torch.isin(labels, torch.tensor(self.healthy))
        for _tumor in range(1 + int(_uniform(0, MOST))):
            self._draw(image, labels, healthy)
        return data_dict

    def _draw(self, image: Tensor, labels: Tensor, healthy: Tensor) -> None:
        """One tumor around a voxel of healthy liver; it ends where that ends, and is not healthy afterwards."""
        places = healthy.nonzero()
        if len(places) < LEAST_LIVER:
            return
        center = places[int(_uniform(0, len(places)))]
        diameter_mm = math.exp(_uniform(*(math.log(d) for d in DIAMETER_MM)))
        box, radius = _rough_ellipsoid(center, diameter_mm, self.spacing_mm, labels.shape)
        edge = max(_uniform(1, 4) / (diameter_mm / 2), 0.05)  # 1 to 4 mm wide
        share = ((1 - radius) / edge + 0.5).clamp(0, 1) * healthy[box]
        inside = share > 0.5
        if inside.sum() < LEAST_TUMOR:
            return
        change = self._contrast(diameter_mm) * self._pattern(radius, diameter_mm)
        for channel in image:
            part = channel[box]
            vessels = _local_mean(part) - part[healthy[box]].mean()
            drawn = (part + share * (change - _uniform(0.5, 1) * vessels)).clamp(self.window.low, self.window.high)
            channel[box] = torch.where(share > 0, drawn, part)
        labels[box][inside], healthy[box][inside] = self.tumor, False

    def _contrast(self, diameter_mm: float) -> float:
        """Difference to the liver; small tumors of little contrast would be lost in noise."""
        if _uniform(0, 1) < BRIGHT_SHARE:
            return _uniform(*BRIGHT_HU) * self.window.per_hu
        return -_uniform(12 + 100 / diameter_mm, DARKEST_HU) * self.window.per_hu

    def _pattern(self, radius: Tensor, diameter_mm: float) -> Tensor:
        """Share of the contrast in each voxel: texture, and in larger tumors sometimes a rim or a core."""
        pattern = 1 + _uniform(0, 0.25) * _smooth_noise(radius.shape, nodes=int(_uniform(4, 10)))
        kind = _uniform(0, 1) if diameter_mm > 14 else 1
        if kind < 0.25:
            pattern *= 1 - _uniform(0.3, 1.3) * ((radius - 0.7) / 0.15).clamp(0, 1)
        elif kind < 0.45:
            pattern *= 1 + _uniform(0.2, 0.8) * ((0.6 - radius) / 0.2).clamp(0, 1)
        return pattern


def ct_steps(
    recipe: Recipe, plans: Mapping[str, Any], configuration: Mapping[str, Any], labels: Mapping[str, Any]
) -> list[BasicTransform]:
    """What the recipe adds for CTs, for a resolved configuration of nnU-Net's plans and ``labels`` of ``dataset.json``.

    Raises:
        UserError: Channel 0 is not a CT, or the recipe's tumors do not fit the labels.
    """
    steps: list[BasicTransform] = []
    if recipe.synthetic_tumors:
        window = _window(plans, configuration, "synthetic tumors, which are drawn in HU", "--synthetic-tumors")
        tumors = SyntheticTumors(window, configuration["spacing"], structures_from_labels(labels))
        steps.append(RandomTransform(tumors, recipe.synthetic_tumors))
    if recipe.augmentation == "ct":
        window = _window(plans, configuration, "augmentation for other CTs", "--augmentation ct")
        steps += ct_variation(window, configuration["spacing"])
    return steps


def _window(plans: Mapping[str, Any], configuration: Mapping[str, Any], what: str, option: str) -> Window:
    scheme = configuration["normalization_schemes"][0]
    if scheme != "CTNormalization":
        raise UserError(
            f"the recipe asks for {what}, but the plans do not treat channel 0 as a CT ({scheme})."
            f'\n  Name it "CT" in dataset.json, or plan without {option}.'
        )
    return Window.of_plans(plans)


def _rough_ellipsoid(
    center: Tensor, diameter_mm: float, spacing_mm: Sequence[float], shape: Sequence[int]
) -> tuple[tuple[slice, ...], Tensor]:
    """The box that a turned, rough ellipsoid may fill in an array of this shape, and its voxels' distance from the
    center, which is 1 at the surface.
    """
    reach = [math.ceil(0.85 * diameter_mm / spacing) + 3 for spacing in spacing_mm]
    ends = zip(center.tolist(), reach, shape, strict=True)
    box = tuple(slice(max(0, middle - r), min(size, middle + r + 1)) for middle, r, size in ends)
    dims = len(box)
    axes = torch.meshgrid(*(torch.arange(part.start, part.stop) for part in box), indexing="ij")
    offsets_mm = (torch.stack(axes, dim=-1) - center) * torch.tensor(spacing_mm, dtype=torch.float)
    turned, _ = torch.linalg.qr(torch.randn(dims, dims))
    radii_mm = diameter_mm / 2 * (0.75 + 0.55 * torch.rand(dims))
    distance = ((offsets_mm @ turned) / radii_mm).square().sum(-1).sqrt()
    return box, distance + _uniform(0.05, 0.25) * _smooth_noise(distance.shape, nodes=int(_uniform(3, 6)))


def _smooth_noise(shape: Sequence[int], *, nodes: int) -> Tensor:
    """Noise (*S) of mean 0 and standard deviation 1, interpolated between ``nodes`` along every axis."""
    coarse = torch.randn(1, 1, *(max(2, min(nodes, size)) for size in shape))
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    fine = functional.interpolate(coarse, size=tuple(shape), mode=mode, align_corners=True)[0, 0]
    return (fine - fine.mean()) / (fine.std() + 1e-6)


def _local_mean(image: Tensor) -> Tensor:
    """Means (*S) over 5 voxels along every axis."""
    pool = functional.avg_pool3d if image.ndim == 3 else functional.avg_pool2d
    return pool(image[None, None], 5, stride=1, padding=2, count_include_pad=False)[0, 0]


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
