"""What has to be computed in float32, whatever autocast says."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager:
    """Context without autocast on the device of ``x``; the meta device, where costs are counted, knows none."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def widened(x: Tensor) -> Tensor:
    """``x`` in float32, if it is not at least that already."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
