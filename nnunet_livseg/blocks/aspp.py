"""ASPP: look at a map with several dilations and as a whole at once.

Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, arXiv:1706.05587, section 3.3; part of the
decoder of SAM + URIM in its authors' code (its paper does not mention it).
Different from DeepLab: along axes where the plans' kernel is 1, nothing is dilated.
"""

# Shape letters:  B batch, C input channels, D output channels, *S spatial sizes

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nnunet_livseg.blocks.tensor_helpers import kernel_like, same_padding

RATES = (6, 12, 18)


class AtrousSpatialPyramidPooling(nn.Module):
    """A 1x1 convolution, three dilated ones and global pooling, concatenated and projected.

    Args:
        channels: Channels C of the input.
        out_channels: Channels D of every branch and of the output.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        norm: Makes the normalization of so many channels.
        pooled_norm: The same for the pooled branch, whose maps have one position.
        kernel_size: The plans' kernel of this level; axes with kernel 1 are not mixed.
        dropout: Probability of dropout of the output.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        conv_op: type[nn.Module],
        norm: Callable[[int], nn.Module],
        pooled_norm: Callable[[int], nn.Module],
        kernel_size: Sequence[int],
        dropout: float = 0.5,
    ) -> None:
        super().__init__()

        def dilated(rate: int) -> nn.Sequential:
            kernel = kernel_like(3, kernel_size)
            dilation = tuple(rate if k > 1 else 1 for k in kernel)
            padding = same_padding(kernel, dilation)
            conv = conv_op(channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
            return nn.Sequential(conv, norm(out_channels), nn.ReLU())

        def pointwise(inputs: int, make_norm: Callable[[int], nn.Module]) -> nn.Sequential:
            return nn.Sequential(conv_op(inputs, out_channels, 1, bias=False), make_norm(out_channels), nn.ReLU())

        self.branches = nn.ModuleList([pointwise(channels, norm), *(dilated(rate) for rate in RATES)])
        self.pooled = pointwise(channels, pooled_norm)
        self.project = nn.Sequential(pointwise(out_channels * (len(RATES) + 2), norm), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x (B, C, *S)`` to ``(B, D, *S)``."""
        maps = [branch(x) for branch in self.branches]
        pooled = self.pooled(x.mean(tuple(range(2, x.ndim)), keepdim=True))
        return self.project(torch.cat([*maps, pooled.expand_as(maps[0])], 1))
