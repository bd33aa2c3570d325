"""Poolings that squeeze a map: the names of those that the papers compare, and mean and maximum together."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

POOLINGS = {"avg": ("avg",), "max": ("max",), "both": ("avg", "max")}


def mean_and_max(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and maximum of ``x`` over ``axes``, which stay with size 1."""
    return _MeanAndMax.apply(x, tuple(axes))


class _MeanAndMax(torch.autograd.Function):
    """``x.mean`` and ``x.amax``, whose gradients are made in one map of the size of ``x``.

    torch makes six for the same numbers, one of them of 64-bit integers, to count equal maxima.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        largest = x.amax(axes, keepdim=True)
        ctx.save_for_backward(x, largest)
        ctx.axes = axes
        return x.mean(axes, keepdim=True), largest

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor | None, of_max: Tensor | None) -> tuple[Tensor, None]:
        x, largest = ctx.saved_tensors
        hits = (x == largest).to(x.dtype)
        # of an output that was not used, a fake tensor's gradient is None; otherwise it is zero
        share = 0 if of_max is None else of_max / hits.sum(ctx.axes, keepdim=True)  # equal maxima share their gradient
        gradient = hits.mul_(share)
        return gradient if of_mean is None else gradient.add_(of_mean, alpha=largest.numel() / x.numel()), None
