"""M_conf: how sure a segmentation is of each position, from its logits.

Zhang et al., Spatial Aggregation and Uncertain Region Inpainting, MICCAI 2021, section 2.2, Eq. (3):
``M = 1 - exp(1 - S_max / S_min)``. A softmax has ``S_max / S_min = exp(d)`` with ``d`` the difference of the two
logits, so ``M = -expm1(-expm1(d))``, without the quotient, whose gradient is NaN from ``d`` of about 50 on. ``d`` ends
at 10, where M has long been 1 in float32; beyond about 90 the gradient would be 0 times infinity.
Readings (docs/papers/sam_urim.md): more than two classes compare the best two (authors' code; the smallest of many
scores is always near 0, so everything would be certain); region heads are sure where their least sure region is.
"""

# Shape letters:  B batch, K classes or regions, *S spatial sizes

import torch
from torch import Tensor

from nnunet_livseg.blocks.precision import widened

MOST = 10.0  # of the difference of logits


def confidence(difference: Tensor) -> Tensor:
    """M in [0, 1] for differences ``d >= 0`` of logits, Eq. (3); float32."""
    return -torch.expm1(-torch.expm1(widened(difference).clamp(max=MOST)))


def class_confidence(logits: Tensor) -> Tensor:
    """M ``(B, 1, *S)`` in float32 of the softmax of ``logits (B, K, *S)``, K at least 2."""
    logits = widened(logits)
    if logits.shape[1] == 2:
        return confidence((logits[:, :1] - logits[:, 1:]).abs())
    best = logits.topk(2, dim=1).values
    return confidence(best[:, :1] - best[:, 1:])


def region_confidence(logits: Tensor) -> Tensor:
    """M ``(B, 1, *S)`` in float32 of the sigmoids of ``logits (B, K, *S)``: that of the least sure region."""
    return confidence(widened(logits).abs().amin(1, keepdim=True))  # M grows with |z|, so its minimum is M of the least
