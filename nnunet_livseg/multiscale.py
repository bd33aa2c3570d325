"""Multi-scale inference: predict an image at several sizes in plane and average the probabilities.

Zhang et al., SFAN, arXiv:1911.00282, section 3: scales 0.5, 1.0 and 1.5, bilinear, averaged. Readings
(docs/papers/sfan.md): the preprocessed image is resized, with nnU-Net's sliding window at every size; the average goes
on as logits, so that nnU-Net's later steps (folds, resampling, softmax or sigmoid, export) stay as they are.
"""

# Shape letters:  C channels, K classes or regions, Z Y X voxels of the preprocessed image, (y, x) in plane

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor
from torch.nn import functional as F

from nnunet_livseg.core.dataset_json import channel_names
from nnunet_livseg.core.errors import UserError

SFAN_SCALES = (0.5, 1.0, 1.5)
_LEAST_PROBABILITY = 1e-7  # its logarithm is far from the largest float16


class MultiScalePredictor(nnUNetPredictor):
    """nnU-Net's predictor, which averages over the sizes in ``scales``; everything else is nnU-Net's.

    Set ``scales`` on the object, or make a class with them by ``multiscale_predictor``.
    """

    scales: tuple[float, ...] = SFAN_SCALES

    @torch.inference_mode()
    def predict_sliding_window_return_logits(self, input_image: Tensor) -> Tensor:
        """Logits ``(K, Z, Y, X)`` of a preprocessed image ``(C, Z, Y, X)``; with the scale 1 alone, nnU-Net's own."""
        if tuple(self.scales) == (1.0,):
            return super().predict_sliding_window_return_logits(input_image)
        size = tuple(input_image.shape[2:])
        mean = 0
        for scale in self.scales:
            logits = super().predict_sliding_window_return_logits(self._resized(input_image, scale)).cpu()
            probabilities = self.label_manager.apply_inference_nonlin(logits)
            mean = mean + resized_in_plane(probabilities, size) / len(self.scales)
        return as_logits(mean, exclusive=not self.label_manager.has_regions).to(logits.dtype)

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
        found = f"{wrong[0]:g} is not" if wrong else "there is none"
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
    """Inside, ``module`` of nnU-Net makes its predictors with these scales: its own commands, all arguments theirs."""
    with replaced(module, "nnUNetPredictor", multiscale_predictor(scales)):
        yield


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Inside, ``owner.name`` is ``value``: for what nnU-Net's own functions take no argument for."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
