"""Attention networks that the papers compare with, built on the same U-Net as the papers' own networks."""

# Shape letters:  B batch, K classes, C_i channels and *S_i sizes of level i (level 0 is full resolution)

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_gate import AttentionGate
from nnunet_livseg.blocks.attention_spec import AttentionSpec
from nnunet_livseg.blocks.daf import DeepAttentiveFeatures
from nnunet_livseg.networks.outputs import TrainingOutput, level_strides
from nnunet_livseg.networks.planned import PlannedNetwork
from nnunet_livseg.networks.unet import Heads, build_unet, decode, keep_finest_head


class AttentionGateUNet(PlannedNetwork):
    """U-Net whose skip connections pass attention gates, all steered from the bottleneck.

    Schlemper et al., Medical Image Analysis 2019; "AG" in DPC-Net's Table 4 (+1.02M parameters on 32..512 channels).
    The finest skip is not gated, as in the authors' network.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of the output.
        downsampling: See ``networks.unet.DOWNSAMPLINGS``.
        deep_supervision: Whether ``forward`` returns a list (of its one output).
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.
    """

    TITLE = "the attention-gate U-Net"
    MIN_STAGES = 3

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        downsampling: str = "strided",
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        g = self.geometry
        self.encoder, self.decoder = build_unet(
            input_channels, num_classes, g, deep_supervision=deep_supervision, downsampling=downsampling
        )
        keep_finest_head(self.decoder)
        gating = g.features_per_stage[-2]
        self.gating = nn.Sequential(g.conv_op(g.features_per_stage[-1], gating, 1), g.norm(gating), nn.ReLU())
        self.gates = nn.ModuleList(
            AttentionGate(c, gating, conv_op=g.conv_op, norm=g.norm(c), stride=tuple(g.strides[i]))
            for i, c in enumerate(g.features_per_stage[1:-1], start=2)
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``."""
        finest, *skips, bottleneck = self.encoder(x)
        gating = self.gating(bottleneck)
        gated = [gate(skip, gating) for gate, skip in zip(self.gates, skips, strict=True)]
        features = decode(self.decoder, [finest, *gated, bottleneck])
        logits = self.decoder.seg_layers[-1](features[0])
        return [logits] if self.decoder.deep_supervision else logits

    def attention_specs(self) -> list[AttentionSpec]:
        """The gates' attention."""
        return [one for level, gate in enumerate(self.gates, start=1) for one in gate.attention_specs(level)]


class DAFNet(PlannedNetwork):
    """U-Net pyramid with the deep-attentive-features head of Wang et al., IEEE TMI 2019; "DAF" in DPC-Net's Table 4.

    The head works on the second-finest grid and its result is upsampled, as in the published network, whose finest
    level is half the image's in-plane resolution.
    Different from it: the side outputs are supervised on the grid where they arise instead of being upsampled.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of every output.
        downsampling: See ``networks.unet.DOWNSAMPLINGS``.
        deep_supervision: Whether ``forward`` returns all training outputs.
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.
    """

    TITLE = "DAF"
    MIN_STAGES = 3
    LEVELS = 4
    # of the authors' training code, finest level first: of the cross-entropy, then of the Dice
    SIDE_WEIGHTS = (
        ("signal", (0.4, 0.5, 0.7, 0.8), (0.4, 0.5, 0.7, 0.8)),
        ("refined", (0.4, 0.5, 0.7, 0.8), (0.4, 0.7, 0.8, 1.0)),
    )

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        downsampling: str = "strided",
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        g = self.geometry
        self.encoder, self.decoder = build_unet(
            input_channels, num_classes, g, deep_supervision=deep_supervision, downsampling=downsampling
        )
        self.decoder.seg_layers = nn.ModuleList()  # DAF predicts from its own maps
        self.levels = min(self.LEVELS, g.n_stages - 1)
        pooled = [any(row[axis] > 1 for row in g.strides[: self.levels]) for axis in range(g.dim)]
        wide, narrow = 64, 32
        self.daf = DeepAttentiveFeatures(
            list(g.features_per_stage[: self.levels]),
            conv_op=g.conv_op,
            wide=wide,
            narrow=narrow,
            dilation_axes=(False, *pooled[1:]) if g.dim == 3 else tuple(pooled),
        )
        self.final = Heads([g.conv_op(narrow, num_classes, 1)])
        self.side = Heads([g.conv_op(width, num_classes, 1) for width in (wide, narrow) for _ in range(self.levels)])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``, or the list that ``training_outputs`` declares."""
        pyramid = decode(self.decoder, self.encoder(x))[: self.levels]
        merged, levels, refined = self.daf(pyramid, grid=pyramid[1].shape[2:])
        mode = "trilinear" if self.geometry.dim == 3 else "bilinear"
        final = F.interpolate(self.final.seg_layers[0](merged), x.shape[2:], mode=mode, align_corners=False)
        if not self.decoder.deep_supervision:
            return final
        sides = zip(self.side.seg_layers, [*levels, *refined], strict=True)
        return [final, *(head(features) for head, features in sides)]

    def training_outputs(self) -> list[TrainingOutput]:
        """The final output and two side outputs per level; weights of the authors' training code."""
        full, working = level_strides(self.geometry.strides)[:2]
        sides = [
            TrainingOutput(f"{kind}{i}", working, entropy[i], overlap_weight=dice[i])
            for kind, entropy, dice in self.SIDE_WEIGHTS
            for i in range(self.levels)
        ]
        return [TrainingOutput("final", full, 1.0), *sides]

    def attention_specs(self) -> list[AttentionSpec]:
        """The attention of every level, on the working grid."""
        return self.daf.attention_specs()
