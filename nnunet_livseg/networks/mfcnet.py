"""MFCNet: a ResNet-34 U-shape (CE-Net) whose skip connections carry spatial and channel context.

Pang et al., Correlation Matters: Multi-scale Fine-Grained Contextual Information Extraction for Hepatic Tumor
Segmentation, PAKDD 2020; backbone: Gu et al., CE-Net, IEEE TMI 2019.
Readings of what the paper leaves open, and how the network follows plans: docs/papers/mfcnet.md.
"""

# Shape letters:  B batch, K classes, C_i channels and *S_i sizes of encoder map i (0 the stem, 4 the coarsest)

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import AttentionSpec
from nnunet_livseg.blocks.context import ContextBlock
from nnunet_livseg.blocks.dac import DenseAtrousConvolution
from nnunet_livseg.blocks.rmp import ResidualMultiKernelPooling
from nnunet_livseg.blocks.squeeze_excitation import SqueezeExcitation
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.norms import NORMS, norms
from nnunet_livseg.networks.planned import PlannedNetwork
from nnunet_livseg.networks.resnet import ResNetEncoder
from nnunet_livseg.networks.unet import Geometry

SKIPS = (1, 2, 3)  # encoder maps E1, E2, E3; the stem's has no skip connection


class MFCNet(PlannedNetwork):
    """MFCNet, its backbone CE-Net, and what lies between.

    Channels and depth are ResNet-34's, whatever the plans say; strides and kernels are the plans', see
    ``plan_geometry``.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of the output.
        spatial_context: Whether the skips' context blocks have the spatial extractor.
        channel_context: Whether they have the channel extractor.
        channel_energy: What the channel softmax is taken of: ``"paper"``, ``"danet"`` or ``"scaled"``.
        squeeze_excitation: Whether the skips have squeeze-and-excitation instead of a context block (SENet of Table 1).
        context_skips: Skips (1, 2, 3) that have a context block.
        width: Channels of the encoder's stem and E1; 64 in ResNet-34, for whose weights it must be 64.
        norm: ``"batch"`` (ResNet's) or ``"plans"`` (nnU-Net's instance normalization).
        weights: Encoder weights that ``load_pretrained`` loads: ``None``, ``"imagenet"`` or a file; see
            ``ResNetEncoder.load_weights``.
        deep_supervision: Whether ``forward`` returns a list (of its one output).
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.

    Raises:
        UserError: The plans are too shallow, or an option has an unknown value.
    """

    TITLE = "MFCNet"
    MIN_STAGES = 3

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        spatial_context: bool = True,
        channel_context: bool = True,
        channel_energy: str = "paper",
        squeeze_excitation: bool = False,
        context_skips: Sequence[int] = SKIPS,
        width: int = 64,
        norm: str = "batch",
        weights: str | None = None,
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        g = self.geometry
        self.require_known(norm=(norm, NORMS))
        if norm == "plans" and g.norm_op is None:
            raise UserError(
                "MFCNet's option norm is 'plans', but these plans have no normalization.\n  Use --option norm=batch."
            )
        if not set(context_skips) <= set(SKIPS):
            raise UserError(
                f"MFCNet's option context_skips is {list(context_skips)}, but its skip connections are 1, 2 and 3."
            )
        self.weights = weights
        strides, kernels = plan_geometry(g)
        make_norm, _ = norms(g, norm)
        self.encoder = ResNetEncoder(
            input_channels, conv_op=g.conv_op, width=width, norm=make_norm, strides=strides, kernel_sizes=kernels
        )
        channels = self.encoder.channels
        self.dac = DenseAtrousConvolution(channels[-1], conv_op=g.conv_op, kernel_size=kernels[-1])
        self.rmp = ResidualMultiKernelPooling(channels[-1], conv_op=g.conv_op)
        energy = channel_energy if channel_context else None

        def context(skip: int) -> nn.Module:
            if skip in context_skips and squeeze_excitation:
                return SqueezeExcitation(channels[skip], conv_op=g.conv_op)
            if skip in context_skips and (spatial_context or channel_context):
                return ContextBlock(channels[skip], conv_op=g.conv_op, spatial=spatial_context, energy=energy)
            return nn.Identity()

        self.context = nn.ModuleList(map(context, SKIPS))
        self.decoder = _Decoder(g.conv_op, make_norm, channels, strides, kernels, num_classes)
        self.decoder.deep_supervision = deep_supervision

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S)`` of ``x (B, channels, *S)``; in a list under deep supervision."""
        stem, *skips, bottleneck = self.encoder(x)
        skips = [context(skip) for context, skip in zip(self.context, skips, strict=True)]
        logits = self.decoder(self.rmp(self.dac(bottleneck)), skips, stem.shape[2:], x.shape[2:])
        return [logits] if self.decoder.deep_supervision else logits

    def load_pretrained(self) -> str | None:
        """Load the encoder weights that the option ``weights`` names; returns a line for the log.

        Our trainers call this where a training starts; resumed trainings and predictions need no weights.

        Raises:
            UserError: See ``ResNetEncoder.load_weights``.
        """
        return None if self.weights is None else self.encoder.load_weights(self.weights)

    def attention_specs(self) -> list[AttentionSpec]:
        """The contexts of the skips E1, E2, E3 (levels 1 to 3), as far as the network has them."""
        blocks = zip(SKIPS, self.context, strict=True)
        return [
            one for level, block in blocks if hasattr(block, "attention_specs") for one in block.attention_specs(level)
        ]


def plan_geometry(geometry: Geometry) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Strides and kernels of the five encoder maps from nnU-Net's plans.

    The network downsamples five times (stem, max-pooling, E2, E3, E4): as the first five poolings of the plans do.
    Where the plans have fewer, the last maps keep their size, and where they have more, the deepest stages are unused;
    so patches that the plans allow always fit. Kernels are those of the stage that a map has the size of; the stem
    reads the image and has the kernel of the first.
    """
    strides = [tuple(int(s) for s in row) for row in geometry.strides[1:6]]
    strides += [(1,) * geometry.dim] * (5 - len(strides))
    kernels = [tuple(int(k) for k in row) for row in geometry.kernel_sizes]
    deeper = [kernels[min(stage, len(kernels) - 1)] for stage in range(2, 6)]
    return strides, [kernels[0], *deeper]


class _Decoder(nn.Module):
    """CE-Net's decoder: four upsampling blocks with additive skips, then the head. Holds nnU-Net's switch."""

    HEAD = 32

    def __init__(
        self,
        conv_op: type[nn.Module],
        norm: Callable[[int], nn.Module],
        channels: Sequence[int],
        strides: Sequence[tuple[int, ...]],
        kernels: Sequence[tuple[int, ...]],
        num_classes: int,
    ) -> None:
        super().__init__()
        self.deep_supervision = False
        inputs = [channels[4] + len(ResidualMultiKernelPooling.WINDOWS), *channels[3:0:-1]]
        self.blocks = nn.ModuleList(
            _up_block(conv_op, norm, inputs[4 - i], channels[i - 1], strides[i], kernels[i - 1]) for i in (4, 3, 2, 1)
        )
        padding = tuple(k // 2 for k in kernels[0])
        self.head = nn.Sequential(
            _transposed(conv_op, channels[0], self.HEAD, strides[0], kernels[0], even=True),
            nn.ReLU(inplace=True),
            conv_op(self.HEAD, self.HEAD, kernels[0], padding=padding),
            nn.ReLU(inplace=True),
        )
        self.seg_layers = nn.ModuleList([conv_op(self.HEAD, num_classes, kernels[0], padding=padding)])

    def forward(self, x: Tensor, skips: list[Tensor], stem_size: torch.Size, size: torch.Size) -> Tensor:
        """Logits ``(B, K, *size)`` from the bottleneck ``x (B, C_4 + 4, *S_4)`` and ``skips`` (E1, E2, E3)."""
        for block, skip in zip(self.blocks[:3], skips[::-1], strict=True):
            x = _crop(block(x), skip.shape[2:]) + skip
        x = _crop(self.blocks[3](x), stem_size)
        return self.seg_layers[0](_crop(self.head(x), size))


def _up_block(
    conv_op: type[nn.Module],
    norm: Callable[[int], nn.Module],
    inputs: int,
    outputs: int,
    stride: tuple[int, ...],
    kernel: tuple[int, ...],
) -> nn.Sequential:
    """To a quarter of the channels, up by a transposed convolution, to the channels of the skip."""
    narrow = inputs // 4
    layers = []
    for conv, width in (
        (conv_op(inputs, narrow, 1), narrow),
        (_transposed(conv_op, narrow, narrow, stride, kernel), narrow),
        (conv_op(narrow, outputs, 1), outputs),
    ):
        layers += [conv, norm(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _transposed(
    conv_op: type[nn.Module],
    inputs: int,
    outputs: int,
    stride: tuple[int, ...],
    kernel: tuple[int, ...],
    *,
    even: bool = False,
) -> nn.Module:
    """Transposed convolution that multiplies sizes by ``stride``; kernel 3 for stride 2, or 4 with ``even``."""
    transposed = {nn.Conv2d: nn.ConvTranspose2d, nn.Conv3d: nn.ConvTranspose3d}[conv_op]
    sizes, paddings, extras = [], [], []
    for s, k in zip(stride, kernel, strict=True):
        exact = even and s % 2 == 0
        sizes.append(2 * s if exact else max(k, 2 * s - 1))
        paddings.append(s // 2 if exact else sizes[-1] // 2)
        extras.append(0 if exact else s - 1)
    return transposed(inputs, outputs, tuple(sizes), stride, tuple(paddings), tuple(extras))


def _crop(x: Tensor, size: torch.Size) -> Tensor:
    """The first ``size`` voxels: downsampling rounds up, so upsampled maps of odd sizes are one voxel too long."""
    return x[(..., *(slice(n) for n in size))]
