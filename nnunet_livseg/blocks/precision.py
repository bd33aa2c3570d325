"""Where a formula needs float32 although nnU-Net trains under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Context in which operations keep their inputs' precision, on the device of ``x``.

    The meta device, on which networks are sized, has no autocast to switch off.
    """
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def widened(x: Tensor) -> Tensor:
    """``x`` in float32, if it is not at least that already."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
