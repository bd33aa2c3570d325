"""The parts of MPU-Net at the geometry of the plans: encoder, attention at the coarsest level, decoder."""

# Shape letters:  B batch, K classes, L level with the attention, C_i and E_i channels of the decoder and the encoder at
# level i, *S_i sizes of level i (level 0 is full resolution)

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.mpunet_gate import SteeredGate
from nnunet_livseg.blocks.mpunet_stages import MultiScaleBlock, Norm, ResidualStage, convolutions, up
from nnunet_livseg.blocks.position_attention import PositionAttention, PositionEmbedding
from nnunet_livseg.networks.unet import Geometry, Heads

Down = Callable[..., nn.Module]  # blocks.mpu_stages.down without its widths, kernel and stride


def encoder_widths(g: Geometry, level: int) -> list[int]:
    """Channels E_0 to E_L: half of the decoder's, where widths double from level to level."""
    return [g.features_per_stage[0] // 2, *g.features_per_stage[:level]]


def width_below(g: Geometry, level: int) -> int:
    """Channels of the layer before the attention: the next stage of the plans, or the last one again."""
    return g.features_per_stage[min(level + 1, g.n_stages - 1)]


class Encoder(nn.Module):
    """Stages E_0 to E_L, each a residual pair of convolutions, with the plans' strides between them."""

    def __init__(self, input_channels: int, g: Geometry, level: int, downs: Down, dropout: float) -> None:
        super().__init__()
        widths = encoder_widths(g, level)
        inputs = [input_channels, *widths[1:]]
        self.stages = nn.ModuleList(
            ResidualStage(g.conv_op, inputs[i], widths[i], g.kernel_sizes[i]) for i in range(level + 1)
        )
        self.downs = nn.ModuleList(
            downs(widths[i - 1], widths[i], g.kernel_sizes[i], g.strides[i]) for i in range(1, level + 1)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Skips ``L + 1 x (B, E_i, *S_i)``, finest first, of ``x (B, channels, *S_0)``."""
        skips = [self.stages[0](x)]
        for reduce, stage in zip(self.downs, self.stages[1:], strict=True):
            skips.append(self.dropout(stage(reduce(skips[-1]))))
        return skips


class Decoder(nn.Module):
    """From the attention back to full resolution; a map of logits from every level."""

    deep_supervision = False

    def __init__(
        self, num_classes: int, g: Geometry, level: int, norm: Norm, dropout: float, gate: str | None, multi_scale: bool
    ) -> None:
        super().__init__()
        widths, skips = list(g.features_per_stage[: level + 1]), encoder_widths(g, level)
        levels = range(level, -1, -1)
        stage = partial(MultiScaleBlock, g.conv_op) if multi_scale else partial(convolutions, g.conv_op, count=3)
        inputs = [skips[i] + (0 if i == level else widths[i]) for i in range(level + 1)]
        self.ups = nn.ModuleList(up(g.conv_op, widths[i], widths[i - 1], g.strides[i]) for i in levels[:-1])
        self.stages = nn.ModuleList(stage(inputs[i], widths[i], g.kernel_sizes[i]) for i in levels)
        gated = skips if gate == "skip" else widths
        gates = (SteeredGate(gated[i], widths[i], conv_op=g.conv_op, norm=norm) for i in levels)
        self.gates = None if gate is None else nn.ModuleList(gates)
        self.seg_layers = nn.ModuleList(g.conv_op(widths[i], num_classes, 1) for i in levels)
        self.gate, self.dropout = gate, nn.Dropout(dropout)
        self._mode = "trilinear" if g.dim == 3 else "bilinear"

    def forward(self, skips: list[Tensor], context: Tensor) -> list[Tensor]:
        """Logits at full resolution, ``L + 1 x (B, K, *S_0)``, coarsest level first."""
        size, maps, coarser = skips[0].shape[2:], [], context
        for i, (skip, head) in enumerate(zip(reversed(skips), self.seg_layers, strict=True)):
            coarser = context if i == 0 else self.ups[i - 1](coarser)
            coarser = self._stage(i, skip, coarser)
            logits = head(coarser)
            maps.append(logits if i == len(skips) - 1 else F.interpolate(logits, size, mode=self._mode))
        return maps

    def _stage(self, i: int, skip: Tensor, coarser: Tensor) -> Tensor:
        """Decoder features ``(B, C_i, *S_i)``; ``coarser`` is the attention's or the upsampled level below."""
        if self.gate == "skip":
            skip = self.gates[i](skip, coarser)
        x = self.stages[i](skip if i == 0 else torch.cat([coarser, skip], 1)) + coarser
        if self.gate == "decoder":
            x = self.gates[i](x, coarser)
        return x if i == len(self.stages) - 1 else self.dropout(x)


class Context(nn.Module):
    """Two more convolution steps at level L, then the attention between two convolutions."""

    def __init__(
        self,
        g: Geometry,
        level: int,
        downs: Down,
        norm: Norm,
        dropout: float,
        *,
        grid: Sequence[int] | None,
        n_heads: int,
    ) -> None:
        super().__init__()
        here, kernel, still = g.features_per_stage[level], g.kernel_sizes[level], [1] * g.dim
        below = width_below(g, level)
        self.reduce = downs(encoder_widths(g, level)[level], here, kernel, still)
        self.stage = nn.Sequential(ResidualStage(g.conv_op, here, here, kernel), nn.Dropout(dropout))
        self.widen = downs(here, below, kernel, still)
        self.enter = _normalized(g, below, here, kernel, norm)
        self.embed = nn.Identity() if grid is None else PositionEmbedding(here, grid)
        self.attend = PositionAttention(here, conv_op=g.conv_op, n_heads=n_heads)
        self.leave = _normalized(g, here, here, kernel, norm)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, E_L, *S_L)`` to ``(B, C_L, *S_L)``."""
        x = self.enter(self.widen(self.stage(self.reduce(x))))
        return self.leave(self.attend(self.embed(x)))


def _normalized(g: Geometry, inputs: int, outputs: int, kernel: Sequence[int], norm: Norm) -> nn.Sequential:
    """Convolution, normalization and a PReLU with one slope for all channels."""
    padding = [k // 2 for k in kernel]
    return nn.Sequential(g.conv_op(inputs, outputs, tuple(kernel), padding=padding), norm(outputs), nn.PReLU())


def never_called(g: Geometry, level: int, num_classes: int) -> nn.Module:
    """What the authors' network declares and never calls: an upsampling, a stage and a head; frozen."""
    layers = Heads([g.conv_op(2, num_classes, 1)])
    layers.up = up(g.conv_op, width_below(g, level), g.features_per_stage[level], g.strides[level])
    layers.stage = convolutions(g.conv_op, 8, 2, g.kernel_sizes[0], count=3)
    return layers.requires_grad_(False)
