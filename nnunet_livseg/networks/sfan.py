"""SFAN: an encoder whose levels are weighted (SAT), aligned and fused at full resolution (GCA); and its comparator.

Zhang et al., Semantic Feature Attention Network for Liver Tumor Segmentation in Large-scale CT database,
arXiv:1911.00282. Readings of what the paper leaves open: docs/papers/sfan.md.
"""

# Shape letters:  B batch, K classes, C_l channels and *S_l sizes of level l (level 0 is full resolution)

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import AttentionSpec
from nnunet_livseg.blocks.gca import GlobalContextAttention
from nnunet_livseg.blocks.sat import INNER_ACTIVATIONS, SemanticAttentionTransmission
from nnunet_livseg.networks.planned import PlannedNetwork
from nnunet_livseg.networks.unet import Geometry, Heads, build_encoder, build_unet, decode, keep_finest_head

SAT_HIDDEN = ("level", "deeper")
GCA_HIDDEN = ("deepest", "output")


class SFAN(PlannedNetwork):
    """SFAN and its ablations without SAT and without GCA's weights.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of the output.
        sat: Whether the next deeper level weights each level's channels (otherwise V = 1).
        gca: Whether the global context weights the aligned channels (otherwise G = 1).
        aligned_channels: Channels C' of every aligned level; those of the first stage if left out.
        sat_hidden: Outputs of SAT's first convolution: as the ``"level"`` or as the ``"deeper"`` one.
        gca_hidden: Outputs of GCA's first attention convolution: as the ``"deepest"`` level or as its ``"output"``.
        inner_activation: What stands between the two convolutions of SAT and GCA: nothing, ``"relu"``, ``"sigmoid"``.
        downsampling: See ``networks.unet.DOWNSAMPLINGS``; the paper's is ``"max"``.
        deep_supervision: Whether ``forward`` returns a list (of its one output).
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.

    Raises:
        UserError: The plans have one stage only, or an option has an unknown value.
    """

    TITLE = "SFAN"
    MIN_STAGES = 2

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        sat: bool = True,
        gca: bool = True,
        aligned_channels: int | None = None,
        sat_hidden: str = "level",
        gca_hidden: str = "deepest",
        inner_activation: str | None = None,
        downsampling: str = "strided",
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        self.require_known(sat_hidden=(sat_hidden, SAT_HIDDEN), gca_hidden=(gca_hidden, GCA_HIDDEN))
        self.require_known(inner_activation=(inner_activation, INNER_ACTIVATIONS))
        g = self.geometry
        channels = list(g.features_per_stage)
        aligned = aligned_channels or channels[0]
        self.encoder = build_encoder(input_channels, g, downsampling=downsampling)
        self.sat = nn.ModuleList(
            SemanticAttentionTransmission(
                here,
                deeper,
                conv_op=g.conv_op,
                hidden=here if sat_hidden == "level" else deeper,
                inner_activation=inner_activation,
            )
            for here, deeper in pairwise(channels)
            if sat
        )
        gca_module = GlobalContextAttention(
            channels,
            aligned,
            conv_op=g.conv_op,
            kernel_size=g.kernel_sizes[0],
            weighted=gca,
            hidden=channels[-1] if gca_hidden == "deepest" else len(channels) * aligned,
            inner_activation=inner_activation,
        )
        self.decoder = _Decoder(gca_module, g, num_classes, deep_supervision=deep_supervision)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``."""
        levels = self.encoder(x)
        weights = [sat.attention(deeper) for sat, deeper in zip(self.sat, levels[1:], strict=False)]
        logits = self.decoder(levels, weights + [None] * (len(levels) - len(weights)))
        return [logits] if self.decoder.deep_supervision else logits

    def attention_specs(self) -> list[AttentionSpec]:
        """The vectors of SAT and GCA at each level, as far as the network has them."""
        return [
            one for level, sat in enumerate(self.sat) for one in sat.attention_specs(level)
        ] + self.decoder.gca.attention_specs()


class SFANUNet(PlannedNetwork):
    """The U-Net that SFAN is compared with (5 levels, 64 channels in the first, in the paper's preset).

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of the output.
        downsampling: See ``networks.unet.DOWNSAMPLINGS``; the paper's is ``"max"``.
        deep_supervision: Whether ``forward`` returns a list (of its one output).
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.
    """

    TITLE = "the U-Net"
    MIN_STAGES = 2

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
        self.encoder, self.decoder = build_unet(
            input_channels, num_classes, self.geometry, deep_supervision=deep_supervision, downsampling=downsampling
        )
        keep_finest_head(self.decoder)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``."""
        features = decode(self.decoder, self.encoder(x))
        logits = self.decoder.seg_layers[-1](features[0])
        return [logits] if self.decoder.deep_supervision else logits


class _Decoder(Heads):
    """GCA with its two last convolutions: everything after the encoder and SAT."""

    def __init__(
        self, gca: GlobalContextAttention, geometry: Geometry, num_classes: int, *, deep_supervision: bool
    ) -> None:
        super().__init__([geometry.conv_op(gca.aligned_channels, num_classes, 1)])
        self.deep_supervision = deep_supervision
        self.gca = gca
        self.norm = geometry.norm(gca.aligned_channels)
        self.activate = (geometry.nonlin or nn.ReLU)(**(geometry.nonlin_kwargs or {}))

    def forward(self, levels: list[Tensor], channel_weights: list[Tensor | None]) -> Tensor:
        """Logits ``(B, K, *S_0)`` of the encoder's levels and SAT's weights, both finest first."""
        return self.seg_layers[0](self.activate(self.norm(self.gca(levels, channel_weights))))
