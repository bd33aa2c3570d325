"""1x1 convolutions as matrix products on the map as it is stored.

For few cases on one CPU thread, torch's own copies the map before the product, and again in the backward pass.
"""

# Shape letters:  B batch, C channels, K channels of the result, *S spatial sizes

import torch
from torch import Tensor, nn


class _MatrixProduct(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """``x (B, C, *S)`` to ``(B, K, *S)``."""
        matrix = self.weight.flatten(1).expand(x.shape[0], -1, -1)
        return torch.baddbmm(self.bias[:, None], matrix, x.flatten(2)).unflatten(2, x.shape[2:])


class PointwiseConv2d(_MatrixProduct, nn.Conv2d):
    """``nn.Conv2d`` with kernel 1 and a bias."""


class PointwiseConv3d(_MatrixProduct, nn.Conv3d):
    """``nn.Conv3d`` with kernel 1 and a bias."""


_POINTWISE = {nn.Conv2d: PointwiseConv2d, nn.Conv3d: PointwiseConv3d}


def pointwise(conv_op: type[nn.Module], channels: int, out_channels: int) -> nn.Module:
    """``conv_op(channels, out_channels, 1)`` as a matrix product."""
    return _POINTWISE[conv_op](channels, out_channels, 1)


def as_pointwise(conv: nn.Module) -> nn.Module:
    """``conv``, a 1x1 convolution with a bias, as a matrix product with the same parameters."""
    with torch.device("meta"):
        own = pointwise(type(conv), conv.in_channels, conv.out_channels)
    own.weight, own.bias = conv.weight, conv.bias
    return own
