"""MedNeXt: a U-Net of depthwise convolutions with large kernels and expanded channels, from MONAI.

Roy et al., MedNeXt: Transformer-driven Scaling of ConvNets for Medical Image Segmentation, MICCAI 2023. All blocks are
MONAI's (extra ``monai``), which derive from the authors' code; here they are put together at the plans' depth.
"""

# Shape letters:  B batch, K classes, C_i channels and *S_i sizes of level i (level 0 is full resolution)

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.outputs import TrainingOutput, nnunet_weights
from nnunet_livseg.networks.planned import PlannedNetwork
from nnunet_livseg.networks.unet import Heads

DEEPEST = 4  # downsamplings of the published networks
# of each published size, from the finest level to the bottleneck: expansion of the channels, and blocks
SIZES = {
    "S": ((2, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
    "B": ((2, 3, 4, 4, 4), (2, 2, 2, 2, 2)),
    "M": ((2, 3, 4, 4, 4), (3, 4, 4, 4, 4)),
    "L": ((3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
}
KERNELS = (3, 5, 7)


class MedNeXt(PlannedNetwork):
    """MedNeXt S, B, M or L.

    It halves every axis at every level, as MONAI's blocks do, and has the same kernel everywhere. So of the plans it
    takes the first stage's width and its depth: as many levels as the plans pool every axis, at most four. On plans of
    thick slices it is shallower than the published network.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of every output.
        size: Key of ``SIZES``.
        kernel_size: 3, or 5 as in the larger published networks.
        deep_supervision: Whether ``forward`` returns all training outputs.
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.

    Raises:
        UserError: MONAI is not installed, the plans leave an axis at full resolution, or an option is unknown.
    """

    TITLE = "MedNeXt"

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        size: str = "S",
        kernel_size: int = 3,
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        self.require_known(size=(size, tuple(SIZES)), kernel_size=(kernel_size, KERNELS))
        g = self.geometry
        self.depth = halvings(g.strides)
        built = _of_monai(
            g.dim, input_channels, num_classes, g.features_per_stage[0], self.depth, size=size, kernel_size=kernel_size
        )
        self.encoder = _Encoder(built)
        self.decoder = _Decoder(built, deep_supervision=deep_supervision)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``, or the list that ``training_outputs`` declares."""
        return self.decoder(self.encoder(x))

    def training_outputs(self) -> list[TrainingOutput]:
        """An output at every level, the deepest too, with nnU-Net's weights."""
        weights = enumerate(nnunet_weights(self.depth + 1))
        return [TrainingOutput(f"level{i}", (2**i,) * self.geometry.dim, weight) for i, weight in weights]

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Nothing: the published networks start with torch's own initialization."""


def halvings(strides: Sequence[Sequence[int]]) -> int:
    """How often every axis can be halved where the plans have these strides, at most ``DEEPEST`` times."""
    per_axis = [sum(stride > 1 for stride in axis) for axis in zip(*strides, strict=True)]
    if min(per_axis) == 0:
        raise UserError(
            "MedNeXt halves every axis, but these plans keep one axis at full resolution."
            "\n  Plan with a larger patch (livseg plan --patch), or choose another network (livseg list)."
        )
    return min(DEEPEST, *per_axis)


def _of_monai(dim: int, inputs: int, classes: int, width: int, depth: int, *, size: str, kernel_size: int) -> nn.Module:
    try:
        from monai.networks.nets import mednext
    except ImportError as error:
        raise UserError(
            "MedNeXt is built from MONAI's blocks, but MONAI 1.5 or later is not installed."
            "\n  Install it in the environment that trains and predicts: pip install 'nnunet-livseg[monai]'"
        ) from error
    expansions, blocks = SIZES[size]
    return mednext.MedNeXt(
        spatial_dims=dim,
        init_filters=width,
        in_channels=inputs,
        out_channels=classes,
        encoder_expansion_ratio=expansions[:depth],
        bottleneck_expansion_ratio=expansions[-1],
        decoder_expansion_ratio=expansions[:depth][::-1],
        kernel_size=kernel_size,
        deep_supervision=True,
        use_residual_connection=True,
        blocks_down=blocks[:depth],
        blocks_bottleneck=blocks[-1],
        blocks_up=blocks[:depth][::-1],
    )


class _Encoder(nn.Module):
    """Stem, stages and downsampling blocks; returns all levels, finest first."""

    def __init__(self, built: nn.Module) -> None:
        super().__init__()
        self.stem = built.stem
        self.stages = nn.ModuleList([*built.enc_stages, built.bottleneck])
        self.downs = built.down_blocks

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps ``(B, C_i, *S_i)`` of ``x (B, channels, *S_0)``."""
        levels = [self.stages[0](self.stem(x))]
        for down, stage in zip(self.downs, self.stages[1:], strict=True):
            levels.append(stage(down(levels[-1])))
        return levels


class _Decoder(Heads):
    """Upsampling blocks, added skips and stages; a head at every level, finest first, and nnU-Net's switch."""

    def __init__(self, built: nn.Module, *, deep_supervision: bool) -> None:
        super().__init__([built.out_0, *reversed(built.out_blocks)])
        self.deep_supervision = deep_supervision
        self.ups, self.stages = built.up_blocks, built.dec_stages

    def forward(self, levels: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_i)`` of the encoder's levels, finest first; the finest alone without supervision."""
        maps = [levels[-1]]
        for up, stage, skip in zip(self.ups, self.stages, levels[-2::-1], strict=True):
            maps.append(stage(up(maps[-1]) + skip))
        if not self.deep_supervision:
            return self.seg_layers[0](maps[-1])
        return [head(features) for head, features in zip(self.seg_layers, maps[::-1], strict=True)]
