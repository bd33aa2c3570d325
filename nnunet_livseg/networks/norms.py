"""The normalization in the modules of a network."""

from collections.abc import Callable
from functools import partial

from torch import nn

from nnunet_livseg.networks.unet import Geometry

NORMS = ("plans", "batch")


def norms(g: Geometry, norm: str) -> tuple[Callable[[int], nn.Module], Callable[[int], nn.Module]]:
    """Functions that make normalizations: for maps, and for globally pooled maps.

    Over one position instance normalization is undefined, so outside batch normalization pooled maps are normalized
    over their channels.
    """
    if norm == "batch":
        batch = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[g.dim]
        return batch, batch
    if g.norm_op is None:
        return lambda channels: nn.Identity(), lambda channels: nn.Identity()
    return partial(g.norm_op, **(g.norm_op_kwargs or {})), partial(nn.GroupNorm, 1)
