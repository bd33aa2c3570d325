"""ResNet and ResNeXt encoders in two and three dimensions, with torchvision's parameter names.

He et al., Deep Residual Learning, CVPR 2016; Xie et al., Aggregated Residual Transformations, CVPR 2017.
In 2D with the default strides the maps are torchvision's to the bit, and its ImageNet weights fit (``load_weights``).
Our extension: kernels and strides per axis, so that the encoder follows nnU-Net's anisotropic plans.
Dilated layers, which keep their resolution, are torchvision's ``replace_stride_with_dilation`` (Yu et al., 2017).
"""

# Shape letters:  B batch, C_i channels and *S_i sizes of map i (map 0 is the stem's, map i that of layer i)

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from nnunet_livseg.blocks.tensor_helpers import same_padding
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.resnet_weights import fitted_weights

PerAxis = Sequence[int]
Norm = Callable[[int], nn.Module]


class ResNetEncoder(nn.Module):
    """Feature maps of a ResNet: the stem's (before the max-pooling), then those of every layer.

    Args:
        input_channels: Channels of the image.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        block: ``"basic"`` (ResNet-18, -34) or ``"bottleneck"`` (ResNet-50 and deeper, ResNeXt).
        layers: Blocks per layer; one map each, after the stem's.
        width: Channels of stem and first layer; they double per layer (times 4 with ``"bottleneck"``).
        groups: Groups of the bottleneck's 3x3 convolution (32 in ResNeXt-50 32x4d).
        width_per_group: Its channels per group where ``width`` is 64 (4 in ResNeXt-50 32x4d).
        norm: ``"batch"``, or what makes a normalization for a number of channels (that of nnU-Net's plans).
        strides: Per map and axis, the factor from the previous map to this one (the first: from the image), as
            nnU-Net's plans list them per stage. Map 1 is reached by max-pooling, which falls away where its strides
            are all 1. ``None``: 2 everywhere.
        kernel_sizes: Per map and axis, as in nnU-Net's plans; where they have 1, so do all kernels, the stem's 7
            too. ``None``: 3 everywhere.
        dilated: Number of last layers whose strides become dilations.

    Attributes:
        channels: C_i of every map.
        strides: As the argument, filled in; 1 in dilated layers.

    Raises:
        UserError: An unknown block, or ``strides`` or ``kernel_sizes`` of the wrong shape.
    """

    def __init__(
        self,
        input_channels: int,
        *,
        conv_op: type[nn.Module],
        block: str = "basic",
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        groups: int = 1,
        width_per_group: int = 64,
        norm: str | Norm = "batch",
        strides: Sequence[PerAxis] | None = None,
        kernel_sizes: Sequence[PerAxis] | None = None,
        dilated: int = 0,
    ) -> None:
        super().__init__()
        if block not in BLOCKS:
            raise UserError(f"a ResNet has no block {block!r}; known: {', '.join(BLOCKS)}.")
        dim, maps, kind = {nn.Conv2d: 2, nn.Conv3d: 3}[conv_op], len(layers) + 1, BLOCKS[block]
        self.strides = _per_map("strides", strides, maps, dim, default=2)
        kernels = _per_map("kernel_sizes", kernel_sizes, maps, dim, default=3)
        norm = _norm(norm, dim)
        self.architecture = (block, tuple(layers), width, groups, width_per_group)
        self.conv1 = _conv(conv_op, input_channels, width, [7 if k > 1 else 1 for k in kernels[0]], self.strides[0])
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = _max_pool(self.strides[1])
        self.channels, inner, dilation = [width], width, (1,) * dim
        for i in range(1, maps):
            first_dilation = dilation  # torchvision: the first block has that of the layer before
            if i > len(layers) - dilated:
                dilation = tuple(d * s for d, s in zip(dilation, self.strides[i], strict=True))
                self.strides[i] = (1,) * dim
            stride = (1,) * dim if i == 1 else self.strides[i]
            planes = width * 2 ** (i - 1)
            if block == "bottleneck":
                inner = int(planes * width_per_group / 64) * groups
            outputs = planes * kind.expansion
            blocks = []
            for j in range(layers[i - 1]):
                inputs = self.channels[-1] if j == 0 else outputs
                first = stride if j == 0 else (1,) * dim
                shape = {"kernel": kernels[i], "stride": first, "groups": groups}
                shape["dilation"] = first_dilation if j == 0 else dilation
                blocks.append(kind(inputs, inner if block == "bottleneck" else planes, outputs, conv_op, norm, **shape))
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
            self.channels.append(outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        """All maps ``(B, C_i, *S_i)`` of ``x (B, channels, *S)``, finest first; sizes are rounded up."""
        maps = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(maps[0])
        for i in range(1, len(self.channels)):
            x = getattr(self, f"layer{i}")(x)
            maps.append(x)
        return maps

    def load_weights(self, source: str | Path) -> str:
        """Load ImageNet weights; returns a line for the log. Call it after nnU-Net's initialization.

        Args:
            source: ``"imagenet"`` (timm downloads torchvision's), or a local ``.pth`` or ``.safetensors`` file with a
                state dict of torchvision or timm. The first convolution is adapted to other numbers of channels, and
                kernels are inflated along the third axis, so that an image of equal channels and slices keeps its
                response.

        Raises:
            UserError: No network, no such file, or weights of another architecture.
        """
        weights, line = fitted_weights(self, source, self.architecture)
        self.load_state_dict(weights)
        return line


class BasicBlock(nn.Module):
    """Two convolutions and the identity (or a strided 1x1 convolution) beside them."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        planes: int,
        outputs: int,
        conv_op: type[nn.Module],
        norm: Norm,
        *,
        kernel: PerAxis,
        stride: PerAxis,
        groups: int,
        dilation: PerAxis,
    ) -> None:
        super().__init__()
        if groups != 1:
            raise UserError(f"groups is {groups}, but basic blocks have one group.\n  Use block='bottleneck'.")
        self.conv1 = _conv(conv_op, inputs, planes, kernel, stride, dilation=dilation)
        self.bn1 = norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(conv_op, planes, outputs, kernel, dilation=dilation)
        self.bn2 = norm(outputs)
        self.downsample = _shortcut(conv_op, inputs, outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, *S)`` to ``(B, outputs, *S / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided, in groups) and 1x1 convolution, and the identity or a strided 1x1 convolution beside them."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        planes: int,
        outputs: int,
        conv_op: type[nn.Module],
        norm: Norm,
        *,
        kernel: PerAxis,
        stride: PerAxis,
        groups: int,
        dilation: PerAxis,
    ) -> None:
        super().__init__()
        one = (1,) * len(kernel)
        self.conv1 = _conv(conv_op, inputs, planes, one)
        self.bn1 = norm(planes)
        self.conv2 = _conv(conv_op, planes, planes, kernel, stride, groups, dilation)
        self.bn2 = norm(planes)
        self.conv3 = _conv(conv_op, planes, outputs, one)
        self.bn3 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(conv_op, inputs, outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, *S)`` to ``(B, outputs, *S / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _conv(
    conv_op: type[nn.Module],
    inputs: int,
    outputs: int,
    kernel: PerAxis,
    stride: PerAxis | int = 1,
    groups: int = 1,
    dilation: PerAxis | None = None,
) -> nn.Module:
    dilation = tuple(1 if k == 1 else d for k, d in zip(kernel, dilation or (1,) * len(kernel), strict=True))
    padding = same_padding(kernel, dilation)
    return conv_op(inputs, outputs, tuple(kernel), stride, padding, groups=groups, bias=False, dilation=dilation)


def _shortcut(conv_op: type[nn.Module], inputs: int, outputs: int, stride: PerAxis, norm: Norm) -> nn.Sequential | None:
    if inputs == outputs and max(stride) == 1:
        return None
    return nn.Sequential(_conv(conv_op, inputs, outputs, (1,) * len(stride), stride), norm(outputs))


def _max_pool(stride: PerAxis) -> nn.Module:
    """Kernel 3 for stride 2, as torchvision; every voxel is in a window and sizes are rounded up."""
    if max(stride) == 1:
        return nn.Identity()
    pool = {2: nn.MaxPool2d, 3: nn.MaxPool3d}[len(stride)]
    return pool(tuple(2 * s - 1 for s in stride), tuple(stride), tuple(s - 1 for s in stride))


def _norm(norm: str | Norm, dim: int) -> Norm:
    if norm == "batch":
        return {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dim]
    if isinstance(norm, str):
        raise UserError(f"norm is {norm!r}, but must be 'batch' or a function that makes a normalization.")
    return norm


def _per_map(
    name: str, values: Sequence[PerAxis] | None, maps: int, dim: int, *, default: int
) -> list[tuple[int, ...]]:
    values = [(default,) * dim] * maps if values is None else [tuple(int(v) for v in row) for row in values]
    if len(values) != maps or {len(row) for row in values} != {dim}:
        raise UserError(
            f"{name} of a ResNet with {maps - 1} layers in {dim}D needs {maps} entries (stem, then layers) of {dim} "
            f"numbers, but is {values}."
        )
    return values
