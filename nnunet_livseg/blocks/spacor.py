"""SpaCor: refine a pyramid level with the finer level above it, voxel by voxel.

Zhang et al., Decoupled Pyramid Correlation Network, Medical Physics 2022, section II.D, Eqs. (4)-(6).
Readings (docs/papers/dpcnet.md): the attention lives on the finer grid and the result is averaged down to the coarser
one; upsampling is nearest neighbor. Nearest commutes with the channel mean and the channel max, and average pooling
undoes it, so no C-channel map is made on the finer grid except the hidden map of the attention convolutions, which
exists in parts, some rows at a time, and is recomputed in the backward pass.
"""

# Shape letters:  B batch, C channels of this level, *S sizes here, *F sizes of the finer level

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nnunet_livseg.blocks.attention_spec import VOXELS, AttentionSpec, ModuleCall, output_features
from nnunet_livseg.blocks.neighborhoods import neighborhoods, overlaid
from nnunet_livseg.blocks.pointwise import pointwise
from nnunet_livseg.blocks.pooling import POOLINGS, mean_and_max

PARTS = 4  # of the hidden map, of which one exists at a time


class ChannelStatistics(NamedTuple):
    """What SpaCor reads of a level: per-voxel mean and maximum over its channels, each ``(B, 1, *S)``."""

    mean: Tensor
    max: Tensor
    channels: int


def channel_statistics(x: Tensor) -> ChannelStatistics:
    """Statistics of ``x (B, C, *S)``; computed once per level, because two SpaCor modules read each level."""
    return ChannelStatistics(*mean_and_max(x, [1]), x.shape[1])


class SpatialCorrelation(nn.Module):
    """Spatial attention on a level, computed from the level and the next finer one.

    Args:
        channels: Channels C of the level that is refined.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        kernel_size: Kernel of the attention convolutions, one entry per axis (that of the finer level).
        stride: Factor between the finer grid and this one, one entry per axis.
        pooling: ``"avg"``, ``"max"`` or ``"both"``: what squeezes the channels (Table 1).
        descriptor: How ``"both"`` combines: ``"sum"`` (Eq. 5) or ``"concat"`` (matches the counts of Table 4).
    """

    def __init__(
        self,
        channels: int,
        *,
        conv_op: type[nn.Module],
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        pooling: str = "both",
        descriptor: str = "sum",
    ) -> None:
        super().__init__()
        self.poolings = POOLINGS[pooling]
        self.descriptor = descriptor
        self.stride = tuple(stride)
        squeezed = len(self.poolings) if descriptor == "concat" else 1
        padding = tuple(k // 2 for k in kernel_size)
        self.attend = nn.Sequential(
            conv_op(squeezed, channels, tuple(kernel_size), padding=padding),
            nn.LeakyReLU(0.01, inplace=True),
            conv_op(channels, 1, tuple(kernel_size), padding=padding),
        )
        self.g = pointwise(conv_op, channels, channels)
        self._average = F.avg_pool3d if conv_op is nn.Conv3d else F.avg_pool2d

    def describe(self, here: ChannelStatistics, finer: ChannelStatistics) -> Tensor:
        """Squeeze the concatenation of both levels on the finer grid, Eq. (5); returns ``(B, 1 or 2, *F)``.

        Mean and max of a concatenation follow from those of its parts, so it is never made.
        """
        size = finer.mean.shape[2:]
        total = here.channels + finer.channels
        squeezed = {
            "avg": lambda: (_up(here.mean, size) * here.channels + finer.mean * finer.channels) / total,
            "max": lambda: torch.maximum(_up(here.max, size), finer.max),
        }
        maps = [squeezed[pooling]() for pooling in self.poolings]
        return torch.cat(maps, 1) if self.descriptor == "concat" else sum(maps[1:], maps[0])

    def attention(self, here: ChannelStatistics, finer: ChannelStatistics) -> Tensor:
        """Attention in (0, 1) on the finer grid, Eq. (5); ``(B, 1, *F)``."""
        described = self.describe(here, finer)
        kernel, sizes = self.attend[0].kernel_size, described.shape[2:]
        padded = F.pad(described, [k // 2 for k in reversed(kernel) for _ in range(2)])
        run = self._attend
        if torch.is_grad_enabled() and self.training:
            run = partial(checkpoint, self._attend, use_reentrant=False, preserve_rng_state=False)
        # the hidden map has C channels on the finer grid: more than the rest of the module together
        rows = -(-sizes[0] // PARTS)
        parts = []
        for start in range(0, sizes[0], rows):
            n = min(rows, sizes[0] - start)
            part = run(padded.narrow(2, start, n + kernel[0] - 1))
            parts.append(F.pad(part, [0, 0] * (len(kernel) - 1) + [start, sizes[0] - start - n]))
        inside = [slice(k // 2, k // 2 + size) for k, size in zip(kernel, sizes, strict=True)]
        return torch.sigmoid(sum(parts[1:], parts[0])[(..., *inside)] + self.attend[2].bias)

    def _attend(self, described: Tensor) -> Tensor:
        """Both attention convolutions of some rows, without the last bias, and what they add to the rows around.

        As matrix products these take a third of the time of torch's convolutions from one channel and to one.
        """
        first, activate, last = self.attend
        batch, kernel = described.shape[0], first.kernel_size
        near = neighborhoods(described, kernel)
        matrix = first.weight.flatten(1).expand(batch, -1, -1)
        hidden = activate(torch.baddbmm(first.bias[:, None], matrix, near.flatten(2)))
        matrix = last.weight[0].flatten(1).flip(1).T.expand(batch, -1, -1)
        return overlaid((matrix @ hidden).unflatten(2, near.shape[2:]), kernel)

    def forward(self, x: Tensor, here: ChannelStatistics, finer: ChannelStatistics) -> Tensor:
        """Refine ``x (B, C, *S)`` with the statistics of both levels, Eq. (6); returns ``(B, C, *S)``."""
        return self._average(self.attention(here, finer), self.stride, self.stride) * self.g(x)

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """Its attention, on the finer grid, and the refined features; see ``blocks.attention_spec``."""
        title, source = "SpaCor: spatial attention", "DPC-Net, Eq. (5)"

        def read(call: ModuleCall) -> Tensor:
            return self.attention(*call.inputs[1:])

        return [
            AttentionSpec("spacor_attention", title, source, VOXELS, level, self, read),
            output_features("spacor_features", "SpaCor: features", "DPC-Net, Eq. (6), Fig. 5", level, self),
        ]


def _up(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size=size, mode="nearest")
