"""Mean of several predictions' probabilities, as logits.

Yu and Han, MPU-Net, arXiv:2307.05799, section 3.3.4, Eq. (18), with the equal weights of section 3.5.
nnU-Net applies softmax (labels) or sigmoid (regions) to what a network returns. Softmax leaves log-probabilities as
they are, and sigmoid undoes the logit, so the fused probabilities come out unchanged. Both are computed from
log-probabilities in at least float32: no probability is rounded to 0 or 1 on the way.
"""

# Shape letters:  B batch, K classes or regions, *S spatial sizes

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_livseg.blocks.precision import widened

# Below e^-100 float32 has no probability to give back; nnU-Net's sliding window keeps logits in half precision and
# weights them by up to 10, so without a floor they could become infinite there.
FLOOR = -100.0


def fuse_softmax(maps: Sequence[Tensor]) -> Tensor:
    """Logits whose softmax over K is the mean of the softmaxes of ``maps (B, K, *S)``; float32 or more."""
    return _log_mean(lambda x: F.log_softmax(x, 1), maps).clamp(min=FLOOR)


def fuse_sigmoid(maps: Sequence[Tensor]) -> Tensor:
    """Logits whose sigmoid is the mean of the sigmoids of ``maps (B, K, *S)``; float32 or more."""
    log_p, log_rest = _log_mean(F.logsigmoid, maps), _log_mean(lambda x: F.logsigmoid(-x), maps)
    return (log_p - log_rest).clamp(min=FLOOR, max=-FLOOR)


def _log_mean(log_probability: Callable[[Tensor], Tensor], maps: Sequence[Tensor]) -> Tensor:
    """Logarithm of the mean probability."""
    logs = torch.stack([log_probability(widened(x)) for x in maps])
    return logs.logsumexp(0) - math.log(len(maps))


FUSIONS = {"softmax": fuse_softmax, "sigmoid": fuse_sigmoid}
