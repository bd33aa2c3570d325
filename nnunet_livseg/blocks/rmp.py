"""RMP: add to a map what its neighborhoods of four sizes contain.

Gu et al., CE-Net: Context Encoder Network for 2D Medical Image Segmentation, IEEE TMI 2019.
Part (b) of Fig. 2 in Pang et al., Correlation Matters, PAKDD 2020.
As in CE-Net's code, one 1x1 convolution serves all four poolings, and the map itself comes last.
Our extensions: three dimensions; a window larger than the map is clipped to it, where the code stops with an error.
"""

# Shape letters:  B batch, C channels, *S spatial sizes

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualMultiKernelPooling(nn.Module):
    """Max-pool with windows of 2, 3, 5 and 6 voxels, squeeze each to one channel, upsample, concatenate with the map.

    Args:
        channels: Channels C.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
    """

    WINDOWS = (2, 3, 5, 6)

    def __init__(self, channels: int, *, conv_op: type[nn.Module]) -> None:
        super().__init__()
        self.squeeze = conv_op(channels, 1, 1)
        self._pool = F.max_pool3d if conv_op is nn.Conv3d else F.max_pool2d
        self._mode = "trilinear" if conv_op is nn.Conv3d else "bilinear"

    def forward(self, x: Tensor) -> Tensor:
        """The pooled context of ``x (B, C, *S)`` and ``x``; returns ``(B, 4 + C, *S)``."""
        return torch.cat([*(self.context(x, window) for window in self.WINDOWS), x], 1)

    def context(self, x: Tensor, window: int) -> Tensor:
        """What windows of this size contain, ``(B, 1, *S)``."""
        size = x.shape[2:]
        pooled = self._pool(x, tuple(min(window, n) for n in size))  # stride = window
        return F.interpolate(self.squeeze(pooled), size=size, mode=self._mode, align_corners=False)
