"""Multi-scale inference: predict an image at several sizes in plane and average the probabilities.

Zhang et al., SFAN, arXiv:1911.00282, section 3: scales 0.5, 1.0 and 1.5, bilinear, averaged. Readings
(docs/papers/sfan.md): the preprocessed image is resized, with nnU-Net's sliding window at every size; the average goes
on as logits, so that nnU-Net's later steps (folds, resampling, softmax or sigmoid, export) stay as they are.

The same predictor can hand several patches at a time to the network. On a CPU, torch computes many small convolutions
of a single case by a slow path: narrow networks took 0.7 to 0.85 of the time in pairs. And it can enlarge the patch to
fit the image, so that fewer voxels are computed twice.
"""

# Shape letters:  B patches, C channels, K classes or regions, Z Y X voxels of the preprocessed image, (y, x) in plane

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from types import ModuleType

import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from nnunet_livseg.core.dataset_json import channel_names
from nnunet_livseg.core.errors import UserError

SFAN_SCALES = (0.5, 1.0, 1.5)
VOXELS_AT_A_TIME = 2**20  # half of a patch of 128^3: pairs of the starter model's patches
MOST_PATCHES = 8
_LARGER = 2  # times the plans' patch at most: its voxels, which are memory, and each of its edges
_LEAST_PROBABILITY = 1e-7  # its logarithm is far from the largest float16


class MultiScalePredictor(nnUNetPredictor):
    """nnU-Net's predictor, which averages over the sizes in ``scales``; everything else is nnU-Net's.

    Set ``scales`` on the object, or make a class with them by ``multiscale_predictor``. With ``in_batches``, the
    network gets as many patches at a time as hold 2^20 voxels, at most eight: by the patch alone, so that a result
    does not depend on the machine. Their logits differ from nnU-Net's by rounding. With ``fits_patch``, every image
    gets the patch of ``fitted_patch``; ``patch`` is the one of the last image.
    """

    scales: tuple[float, ...] = SFAN_SCALES
    in_batches: bool = False
    fits_patch: bool = False
    patch: tuple[int, ...] = ()

    @property
    def patches_at_a_time(self) -> int:
        """How many patches the network gets; 1 as in nnU-Net."""
        if not self.in_batches:
            return 1
        patch = self.patch or self.configuration_manager.patch_size
        return min(max(VOXELS_AT_A_TIME // math.prod(patch), 1), MOST_PATCHES)

    @torch.inference_mode()
    def predict_sliding_window_return_logits(self, input_image: Tensor) -> Tensor:
        """Logits ``(K, Z, Y, X)`` of a preprocessed image ``(C, Z, Y, X)``; with the scale 1 alone, nnU-Net's own."""
        if tuple(self.scales) == (1.0,):
            return self._window(input_image)
        size = tuple(input_image.shape[2:])
        mean = 0
        for scale in self.scales:
            logits = self._window(self._resized(input_image, scale)).cpu()
            probabilities = self.label_manager.apply_inference_nonlin(logits)
            mean = mean + resized_in_plane(probabilities, size) / len(self.scales)
        return as_logits(mean, exclusive=not self.label_manager.has_regions).to(logits.dtype)

    def _window(self, image: Tensor) -> Tensor:
        """Logits of nnU-Net's sliding window, with the plans' patch or a fitted one."""
        planned = self.configuration_manager
        self.patch = tuple(planned.patch_size)
        if not self.fits_patch:
            return super().predict_sliding_window_return_logits(image)
        strides = planned.network_arch_init_kwargs.get("strides", ())
        self.patch = fitted_patch(image.shape[1:], self.patch, strides=strides, step=self.tile_step_size)
        self.configuration_manager = ConfigurationManager(planned.configuration | {"patch_size": list(self.patch)})
        try:
            return super().predict_sliding_window_return_logits(image)
        finally:
            self.configuration_manager = planned

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(
        self, data: Tensor, slicers: Sequence[tuple], do_on_device: bool = True
    ) -> Tensor:
        """Logits ``(K, Z, Y, X)`` of the padded image ``data (C, Z, Y, X)``, as nnU-Net sums them up."""
        count = self.patches_at_a_time
        if count == 1:
            return super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)
        place = self.device if do_on_device else torch.device("cpu")
        data, half = data.to(place), {"dtype": torch.half, "device": place}
        logits = torch.zeros((self.label_manager.num_segmentation_heads, *data.shape[1:]), **half)
        weights = torch.zeros(data.shape[1:], **half)
        gaussian = compute_gaussian(self.patch, sigma_scale=1 / 8, value_scaling_factor=10, device=place)
        with tqdm(total=len(slicers), desc="network", unit="patch", disable=not self.allow_tqdm) as bar:
            for first in range(0, len(slicers), count):
                group = slicers[first : first + count]
                patches = torch.stack([data[slicer] for slicer in group]).to(self.device)
                outputs = self._internal_maybe_mirror_and_predict(patches).to(place)
                for slicer, output in zip(group, outputs, strict=True):
                    logits[slicer] += output * gaussian
                    weights[slicer[1:]] += gaussian
                bar.update(len(group))
        logits /= weights
        if torch.isinf(logits).any():
            raise RuntimeError("Encountered inf in predicted array")  # nnU-Net's words
        return logits

    def _resized(self, image: Tensor, scale: float) -> Tensor:
        """The image at ``scale``; a previous stage's one-hot labels, which come after the channels, stay one-hot."""
        size = tuple(max(1, round(n * scale)) for n in image.shape[2:])
        if size == tuple(image.shape[2:]):
            return image
        channels = len(channel_names(self.dataset_json))
        parts = [resized_in_plane(image[:channels], size)]
        if image.shape[0] > channels:
            parts.append(F.interpolate(image[channels:], size=size, mode="nearest-exact"))
        return torch.cat(parts)


def fitted_patch(
    size: Sequence[int], patch: Sequence[int], *, strides: Sequence[int | Sequence[int]], step: float
) -> tuple[int, ...]:
    """The patch with which a sliding window computes fewest voxels: the plans' own or a larger one.

    A larger one fits the network's strides, and has at most twice the edge along each axis and twice the voxels.

    Args:
        size: Sizes of the preprocessed image (Z, Y, X).
        patch: Sizes of the plans' patch: three axes, or the last two in 2D.
        strides: Strides of the network's stages in the plans. If there are none, the patch stays.
        step: Step of the sliding window, as a share of the patch.
    """
    if not strides:
        return tuple(patch)
    steps_down = [stage if isinstance(stage, Sequence) else [stage] * len(patch) for stage in strides]
    multiples = [math.prod(of_axis) for of_axis in zip(*steps_down, strict=True)]
    edges = [range(p, _LARGER * p + 1, m) for p, m in zip(patch, multiples, strict=True)]
    counts = [{e: _count(n, e, step) for e in of_axis} for n, of_axis in zip(size[-len(patch) :], edges, strict=True)]

    def cost(chosen: tuple[int, ...]) -> tuple[int, int]:
        voxels = math.prod(chosen)
        return voxels * math.prod(count[e] for count, e in zip(counts, chosen, strict=True)), voxels

    affordable = (c for c in product(*edges) if math.prod(c) <= _LARGER * math.prod(patch))
    return min(affordable, key=cost)


def _count(size: int, edge: int, step: float) -> int:
    """How many patches of that edge nnU-Net's sliding window needs along an axis; a smaller image is padded."""
    return len(compute_steps_for_sliding_window((max(size, edge),), (edge,), step)[0])


def resized_in_plane(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``x (C, Z, Y, X)`` with its last two axes resized bilinearly to ``size``."""
    return x if tuple(x.shape[2:]) == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def as_logits(probabilities: Tensor, *, exclusive: bool) -> Tensor:
    """Logits whose softmax (``exclusive``) or sigmoid gives ``probabilities (K, ...)``; 0 and 1 become finite."""
    p = probabilities.clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return p.log() if exclusive else p.logit()


def checked_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """``scales``, if an image can be resized by them.

    Raises:
        UserError: There are none, or one of them is not above 0 and at most 4.
    """
    wrong = [scale for scale in scales if not (math.isfinite(scale) and 0 < scale <= 4)]
    if wrong or not scales:
        found = f"{wrong[0]:g} is not" if wrong else "none was given"
        raise UserError(
            f"a scale resizes the image in plane and must be above 0 and at most 4: {found}."
            "\n  SFAN's are --scales 0.5 1 1.5; --scales 1 is nnU-Net's own prediction."
        )
    return tuple(float(scale) for scale in scales)


def multiscale_predictor(scales: Sequence[float]) -> type[MultiScalePredictor]:
    """The class of predictors with these scales; its constructor is nnU-Net's.

    Raises:
        UserError: See ``checked_scales``.
    """
    return type("MultiScalePredictor", (MultiScalePredictor,), {"scales": checked_scales(scales)})


@contextmanager
def multiscale_prediction(scales: Sequence[float], *, module: ModuleType = predict_from_raw_data) -> Iterator[None]:
    """Let nnU-Net's ``module`` make its predictors with these scales inside the block; commands and arguments stay."""
    with replaced(module, "nnUNetPredictor", multiscale_predictor(scales)):
        yield


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Replace ``owner.name`` by ``value`` inside the block, where nnU-Net's own functions have no argument for it."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
