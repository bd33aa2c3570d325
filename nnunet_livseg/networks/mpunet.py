"""MPU-Net: convolutions down to stride 8, position attention there, and four full-resolution maps, fused.

Yu and Han, MPU-Net, arXiv:2307.05799. The network is the authors' public one, which has the printed parameter count;
parts of the text that it lacks are options that change the count. Readings: docs/papers/mpunet.md.
"""

# Shape letters:  B batch, K classes, L level with the attention, C_i and E_i channels of the decoder and the encoder at
# level i, *S_i sizes of level i (level 0 is full resolution)

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import AttentionSpec
from nnunet_livseg.blocks.mpunet_stages import down
from nnunet_livseg.blocks.probability_fusion import FUSIONS
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import as_size
from nnunet_livseg.networks.mpunet_parts import Context, Decoder, Encoder, never_called
from nnunet_livseg.networks.norms import NORMS, norms
from nnunet_livseg.networks.outputs import TrainingOutput, level_strides
from nnunet_livseg.networks.planned import PlannedNetwork
from nnunet_livseg.networks.unet import Geometry

GATES = ("decoder", "skip", None)
SUPERVISIONS = ("code", "text")
ATTENTION_STRIDE = 8


def initialize(module: nn.Module) -> None:
    """He's initialization for PReLU's first slope, as in the authors' code."""
    InitWeights_He(0.25)(module)


class MPUNet(PlannedNetwork):
    """MPU-Net.

    The plans' widths are those of the decoder; the encoder, as in the paper, has half of them. Stages of the plans
    below the attention's level are not built, but the first of them lends its width to the layer before the attention.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of every output.
        heads: ``"softmax"``, or ``"sigmoid"`` for nnU-Net's regions: which probabilities are fused.
        gate: Input of the attention gates: ``"decoder"`` (the authors' code), ``"skip"`` (the text's Eq. 10, another
            parameter count), or ``None`` for no gates.
        multi_scale_block: Eqs. (14)-(17) instead of three convolutions in the decoder (another parameter count).
        pos_embed: Sizes of the attention's grid for a learned embedding, Eq. (2) (another parameter count).
        n_heads: More than one head: Eqs. (6) and (7) (another parameter count).
        norm: ``"batch"`` (paper), or ``"plans"`` for that of the plans.
        elu_alpha: ELU's alpha, or ``"channels"`` (a slip of the authors' code).
        dropout: Share of values that training drops.
        supervision: ``"code"``: the fused map and every map but the finest have the whole loss; ``"text"``: as Eq. (19)
            is printed, the overlap term of the fused map and the cross-entropy of all maps, each with weight 1.
        auxiliary_weight: Share of each map beside the fused one in the loss, with ``supervision="code"``.
        unused_layers: Add the 1,049,754 parameters that the authors' network has and never uses, frozen.
        deep_supervision: Whether ``forward`` returns all training outputs.
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.

    Raises:
        UserError: The plans are too shallow, or an option has a value that it cannot have.
    """

    TITLE = "MPU-Net"
    MIN_STAGES = 3

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        heads: str = "softmax",
        gate: str | None = "decoder",
        multi_scale_block: bool = False,
        pos_embed: Sequence[int] | None = None,
        n_heads: int = 1,
        norm: str = "batch",
        elu_alpha: float | str = 1.0,
        dropout: float = 0.2,
        supervision: str = "code",
        auxiliary_weight: float = 0.4,
        unused_layers: bool = False,
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        g = self.geometry
        self.require_known(heads=(heads, tuple(FUSIONS)), gate=(gate, GATES), norm=(norm, NORMS))
        self.require_known(supervision=(supervision, SUPERVISIONS))
        _require_classes(num_classes, heads)
        grid = None if pos_embed is None else _grid(pos_embed, g.dim)
        self.heads, self.supervision, self.auxiliary_weight = heads, supervision, auxiliary_weight
        self.level = attention_level(g.strides)
        self.stride = level_strides(g.strides)[self.level]
        make_norm, _ = norms(g, norm)
        downs = partial(down, g.conv_op, norm=make_norm, elu_alpha=elu_alpha)
        self.encoder = Encoder(input_channels, g, self.level, downs, dropout)
        self.context = Context(g, self.level, downs, make_norm, dropout, grid=grid, n_heads=n_heads)
        self.decoder = Decoder(num_classes, g, self.level, make_norm, dropout, gate, multi_scale_block)
        self.decoder.deep_supervision = deep_supervision
        self.unused = never_called(g, self.level, num_classes) if unused_layers else None

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``, or the list that ``training_outputs`` declares.

        Softmax (or sigmoid) of the first output gives the fused probabilities.
        """
        require_divisible(x, self.stride, self.TITLE)
        skips = self.encoder(x)
        maps = self.decoder(skips, self.context(skips[-1]))
        fused = FUSIONS[self.heads](maps)
        supervised = maps if self.supervision == "text" else maps[:-1]
        return [fused, *supervised] if self.decoder.deep_supervision else fused

    def training_outputs(self) -> list[TrainingOutput]:
        """The fused map and, coarsest first, the others; the finest has a loss of its own only in the text."""
        full = level_strides(self.geometry.strides)[0]
        if self.supervision == "text":
            maps = [TrainingOutput(f"p{i + 1}", full, 1.0, overlap_weight=0.0) for i in range(self.level + 1)]
            return [TrainingOutput("fused", full, 0.0, overlap_weight=1.0), *maps]
        maps = [TrainingOutput(f"p{i + 1}", full, self.auxiliary_weight) for i in range(self.level)]
        return [TrainingOutput("fused", full, 1.0), *maps]

    def attention_specs(self) -> list[AttentionSpec]:
        """PAM at the coarsest level, then the gates from there to full resolution."""
        gates = enumerate(self.decoder.gates or ())
        return self.context.attend.attention_specs(self.level) + [
            one for i, gate in gates for one in gate.attention_specs(self.level - i)
        ]

    initialize = staticmethod(initialize)


def attention_level(strides: Sequence[Sequence[int]]) -> int:
    """The level whose stride (geometric mean over the axes) is nearest 8; of two equally near ones the coarser."""
    volumes = np.log2([np.prod(stride) for stride in level_strides(strides)]) / len(strides[0])
    distances = np.abs(volumes - np.log2(ATTENTION_STRIDE)).round(6)
    return len(strides) - 1 - int(np.argmin(distances[::-1]))


class MultiOutputUNet(PlannedNetwork):
    """The U-Net that MPU-Net is compared with (2,326,638 parameters): one convolution per level, additive skips.

    Every level is followed by max pooling, every sum but the finest has a map of its own at full resolution, and the
    finest map is the prediction (the maps are not fused).

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of every output.
        auxiliary_weight: Share of each coarser map in the loss.
        deep_supervision: Whether ``forward`` returns all training outputs.
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``; the last width is not used.

    Raises:
        UserError: The plans are too shallow.
    """

    TITLE = "the U-Net of MPU-Net"
    MIN_STAGES = 3

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        auxiliary_weight: float = 0.4,
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        g = self.geometry
        self.auxiliary_weight = auxiliary_weight
        self.stride = level_strides(g.strides)[-1]
        widths = list(g.features_per_stage[:-1])
        inputs = [input_channels, *widths]
        self.encoder = nn.ModuleList(_same(g, inputs[i], width, g.kernel_sizes[i]) for i, width in enumerate(widths))
        self.decoder = nn.Module()
        self.decoder.deep_supervision = deep_supervision
        levels = range(len(widths) - 1, 0, -1)
        self.decoder.stages = nn.ModuleList(_same(g, widths[i], widths[i - 1], g.kernel_sizes[i + 1]) for i in levels)
        finest = [_same(g, widths[0], num_classes, g.kernel_sizes[1]), g.conv_op(num_classes, num_classes, 1)]
        self.decoder.seg_layers = nn.ModuleList([*finest, *(g.conv_op(widths[i], num_classes, 1) for i in levels)])
        self._pool = F.max_pool3d if g.dim == 3 else F.max_pool2d
        self._mode = "trilinear" if g.dim == 3 else "bilinear"

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``, or the list that ``training_outputs`` declares."""
        require_divisible(x, self.stride, self.TITLE)
        *skips, coarsest = self._encode(x)
        sums = [coarsest]
        for stage, skip in zip(self.decoder.stages, reversed(skips), strict=True):
            sums.append(self._up(stage(sums[-1]), skip.shape[2:]) + skip)
        last, finest, *heads = self.decoder.seg_layers
        logits = finest(self._up(last(sums[-1]), x.shape[2:]))
        if not self.decoder.deep_supervision:
            return logits
        maps = [head(features) for head, features in zip(heads, sums[:-1], strict=True)]
        return [logits, *(F.interpolate(coarse, x.shape[2:], mode=self._mode) for coarse in maps)]

    def _encode(self, x: Tensor) -> list[Tensor]:
        """What is left of every level after pooling, ``(B, C_i, *S_(i+1))``, finest first."""
        pooled = []
        for convolution, stride in zip(self.encoder, self.geometry.strides[1:], strict=True):
            x = F.relu(self._pool(convolution(x), tuple(stride)))
            pooled.append(x)
        return pooled

    def _up(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return F.relu(F.interpolate(x, size, mode=self._mode))

    def training_outputs(self) -> list[TrainingOutput]:
        """The finest map, then the others, coarsest first."""
        full = level_strides(self.geometry.strides)[0]
        coarser = [TrainingOutput(f"p{i + 1}", full, self.auxiliary_weight) for i in range(len(self.decoder.stages))]
        return [TrainingOutput("final", full, 1.0), *coarser]

    initialize = staticmethod(initialize)


def _same(g: Geometry, inputs: int, outputs: int, kernel: Sequence[int]) -> nn.Module:
    """A convolution that keeps the size."""
    return g.conv_op(inputs, outputs, tuple(kernel), padding=[k // 2 for k in kernel])


# --- what cannot be ---------------------------------------------------------------------------------------------------


def require_divisible(x: Tensor, stride: Sequence[int], network: str) -> None:
    """Reject an image ``x (B, channels, *S)`` whose sizes do not divide by the network's stride."""
    if any(size % s for size, s in zip(x.shape[2:], stride, strict=True)):
        raise UserError(
            f"{network} reduces an image by {as_size(stride)}, so it cannot read {as_size(x.shape[2:])} voxels."
            "\n  Every size must be divisible by its factor: choose such a patch with livseg plan --patch."
        )


def _require_classes(num_classes: int, heads: str) -> None:
    if heads == "softmax" and num_classes < 2:
        raise UserError(
            "MPU-Net has one output channel and softmax heads, so every probability would be 1."
            "\n  Train it on background and a class. For one region, use sigmoid heads (heads='sigmoid')."
        )


def _grid(sizes: Sequence[int], dim: int) -> tuple[int, ...]:
    if len(sizes) != dim or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise UserError(
            f"MPU-Net's option pos_embed is {sizes!r}, but must list the {dim} sizes of the attention's grid."
            "\n  The grid is the patch size divided by the stride of the attention's level, usually 8."
        )
    return tuple(sizes)
