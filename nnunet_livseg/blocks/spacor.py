"""SpaCor: refine a pyramid level with the finer level above it, voxel by voxel.

Zhang et al., Decoupled Pyramid Correlation Network, Medical Physics 2022, section II.D, Eqs. (4)-(6).
Readings (docs/papers/dpcnet.md): the attention lives on the finer grid and the result is averaged down to the coarser
one; up-sampling is nearest neighbor. Nearest commutes with the channel mean and the channel max, and average pooling
undoes it, so no C-channel map is made on the finer grid except the hidden map of the attention convolutions, which
exists in parts, as its channels are independent of each other, and is recomputed in the backward pass.
"""

# Shape letters:  B batch, C channels of this level, *S sizes here, *F sizes of the finer level

import itertools
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nnunet_livseg.blocks.attention_spec import VOXELS, AttentionSpec, ModuleCall, output_features
from nnunet_livseg.blocks.pooling import POOLINGS

PARTS = 4  # of the hidden map, of which one exists at a time


class ChannelStatistics(NamedTuple):
    """What SpaCor reads of a level: per-voxel mean and maximum over its channels, each ``(B, 1, *S)``."""

    mean: Tensor
    max: Tensor
    channels: int


def channel_statistics(x: Tensor) -> ChannelStatistics:
    """Statistics of ``x (B, C, *S)``; computed once per level, because two SpaCor modules read each level."""
    return ChannelStatistics(x.mean(1, keepdim=True), x.amax(1, keepdim=True), x.shape[1])


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
        self.g = conv_op(channels, channels, 1)
        self._convolve = F.conv3d if conv_op is nn.Conv3d else F.conv2d

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
        """Attention in (0, 1) on the finer grid, Eq. (5), a channel per voxel of a stride block; ``(B, blocks, *S)``.

        Voxel ``o`` of the block that lies under voxel ``s`` is channel ``o`` at ``s`` (offsets in row-major order).
        """
        described = self.describe(here, finer)
        first, _, last = self.attend
        # the hidden map has C channels on the finer grid: more than the rest of the module together
        inner = zip(first.weight.chunk(PARTS), first.bias.chunk(PARTS), strict=True)
        outer = _shifted(last.weight, self.stride).chunk(PARTS, 1)
        run = self._attend
        if torch.is_grad_enabled() and self.training:
            run = partial(checkpoint, self._attend, use_reentrant=False, preserve_rng_state=False)
        parts = [run(described, *weights, after) for weights, after in zip(inner, outer, strict=True)]
        return torch.sigmoid(sum(parts[1:], parts[0]) + last.bias)

    def _attend(self, described: Tensor, weight: Tensor, bias: Tensor, after: Tensor) -> Tensor:
        """Both attention convolutions through some hidden channels; the second runs as a strided one with all offsets.

        A convolution with one output channel leaves most of a processor idle. With a channel per offset it computes the
        same numbers about twice as fast, and averaging a stride block down becomes a mean over channels.
        """
        first, activate, last = self.attend
        hidden = activate(self._convolve(described, weight, bias, padding=first.padding))
        return self._convolve(hidden, after, None, self.stride, last.padding)

    def forward(self, x: Tensor, here: ChannelStatistics, finer: ChannelStatistics) -> Tensor:
        """Refine ``x (B, C, *S)`` with the statistics of both levels, Eq. (6); returns ``(B, C, *S)``."""
        return self.attention(here, finer).mean(1, keepdim=True) * self.g(x)

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """Its attention, on the finer grid, and the refined features; see ``blocks.attention_spec``."""
        title, source = "SpaCor: spatial attention", "DPC-Net, Eq. (5)"

        def read(call: ModuleCall) -> Tensor:
            return self._on_finer_grid(self.attention(*call.inputs[1:]))

        return [
            AttentionSpec("spacor_attention", title, source, VOXELS, level, self, read),
            output_features("spacor_features", "SpaCor: features", "DPC-Net, Eq. (6), Fig. 5", level, self),
        ]

    def _on_finer_grid(self, attention: Tensor) -> Tensor:
        """Channels of stride blocks, ``(B, blocks, *S)``, back at their voxels; ``(B, 1, *F)``."""
        dim = len(self.stride)
        blocks = attention.unflatten(1, self.stride)
        pairs = [(1 + dim + axis, 1 + axis) for axis in range(dim)]
        sizes = [n * s for n, s in zip(attention.shape[2:], self.stride, strict=True)]
        return blocks.permute(0, *itertools.chain.from_iterable(pairs)).reshape(-1, 1, *sizes)


def _shifted(weight: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Copies of ``weight (1, C, *k)``, one per offset in a stride block; ``(prod(stride), C, *(k + stride - 1))``."""
    copies = []
    for offset in itertools.product(*map(range, stride)):
        before_after = [(o, s - 1 - o) for o, s in zip(offset, stride, strict=True)]
        copies.append(F.pad(weight, [n for pair in reversed(before_after) for n in pair]))
    return torch.cat(copies)


def _up(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size=size, mode="nearest")
