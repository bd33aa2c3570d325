"""DAC: see a map at four dilations, with few convolutions that the branches share.

Gu et al., CE-Net: Context Encoder Network for 2D Medical Image Segmentation, IEEE TMI 2019.
Part (b) of Fig. 2 in Pang et al., Correlation Matters, PAKDD 2020.
As in CE-Net's code, the 3x3 convolutions of dilation 1, 3 and 5 and the 1x1 convolution are one each for all branches.
Our extension: three dimensions, and no dilation along axes where the plans have kernel 1.
"""

# Shape letters:  B batch, C channels, *S spatial sizes

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DenseAtrousConvolution(nn.Module):
    """``x + relu(d1 x) + relu(c d3 x) + relu(c d3 d1 x) + relu(c d5 d3 d1 x)`` with dilations 1, 3 and 5.

    Dilations that reach beyond a small map read padding there.

    Args:
        channels: Channels C.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        kernel_size: Kernel of the dilated convolutions, one entry per axis (3, or 1 on thin axes).
    """

    def __init__(self, channels: int, *, conv_op: type[nn.Module], kernel_size: Sequence[int]) -> None:
        super().__init__()
        self.d1, self.d3, self.d5 = (self._dilated(channels, conv_op, tuple(kernel_size), d) for d in (1, 3, 5))
        self.c = conv_op(channels, channels, 1)

    @staticmethod
    def _dilated(channels: int, conv_op: type[nn.Module], kernel: tuple[int, ...], dilation: int) -> nn.Module:
        padding = tuple(dilation * (k // 2) for k in kernel)
        return conv_op(channels, channels, kernel, padding=padding, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Context of ``x (B, C, *S)``; returns ``(B, C, *S)``."""
        near = self.d1(x)
        far = self.d3(near)
        return (
            x
            + torch.relu(near)
            + torch.relu(self.c(self.d3(x)))
            + torch.relu(self.c(far))
            + torch.relu(self.c(self.d5(far)))
        )
