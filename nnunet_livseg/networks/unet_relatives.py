"""U-Nets with other units or other skip connections, which MFCNet compares with: R2U-Net, CS-Net and UNet++.

Widths, kernels, strides, normalization and activation are the plans'; max pooling has the plans' strides.
"""

# Shape letters:  B batch, K classes, C_i channels and *S_i sizes of level i (level 0 is full resolution)

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import AttentionSpec
from nnunet_livseg.blocks.axis_attention import AxisAttention
from nnunet_livseg.blocks.context import ChannelContext
from nnunet_livseg.blocks.probability_fusion import FUSIONS
from nnunet_livseg.blocks.recurrent_residual import RecurrentResidualUnit
from nnunet_livseg.networks.outputs import TrainingOutput
from nnunet_livseg.networks.planned import PlannedNetwork
from nnunet_livseg.networks.unet import Geometry, Heads

Unit = Callable[[int, int, int], nn.Module]  # input and output channels, level


class R2UNet(PlannedNetwork):
    """R2U-Net: a U-Net of recurrent residual units.

    Alom et al., Journal of Medical Imaging 2019 (arXiv:1802.06955); see ``blocks.recurrent_residual``.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of the output.
        recurrent_steps: Recurrent steps of every convolution; the paper has 2 and 3.
        deep_supervision: Whether ``forward`` returns a list (of its one output).
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.
    """

    TITLE = "R2U-Net"
    MIN_STAGES = 2

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        recurrent_steps: int = 2,
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        g = self.geometry

        def unit(inputs: int, outputs: int, level: int) -> nn.Module:
            options = {"norm": g.norm, "activation": partial(activation, g), "steps": recurrent_steps}
            return RecurrentResidualUnit(
                inputs, outputs, conv_op=g.conv_op, kernel_size=g.kernel_sizes[level], **options
            )

        self.encoder = PooledEncoder(input_channels, g, unit)
        self.decoder = _Decoder(num_classes, g, unit, deep_supervision=deep_supervision)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``."""
        logits = self.decoder(self.encoder(x))
        return [logits] if self.decoder.deep_supervision else logits


class CSNet(PlannedNetwork):
    """CS-Net: a U-Net with residual encoder units and spatial and channel attention at its bottleneck.

    Mou et al., MICCAI 2019; see ``blocks.axis_attention``. The channel attention is that of DANet's code, in 3D too.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of the output.
        deep_supervision: Whether ``forward`` returns a list (of its one output).
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.
    """

    TITLE = "CS-Net"
    MIN_STAGES = 2

    def __init__(
        self, input_channels: int, num_classes: int, *, deep_supervision: bool = False, **geometry: Any
    ) -> None:
        super().__init__(input_channels, geometry)
        g = self.geometry
        self.encoder = PooledEncoder(input_channels, g, partial(_ResidualUnit, g))
        self.spatial = AxisAttention(g.features_per_stage[-1], conv_op=g.conv_op, norm=g.norm)
        self.channel = ChannelContext(energy="danet")
        self.decoder = _Decoder(num_classes, g, partial(two_convolutions, g), deep_supervision=deep_supervision)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``."""
        *skips, deepest = self.encoder(x)
        attended = deepest + self.spatial(deepest) + self.channel(deepest)
        logits = self.decoder([*skips, attended.to(deepest.dtype)])
        return [logits] if self.decoder.deep_supervision else logits

    def attention_specs(self) -> list[AttentionSpec]:
        """Both attentions, at the deepest level."""
        level = self.geometry.n_stages - 1
        return self.spatial.attention_specs(level) + self.channel.attention_specs(level)


class NestedUNet(PlannedNetwork):
    """UNet++: every skip connection is a chain of convolutions that reads all maps of its level and one deeper map.

    Zhou et al., UNet++, DLMIA 2018, Eq. (1). With deep supervision each of the full-resolution nodes has a head of its
    own and a loss of its own (section 3.3), and the prediction is the mean of their probabilities (accurate mode).

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of every output.
        supervised: Whether all full-resolution nodes predict; otherwise the last one alone does.
        heads: ``"softmax"``, or ``"sigmoid"`` for nnU-Net's regions: which probabilities are fused.
        deep_supervision: Whether ``forward`` returns all training outputs.
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.
    """

    TITLE = "UNet++"
    MIN_STAGES = 2

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        supervised: bool = True,
        heads: str = "softmax",
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        self.require_known(heads=(heads, tuple(FUSIONS)))
        g, self.heads, self.supervised = self.geometry, heads, supervised
        depth, widths = g.n_stages - 1, g.features_per_stage
        self.encoder = PooledEncoder(input_channels, g, partial(two_convolutions, g))
        self.decoder = Heads([g.conv_op(widths[0], num_classes, 1) for _ in range(depth if supervised else 1)])
        self.decoder.deep_supervision = deep_supervision
        self.decoder.ups = nn.ModuleDict()
        self.decoder.nodes = nn.ModuleDict()
        for column in range(1, g.n_stages):  # node X^{i,j} of Fig. 1: level i, column j
            for level in range(g.n_stages - column):
                node = f"{level}_{column}"
                self.decoder.ups[node] = transposed(g, level)
                self.decoder.nodes[node] = two_convolutions(g, (column + 1) * widths[level], widths[level], level)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``, or the list that ``training_outputs`` declares."""
        levels = [[skip] for skip in self.encoder(x)]
        for column in range(1, len(levels)):
            for level in range(len(levels) - column):
                node = f"{level}_{column}"
                deeper = self.decoder.ups[node](levels[level + 1][column - 1])
                levels[level].append(self.decoder.nodes[node](torch.cat([*levels[level], deeper], 1)))
        nodes = levels[0][1:] if self.supervised else levels[0][-1:]
        maps = [head(node) for head, node in zip(self.decoder.seg_layers, nodes, strict=True)]
        fused = FUSIONS[self.heads](maps) if self.supervised else maps[0]
        if not self.decoder.deep_supervision:
            return fused
        return [fused, *maps] if self.supervised else [fused]

    def training_outputs(self) -> list[TrainingOutput]:
        """The fused prediction, which has no loss of its own, and the equally weighted nodes of level 0."""
        full, count = (1,) * self.geometry.dim, self.geometry.n_stages - 1
        if not self.supervised:
            return [TrainingOutput("final", full, 1.0)]
        nodes = [TrainingOutput(f"node{column}", full, 1.0 / count) for column in range(1, count + 1)]
        return [TrainingOutput("final", full, 0.0), *nodes]


def activation(g: Geometry) -> nn.Module:
    """The plans' activation, which leaves its input as it is; ReLU where they have none."""
    kwargs = g.nonlin_kwargs or {}
    return (g.nonlin or nn.ReLU)(**{**kwargs, **({"inplace": False} if "inplace" in kwargs else {})})


def two_convolutions(g: Geometry, inputs: int, outputs: int, level: int) -> nn.Module:
    """Two of the plans' convolutions, each with normalization and activation."""
    layers = (g.conv_bias or g.norm_op is None, g.norm_op, g.norm_op_kwargs, None, None)
    nonlin = (g.nonlin or nn.ReLU, g.nonlin_kwargs or {})
    return StackedConvBlocks(2, g.conv_op, inputs, outputs, g.kernel_sizes[level], 1, *layers, *nonlin)


def transposed(g: Geometry, level: int) -> nn.Module:
    """Transposed convolution from the next deeper level to this one."""
    stride = tuple(g.strides[level + 1])
    kind = {nn.Conv2d: nn.ConvTranspose2d, nn.Conv3d: nn.ConvTranspose3d}[g.conv_op]
    return kind(g.features_per_stage[level + 1], g.features_per_stage[level], stride, stride)


class _ResidualUnit(nn.Module):
    """Two convolutions, and a 1x1 convolution beside them; activated after each convolution and after the sum."""

    def __init__(self, g: Geometry, inputs: int, outputs: int, level: int) -> None:
        super().__init__()
        self.convs = two_convolutions(g, inputs, outputs, level)
        self.beside = g.conv_op(inputs, outputs, 1)
        self.activate = activation(g)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, *S)`` to ``(B, outputs, *S)``."""
        return self.activate(self.convs(x) + self.beside(x))


class PooledEncoder(nn.Module):
    """Units with max pooling between them; returns all levels, finest first."""

    def __init__(self, input_channels: int, g: Geometry, unit: Unit) -> None:
        super().__init__()
        channels = [input_channels, *g.features_per_stage]
        self.stages = nn.ModuleList(unit(channels[i], channels[i + 1], i) for i in range(g.n_stages))
        pool = {2: nn.MaxPool2d, 3: nn.MaxPool3d}[g.dim]
        self.pools = nn.ModuleList(pool(tuple(stride), tuple(stride)) for stride in g.strides[1:])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps ``(B, C_i, *S_i)`` of ``x (B, channels, *S_0)``."""
        levels = [self.stages[0](x)]
        for pool, stage in zip(self.pools, self.stages[1:], strict=True):
            levels.append(stage(pool(levels[-1])))
        return levels


class _Decoder(Heads):
    """Transposed convolutions, concatenated skips and units, coarsest first; one head, and nnU-Net's switch."""

    def __init__(self, num_classes: int, g: Geometry, unit: Unit, *, deep_supervision: bool) -> None:
        super().__init__([g.conv_op(g.features_per_stage[0], num_classes, 1)])
        self.deep_supervision = deep_supervision
        levels = range(g.n_stages - 2, -1, -1)
        self.ups = nn.ModuleList(transposed(g, level) for level in levels)
        widths = g.features_per_stage
        self.stages = nn.ModuleList(unit(2 * widths[level], widths[level], level) for level in levels)

    def forward(self, skips: Sequence[Tensor]) -> Tensor:
        """Logits ``(B, K, *S_0)`` from the encoder's maps, finest first."""
        x = skips[-1]
        for up, stage, skip in zip(self.ups, self.stages, skips[-2::-1], strict=True):
            x = stage(torch.cat((up(x), skip), 1))
        return self.seg_layers[0](x)
