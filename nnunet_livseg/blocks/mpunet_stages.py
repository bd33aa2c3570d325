"""The convolutions of MPU-Net: stages of encoder and decoder, downsampling and upsampling, the multi-scale block.

Yu and Han, MPU-Net, arXiv:2307.05799, sections 3.2 and 3.3, at the order and widths of the authors' network, which has
the printed parameter count. Kernels and strides are the plans': an axis with kernel or stride 1 is left alone.
"""

# Shape letters:  B batch, I input channels, O output channels, *S spatial sizes, *s sizes after downsampling

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Callable[[int], nn.Module]
_TRANSPOSED = {nn.Conv2d: nn.ConvTranspose2d, nn.Conv3d: nn.ConvTranspose3d}


def convolutions(
    conv_op: type[nn.Module], inputs: int, outputs: int, kernel: Sequence[int], *, count: int, dilation: int = 1
) -> nn.Sequential:
    """``count`` convolutions, each followed by a PReLU with a slope per channel; ``(B, I, *S)`` to ``(B, O, *S)``."""
    padding, spread = [dilation * (k // 2) for k in kernel], [dilation if k > 1 else 1 for k in kernel]
    layers = []
    for i in range(count):
        width = inputs if i == 0 else outputs
        layers += [conv_op(width, outputs, tuple(kernel), padding=padding, dilation=spread), nn.PReLU(outputs)]
    return nn.Sequential(*layers)


class ResidualStage(nn.Module):
    """Two convolutions, added to their input.

    One input channel is added to every output channel, as in the authors' network; other numbers pass a 1x1
    convolution, which the paper, with one channel, does not have.
    """

    def __init__(self, conv_op: type[nn.Module], inputs: int, outputs: int, kernel: Sequence[int]) -> None:
        super().__init__()
        self.body = convolutions(conv_op, inputs, outputs, kernel, count=2)
        self.shortcut = nn.Identity() if inputs in (1, outputs) else conv_op(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, I, *S)`` to ``(B, O, *S)``."""
        return self.body(x) + self.shortcut(x)


def down(
    conv_op: type[nn.Module],
    inputs: int,
    outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    *,
    norm: Norm,
    elu_alpha: float | str,
) -> nn.Sequential:
    """Eq. (5) in the code's order: max pooling without stride, convolution, normalization, ELU.

    With a stride the convolution's kernel is the stride; without one it is ``kernel``.
    ``elu_alpha="channels"`` is the authors' code, which passes the channels as ELU's alpha.
    """
    strided = any(s > 1 for s in stride)
    pool = [3 if n > 1 else 1 for n in (stride if strided else kernel)]
    size = tuple(stride) if strided else tuple(kernel)
    padding = 0 if strided else [k // 2 for k in kernel]
    return nn.Sequential(
        SlidingMaximum(pool),
        conv_op(inputs, outputs, size, stride=tuple(stride), padding=padding),
        norm(outputs),
        nn.ELU(float(outputs) if elu_alpha == "channels" else elu_alpha),
    )


class SlidingMaximum(nn.Module):
    """Max pooling without stride.

    Args:
        window: Its size per axis, 3 or 1.
    """

    def __init__(self, window: Sequence[int]) -> None:
        super().__init__()
        self.window = tuple(window)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)`` to ``(B, C, *S)``.

        Without gradients the maximum is taken along one axis after the other, ten times as fast on a CPU; with them,
        each axis would have to keep a map of its own.
        """
        if torch.is_grad_enabled():
            pool = F.max_pool3d if x.ndim == 5 else F.max_pool2d
            return pool(x, self.window, stride=1, padding=tuple(size // 2 for size in self.window))
        for axis, size in enumerate(self.window, start=2):
            if size > 1:
                x = _neighbors_maximum(x, axis)
        return x


def _neighbors_maximum(x: Tensor, axis: int) -> Tensor:
    """Maximum of every value and of those before and after it along ``axis``."""
    found, count = x.clone(), x.shape[axis] - 1
    for here, there in ((0, 1), (1, 0)):
        part = found.narrow(axis, here, count)
        part.copy_(torch.maximum(part, x.narrow(axis, there, count)))
    return found


def up(conv_op: type[nn.Module], inputs: int, outputs: int, stride: Sequence[int]) -> nn.Sequential:
    """Transposed convolution with kernel = stride, then PReLU; ``(B, I, *s)`` to ``(B, O, *S)``."""
    return nn.Sequential(_TRANSPOSED[conv_op](inputs, outputs, tuple(stride), stride=tuple(stride)), nn.PReLU(outputs))


class MultiScaleBlock(nn.Module):
    """Two pairs of convolutions with a small and a large field, joined by a linear map, Eqs. (14)-(17).

    Reading: the second pair is dilated by 2, and the pairs have PReLUs, without which each would be one convolution.
    """

    def __init__(self, conv_op: type[nn.Module], inputs: int, outputs: int, kernel: Sequence[int]) -> None:
        super().__init__()
        self.small = convolutions(conv_op, inputs, outputs, kernel, count=2)
        self.large = convolutions(conv_op, inputs, outputs, kernel, count=2, dilation=2)
        self.join = conv_op(2 * outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, I, *S)`` to ``(B, O, *S)``."""
        return self.join(torch.cat([self.small(x), self.large(x)], 1))
