"""A convolution with one channel on either side as a matrix product of neighborhoods.

torch's convolutions are slow where one side has a single channel: most of a processor's vector registers stay empty.
"""

# Shape letters:  B batch, C channels, N = C times the kernel's size, *S sizes, *P = *S + kernel - 1

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def neighborhoods(x: Tensor, kernel: Sequence[int]) -> Tensor:
    """``x (B, C, *P)`` with what a ``kernel`` sees at a position as channels; ``(B, N, *S)``.

    ``weight.flatten(1) @ neighborhoods(x, kernel)`` is a convolution of ``x``.
    """
    return _Neighborhoods.apply(x, tuple(kernel))


def overlaid(x: Tensor, kernel: Sequence[int]) -> Tensor:
    """Sum of neighborhoods ``x (B, N, *S)`` where they lie, ``(B, C, *P)``; the transpose of ``neighborhoods``."""
    return _Overlaid.apply(x, tuple(kernel))


class _Neighborhoods(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: tuple[int, ...]) -> Tensor:
        ctx.kernel = kernel
        for axis, k in enumerate(kernel):
            where = x.ndim - len(kernel) + axis
            size = x.shape[where] - k + 1
            x = torch.stack([x.narrow(where, i, size) for i in range(k)], 2 + axis)
        return x.flatten(1, 1 + len(kernel))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return overlaid(gradient, ctx.kernel), None


class _Overlaid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: tuple[int, ...]) -> Tensor:
        ctx.kernel = kernel
        x = x.unflatten(1, (-1, *kernel))
        for axis, k in reversed(list(enumerate(kernel))):
            where = x.ndim - len(kernel) + axis
            size = x.shape[where] + k - 1
            x = F.pad(x, [0, 0] * (len(kernel) - 1 - axis) + [k - 1, k - 1])
            shifted = [x.select(2 + axis, i).narrow(where - 1, k - 1 - i, size) for i in range(k)]
            x = sum(shifted[1:], shifted[0])
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return neighborhoods(gradient, ctx.kernel), None
