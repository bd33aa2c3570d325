"""nnU-Net's own U-Net, taken apart: encoder and decoder at the geometry of the plans, with their parameter names.

Built from ``dynamic_network_architectures``, so that the weights of a stock nnU-Net training fit.
"""

# Shape letters:  B batch, C_i channels of level i, *S_i spatial sizes of level i (level 0 is full resolution)

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from dynamic_network_architectures.initialization.weight_init import InitWeights_He, init_last_bn_before_add_to_0
from torch import Tensor, nn

from nnunet_livseg.core.errors import UserError

DOWNSAMPLINGS = {
    "strided": "the first convolution of a stage is strided (nnU-Net)",
    "separate": "a separate convolution with kernel = stride and unchanged channels (DPC-Net's PFE)",
    "max": "max pooling (3D U-Net)",
}


@dataclass(frozen=True)
class Geometry:
    """The keyword arguments that nnU-Net's plans give to every U-Net; see ``dynamic_network_architectures``.

    Exactly one of ``n_conv_per_stage`` (plain) and ``n_blocks_per_stage`` (residual encoder) is set.
    """

    n_stages: int
    features_per_stage: Sequence[int]
    conv_op: type[nn.Module]
    kernel_sizes: Sequence[Sequence[int]]
    strides: Sequence[Sequence[int]]
    n_conv_per_stage_decoder: Sequence[int]
    n_conv_per_stage: Sequence[int] | None = None
    n_blocks_per_stage: Sequence[int] | None = None
    conv_bias: bool = False
    norm_op: type[nn.Module] | None = None
    norm_op_kwargs: dict[str, Any] | None = None
    dropout_op: type[nn.Module] | None = None
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: type[nn.Module] | None = None
    nonlin_kwargs: dict[str, Any] | None = None
    residual: dict[str, Any] = field(default_factory=dict)  # what else residual encoders take (block, ...)

    @property
    def dim(self) -> int:
        """Number of spatial dimensions, 2 or 3."""
        return {nn.Conv2d: 2, nn.Conv3d: 3}[self.conv_op]

    def norm(self, channels: int) -> nn.Module:
        """The plans' normalization of ``channels`` channels; passes its input on where the plans have none."""
        return nn.Identity() if self.norm_op is None else self.norm_op(channels, **(self.norm_op_kwargs or {}))


def build_unet(
    input_channels: int, num_classes: int, geometry: Geometry, *, deep_supervision: bool, downsampling: str = "strided"
) -> tuple[nn.Module, UNetDecoder]:
    """nnU-Net's encoder and decoder; ``downsampling`` is a key of ``DOWNSAMPLINGS``."""
    encoder = build_encoder(input_channels, geometry, downsampling=downsampling)
    return encoder, UNetDecoder(encoder, num_classes, geometry.n_conv_per_stage_decoder, deep_supervision)


def build_encoder(input_channels: int, geometry: Geometry, *, downsampling: str = "strided") -> nn.Module:
    """nnU-Net's encoder, which returns all levels, finest first; ``downsampling`` is a key of ``DOWNSAMPLINGS``."""
    g = geometry
    shared = (g.conv_bias, g.norm_op, g.norm_op_kwargs, g.dropout_op, g.dropout_op_kwargs, g.nonlin, g.nonlin_kwargs)
    size = (input_channels, g.n_stages, g.features_per_stage, g.conv_op, g.kernel_sizes, g.strides)
    if g.n_blocks_per_stage is not None:
        if downsampling != "strided":
            raise UserError(
                f"this network has the downsampling {downsampling!r}, but a residual encoder has only "
                "strided convolutions.\n  Use the plans of a plain U-Net: livseg plan -p nnUNetPlans."
            )
        return ResidualEncoder(*size, g.n_blocks_per_stage, *shared, return_skips=True, **g.residual)
    pool = "conv" if downsampling == "strided" else "max"
    encoder = PlainConvEncoder(*size, g.n_conv_per_stage, *shared, return_skips=True, pool=pool)
    if downsampling == "separate":
        _replace_pooling(encoder, g)
    return encoder


def _replace_pooling(encoder: PlainConvEncoder, geometry: Geometry) -> None:
    for i in range(1, geometry.n_stages):
        stride, channels = tuple(geometry.strides[i]), geometry.features_per_stage[i - 1]
        encoder.stages[i][0] = geometry.conv_op(channels, channels, stride, stride=stride)


def keep_finest_head(decoder: UNetDecoder) -> None:
    """Leave the head at full resolution alone; DDP stops at unused parameters."""
    for stage in range(len(decoder.seg_layers) - 1):
        decoder.seg_layers[stage] = nn.Identity()


def decode(decoder: UNetDecoder, skips: list[Tensor]) -> list[Tensor]:
    """Feature maps ``(B, C_i, *S_i)`` of the decoder, finest first, from the encoder's skips (finest first)."""
    x, features = skips[-1], []
    for upsample, stage, skip in zip(decoder.transpconvs, decoder.stages, skips[-2::-1], strict=True):
        x = stage(torch.cat((upsample(x), skip), 1))
        features.append(x)
    return features[::-1]


class Heads(nn.Module):
    """Segmentation heads under the name ``seg_layers``, which nnU-Net's ``-pretrained_weights`` skips."""

    def __init__(self, heads: list[nn.Module]) -> None:
        super().__init__()
        self.seg_layers = nn.ModuleList(heads)


def initialize(module: nn.Module) -> None:
    """nnU-Net's initialization, for ``Network.initialize``."""
    InitWeights_He(1e-2)(module)
    init_last_bn_before_add_to_0(module)
