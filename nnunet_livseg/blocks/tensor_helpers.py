"""Kernels of the papers' modules on plans whose slices are thick."""

from collections.abc import Sequence


def kernel_like(size: int, plans_kernel: Sequence[int]) -> tuple[int, ...]:
    """Kernel with ``size`` along every axis, but 1 along the axes where the plans' own kernel is 1."""
    return tuple(size if n > 1 else 1 for n in plans_kernel)


def same_padding(kernel: Sequence[int], dilation: Sequence[int] | None = None) -> tuple[int, ...]:
    """Padding with which a convolution of this odd ``kernel`` keeps its input's size."""
    dilation = dilation or [1] * len(kernel)
    return tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True))
