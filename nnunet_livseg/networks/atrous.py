"""Segmentation from a dilated ResNet without a decoder: DANet and DeepLabv3.

The ResNet follows strides and kernels of nnU-Net's plans as MFCNet's does (``networks.mfcnet.plan_geometry``); its last
layers keep their resolution and are dilated instead. In 2D on plans with five poolings these are the published
networks; DeepLabv3 is then torchvision's, weight for weight.
"""

# Shape letters:  B batch, K classes, C channels of the ResNet's last map, D = C / 4, *s its sizes, *S the image's

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.aspp import AtrousSpatialPyramidPooling
from nnunet_livseg.blocks.attention_spec import AttentionSpec
from nnunet_livseg.blocks.context import ChannelContext
from nnunet_livseg.blocks.position_attention import PositionAttention
from nnunet_livseg.blocks.tensor_helpers import kernel_like, same_padding
from nnunet_livseg.networks.mfcnet import plan_geometry
from nnunet_livseg.networks.norms import NORMS, norms
from nnunet_livseg.networks.outputs import TrainingOutput
from nnunet_livseg.networks.planned import PlannedNetwork
from nnunet_livseg.networks.resnet import Bottleneck, ResNetEncoder
from nnunet_livseg.networks.unet import Heads, initialize

RESNET50, RESNET101 = (3, 4, 6, 3), (3, 4, 23, 3)
Norm = Callable[[int], nn.Module]


class _DilatedResNet(PlannedNetwork, ABC):
    """The encoder of both networks; a subclass says how many layers are dilated and adds its ``decoder``.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of every output.
        layers: Blocks of every layer: ``[3, 4, 6, 3]`` is ResNet-50, ``[3, 4, 23, 3]`` ResNet-101.
        width: Channels of the stem; ResNet's 64 where the plans' first stage has nnU-Net's 32. ``None``: twice those of
            the plans' first stage, at most 64. ImageNet weights need 64.
        norm: ``"batch"`` (ResNet's) or ``"plans"`` (nnU-Net's instance normalization).
        weights: Encoder weights that ``load_pretrained`` loads: ``None``, ``"imagenet"`` or a file; see
            ``ResNetEncoder.load_weights``.
        deep_supervision: Whether ``forward`` returns all training outputs.
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.
    """

    MIN_STAGES = 3
    LAYERS: Sequence[int]  # of the row that the papers compare with
    DILATED: int  # number of last layers without stride

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        layers: Sequence[int] | None = None,
        width: int | None = None,
        norm: str = "batch",
        weights: str | None = None,
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        g, self.weights = self.geometry, weights
        self.require_known(norm=(norm, NORMS))
        strides, kernels = plan_geometry(g)
        make_norm, pooled_norm = norms(g, norm)
        self.encoder = ResNetEncoder(
            input_channels,
            conv_op=g.conv_op,
            block="bottleneck",
            layers=tuple(layers or self.LAYERS),
            width=width or min(64, 2 * g.features_per_stage[0]),
            norm=make_norm,
            strides=strides,
            kernel_sizes=kernels,
            dilated=self.DILATED,
        )
        self.decoder = self.build_head(num_classes, kernels[-1], make_norm, pooled_norm)
        self.decoder.deep_supervision = deep_supervision

    @abstractmethod
    def build_head(self, num_classes: int, kernel_size: Sequence[int], norm: Norm, pooled_norm: Norm) -> Heads:
        """What follows the encoder; returns a list of logits, the prediction first."""

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S)`` of ``x (B, channels, *S)``, or the list that ``training_outputs`` declares."""
        outputs = self.decoder(self.encoder(x)[-1])
        mode = "trilinear" if self.geometry.dim == 3 else "bilinear"
        supervised = self.decoder.deep_supervision
        outputs = outputs if supervised else outputs[:1]
        resized = [F.interpolate(logits, x.shape[2:], mode=mode, align_corners=False) for logits in outputs]
        return resized if supervised else resized[0]

    def load_pretrained(self) -> str | None:
        """Load the encoder weights that the option ``weights`` names; returns a line for the log."""
        return None if self.weights is None else self.encoder.load_weights(self.weights)

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """nnU-Net's initialization; blocks start as the identity (Goyal et al. 2017), for want of ImageNet weights."""
        initialize(module)
        if isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)


class DeepLabV3(_DilatedResNet):
    """DeepLabv3 at output stride 16 with ResNet-101, as SFAN compares with.

    Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, arXiv:1706.05587: the last layer is
    dilated, ASPP has the rates 6, 12 and 18. torchvision's form: the last layer has no multi-grid, and a 3x3
    convolution stands before the head. Arguments: see ``_DilatedResNet``.
    """

    TITLE = "DeepLabv3"
    LAYERS, DILATED = RESNET101, 1

    def build_head(self, num_classes: int, kernel_size: Sequence[int], norm: Norm, pooled_norm: Norm) -> Heads:
        """ASPP, a 3x3 convolution and the head."""
        return _DeepLabHead(
            self.encoder.channels[-1],
            4 * self.encoder.channels[0],
            num_classes,
            conv_op=self.geometry.conv_op,
            norm=norm,
            pooled_norm=pooled_norm,
            kernel_size=kernel_size,
        )


class DANet(_DilatedResNet):
    """DANet at output stride 8 with ResNet-50: position and channel attention on the last map, summed.

    Fu et al., Dual Attention Network for Scene Segmentation, CVPR 2019. Both attentions predict as well and are trained
    with the sum's prediction, each with weight 1, as in the authors' training code. Different from that code: no
    multi-grid in the last layer and no auxiliary head. The position attention never makes its N x N map (N is 4096 at
    512^2 and at 128^3). Arguments: see ``_DilatedResNet``.
    """

    TITLE = "DANet"
    LAYERS, DILATED = RESNET50, 2

    def build_head(self, num_classes: int, kernel_size: Sequence[int], norm: Norm, pooled_norm: Norm) -> Heads:
        """Both attentions and their heads."""
        channels = self.encoder.channels[-1]
        return _DualAttentionHead(channels, num_classes, self.geometry.conv_op, norm, kernel_size)

    def training_outputs(self) -> list[TrainingOutput]:
        """The prediction, and those of either attention alone; each with weight 1."""
        full = (1,) * self.geometry.dim
        return [TrainingOutput(name, full, 1.0) for name in ("final", "position", "channel")]

    def attention_specs(self) -> list[AttentionSpec]:
        """Both attentions, on the ResNet's last map."""
        position, channel = self.decoder.position.attention, self.decoder.channel.attention
        source = "DANet, Eq. ({}) (MFCNet, Table 1)"
        return [
            *(replace(one, source=source.format(1)) for one in position.attention_specs(4)),
            *(replace(one, source=source.format(3)) for one in channel.attention_specs(4)),
        ]


class _DeepLabHead(Heads):
    def __init__(
        self,
        channels: int,
        width: int,
        num_classes: int,
        *,
        conv_op: type[nn.Module],
        norm: Norm,
        pooled_norm: Norm,
        kernel_size: Sequence[int],
    ) -> None:
        super().__init__([conv_op(width, num_classes, 1)])
        shared = {"conv_op": conv_op, "norm": norm, "pooled_norm": pooled_norm, "kernel_size": kernel_size}
        self.aspp = AtrousSpatialPyramidPooling(channels, width, **shared)
        self.refine = _convolve(conv_op, width, width, norm, kernel_size)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``x (B, C, *s)`` to ``[(B, K, *s)]``."""
        return [self.seg_layers[0](self.refine(self.aspp(x)))]


class _AttendedBranch(nn.Module):
    """An attention between two 3x3 convolutions, the first to D channels."""

    def __init__(self, attention: nn.Module, before: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.before, self.attention, self.after = before, attention, after

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *s)`` to ``(B, D, *s)``."""
        x = self.before(x)
        return self.after(self.attention(x).to(x.dtype))


class _DualAttentionHead(Heads):
    DROPOUT = 0.1

    def __init__(
        self, channels: int, num_classes: int, conv_op: type[nn.Module], norm: Norm, kernel_size: Sequence[int]
    ) -> None:
        width = channels // 4
        super().__init__([conv_op(width, num_classes, 1) for _ in range(3)])

        def branch(attention: nn.Module) -> nn.Module:
            convs = (_convolve(conv_op, inputs, width, norm, kernel_size) for inputs in (channels, width))
            return _AttendedBranch(attention, *convs)

        self.position = branch(PositionAttention(width, conv_op=conv_op))
        self.channel = branch(ChannelContext(energy="danet"))
        self.dropout = {nn.Conv2d: nn.Dropout2d, nn.Conv3d: nn.Dropout3d}[conv_op](self.DROPOUT)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``x (B, C, *s)`` to three ``(B, K, *s)``: of the sum, of the position and of the channel attention."""
        position, channel = self.position(x), self.channel(x)
        maps = (position + channel, position, channel)
        return [head(self.dropout(part)) for head, part in zip(self.seg_layers, maps, strict=True)]


def _convolve(
    conv_op: type[nn.Module], inputs: int, outputs: int, norm: Norm, kernel_size: Sequence[int]
) -> nn.Sequential:
    kernel = kernel_like(3, kernel_size)
    conv = conv_op(inputs, outputs, kernel, padding=same_padding(kernel), bias=False)
    return nn.Sequential(conv, norm(outputs), nn.ReLU())
