"""The multi-phase networks that SAM + URIM compares with: MC-FCN, MW-UNet and PA-ResSeg.

Each phase has an encoder of its own. The phases are channels of the image, the one that the labels were drawn on first;
with one phase a network is what it is without fusion. Widths, kernels and strides are the plans'.
Readings: docs/papers/sam_urim.md.
"""

# Shape letters:  B batch, P phases, K classes, C_i channels and *S_i sizes of level i (level 0 is full resolution)

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import AttentionSpec
from nnunet_livseg.blocks.phase_attention import PhaseAttention
from nnunet_livseg.blocks.phase_fusion import ModalityWeighting
from nnunet_livseg.blocks.tensor_helpers import kernel_like, same_padding
from nnunet_livseg.networks.phase_encoder import PhaseChannels
from nnunet_livseg.networks.planned import PlannedNetwork
from nnunet_livseg.networks.resnet import BasicBlock
from nnunet_livseg.networks.unet import Geometry, Heads, build_encoder, build_unet, decode, keep_finest_head
from nnunet_livseg.networks.unet_relatives import PooledEncoder, two_convolutions


class _MultiPhase(PlannedNetwork, ABC):
    """An encoder per phase; a subclass builds them and its ``decoder``, and fuses in ``predict``.

    Args:
        input_channels: Channels of the image, phase by phase, then those of a cascade's previous stage.
        num_classes: Channels K of the output.
        image_channels: Channels of the image among the input; every phase gets those after them. ``None``: all.
        channels_per_phase: Channels that make one phase (3 where neighboring slices are channels).
        deep_supervision: Whether ``forward`` returns a list (of its one output).
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.

    Raises:
        UserError: The channels are no whole phases, or the plans are too shallow.
    """

    MIN_STAGES = 2

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        image_channels: int | None = None,
        channels_per_phase: int = 1,
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        image = input_channels if image_channels is None else image_channels
        self.channels = PhaseChannels(input_channels, image, channels_per_phase)
        self.phases = self.channels.phases
        self.build(num_classes)
        self.decoder.deep_supervision = deep_supervision

    @abstractmethod
    def build(self, num_classes: int) -> None:
        """Set ``encoder``, ``other_encoders``, ``fusions`` and ``decoder``."""

    @abstractmethod
    def predict(self, levels: Sequence[Sequence[Tensor]]) -> Tensor:
        """Logits ``(B, K, *s)`` of every level's maps ``(B, C_i, *S_i)`` of all phases, finest first."""

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``."""
        encoders = (self.encoder, *self.other_encoders)
        pyramids = [encoder(phase) for encoder, phase in zip(encoders, self.channels.split(x), strict=True)]
        logits = _resize(self.predict(list(zip(*pyramids, strict=True))), x.shape[2:])
        return [logits] if self.decoder.deep_supervision else logits


class MCFCN(_MultiPhase):
    """MC-FCN: a fully convolutional network per phase, whose features are concatenated before the classification.

    Sun et al., Artificial Intelligence in Medicine 2017; the network is FCN-8s (Long et al., CVPR 2015) on the plans'
    encoder, of which it takes at most six stages. Arguments: see ``_MultiPhase``.
    """

    TITLE = "MC-FCN"
    STAGES = 6  # stride 32 is FCN's deepest; its other two scores are at strides 16 and 8
    SCORES = 3

    def build(self, num_classes: int) -> None:
        """Encoders, two convolutions on every deepest map (FCN's fc6 and fc7), and the heads."""
        g = first_stages(self.geometry, min(self.STAGES, self.geometry.n_stages))
        self.scored = range(max(1, g.n_stages - self.SCORES), g.n_stages)
        deepest, kernel = g.features_per_stage[-1], kernel_like(3, g.kernel_sizes[-1])

        def dense() -> nn.Module:
            convs = (g.conv_op(deepest, deepest, k, padding=same_padding(k)) for k in (kernel, (1,) * g.dim))
            return nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU())))

        self.encoder = build_encoder(self.channels.stream, g)
        self.other_encoders = nn.ModuleList(build_encoder(self.channels.stream, g) for _ in range(1, self.phases))
        self.dense = nn.ModuleList(dense() for _ in range(self.phases))
        widths = [self.phases * g.features_per_stage[level] for level in self.scored]
        self.decoder = Heads([g.conv_op(width, num_classes, 1) for width in widths])

    def predict(self, levels: Sequence[Sequence[Tensor]]) -> Tensor:
        """The deepest scores, upsampled and added to the next finer ones, and so on (FCN-8s)."""
        *finer, deepest = (levels[level] for level in self.scored)
        deepest = [dense(phase) for dense, phase in zip(self.dense, deepest, strict=True)]
        scores = [
            head(torch.cat(list(phases), 1))
            for head, phases in zip(self.decoder.seg_layers, [*finer, deepest], strict=True)
        ]
        logits = scores.pop()
        while scores:
            finer = scores.pop()
            logits = finer + _resize(logits, finer.shape[2:])
        return logits


class MWUNet(_MultiPhase):
    """MW-UNet: a U-Net whose skips and bottleneck are sums of all phases, weighted by one trained number each.

    Wu et al., Hepatic lesion segmentation by combining plain and contrast-enhanced CT images with modality weighted
    U-Net, ICIP 2019; see ``blocks.phase_fusion.ModalityWeighting``. Arguments: see ``_MultiPhase``.
    """

    TITLE = "MW-UNet"

    def build(self, num_classes: int) -> None:
        """nnU-Net's encoders and one decoder."""
        g, stream = self.geometry, self.channels.stream
        self.encoder, self.decoder = build_unet(stream, num_classes, g, deep_supervision=False)
        self.other_encoders = nn.ModuleList(build_encoder(stream, g) for _ in range(1, self.phases))
        self.fusions = nn.ModuleList(ModalityWeighting(c, phases=self.phases) for c in g.features_per_stage)
        keep_finest_head(self.decoder)

    def predict(self, levels: Sequence[Sequence[Tensor]]) -> Tensor:
        """The U-Net's decoder on the weighted sums."""
        skips = [fusion(maps)[0] for fusion, maps in zip(self.fusions, levels, strict=True)]
        return self.decoder.seg_layers[-1](decode(self.decoder, skips)[0])

    def attention_specs(self) -> list[AttentionSpec]:
        """The weights of the phases at every level."""
        return [one for level, fusion in enumerate(self.fusions) for one in fusion.attention_specs(level)]


class PAResSeg(_MultiPhase):
    """PA-ResSeg: residual encoders, phase attention at every level, and all levels upsampled to full resolution.

    Xu et al., PA-ResSeg: A phase attention residual network for liver tumor segmentation from multiphase CT images,
    Medical Physics 2021; see ``blocks.phase_attention`` for what differs from the authors' code in it. No bias
    stands before a normalization. Arguments: see ``_MultiPhase``.
    """

    TITLE = "PA-ResSeg"
    BRANCH, WIDEST = 16, 256  # channels of a level at full resolution, and on the way there

    def build(self, num_classes: int) -> None:
        """Residual encoders, the fusions, and a chain of transposed convolutions per level."""
        g = self.geometry
        encoder = partial(PooledEncoder, self.channels.stream, g, partial(_residual_stage, g))
        self.encoder, self.other_encoders = encoder(), nn.ModuleList(encoder() for _ in range(1, self.phases))
        self.fusions = nn.ModuleList(
            PhaseAttention(c, phases=self.phases, conv_op=g.conv_op, norm=g.norm, kernel_size=g.kernel_sizes[i])
            for i, c in enumerate(g.features_per_stage)
        )
        width = self.BRANCH * g.n_stages
        self.decoder = Heads([g.conv_op(width, num_classes, 1)])
        self.decoder.branches = nn.ModuleList(
            self._to_full_resolution(level, fusion.out_channels) for level, fusion in enumerate(self.fusions)
        )
        self.decoder.join = _convolve(g, width, width)

    def _to_full_resolution(self, level: int, channels: int) -> nn.Module:
        """Transposed convolutions that double the resolution and halve the channels, to ``BRANCH`` of them."""
        g, steps = self.geometry, []
        for deeper in range(level, 0, -1):
            width = min(self.WIDEST, self.BRANCH * 2 ** (deeper - 1))
            steps.append(nn.Sequential(_doubling(g, channels, width, g.strides[deeper]), g.norm(width), nn.ReLU()))
            channels = width
        return nn.Sequential(*steps) if steps else _convolve(g, channels, self.BRANCH)

    def predict(self, levels: Sequence[Sequence[Tensor]]) -> Tensor:
        """All fused levels at full resolution, concatenated and convolved."""
        fused = [fusion(maps)[0] for fusion, maps in zip(self.fusions, levels, strict=True)]
        maps = [branch(level) for branch, level in zip(self.decoder.branches, fused, strict=True)]
        return self.decoder.seg_layers[0](self.decoder.join(torch.cat(maps, 1)))

    def attention_specs(self) -> list[AttentionSpec]:
        """The channel weights of the other phases at every level."""
        return [one for level, fusion in enumerate(self.fusions) for one in fusion.attention_specs(level)]


def first_stages(g: Geometry, stages: int) -> Geometry:
    """The geometry without the stages after the first ``stages``."""
    per_stage = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")
    cut = {name: getattr(g, name)[:stages] for name in per_stage if getattr(g, name) is not None}
    return replace(g, n_stages=stages, n_conv_per_stage_decoder=g.n_conv_per_stage_decoder[: stages - 1], **cut)


def _residual_stage(g: Geometry, inputs: int, outputs: int, level: int) -> nn.Module:
    """Two residual blocks; two plain convolutions at full resolution."""
    if level == 0:
        return two_convolutions(g, inputs, outputs, level)
    one = (1,) * g.dim
    shape = {"kernel": g.kernel_sizes[level], "stride": one, "groups": 1, "dilation": one}
    return nn.Sequential(*(BasicBlock(n, outputs, outputs, g.conv_op, g.norm, **shape) for n in (inputs, outputs)))


def _convolve(g: Geometry, inputs: int, outputs: int) -> nn.Module:
    kernel = kernel_like(3, g.kernel_sizes[0])
    conv = g.conv_op(inputs, outputs, kernel, padding=same_padding(kernel), bias=False)
    return nn.Sequential(conv, g.norm(outputs), nn.ReLU())


def _doubling(g: Geometry, inputs: int, outputs: int, stride: Sequence[int]) -> nn.Module:
    """Transposed convolution that multiplies sizes by ``stride``; kernel 4 for stride 2, and 1 for 1."""
    kind = {nn.Conv2d: nn.ConvTranspose2d, nn.Conv3d: nn.ConvTranspose3d}[g.conv_op]
    kernel = tuple(2 * s if s % 2 == 0 else s for s in stride)
    return kind(
        inputs,
        outputs,
        kernel,
        tuple(stride),
        tuple((k - s) // 2 for k, s in zip(kernel, stride, strict=True)),
        bias=False,
    )


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    mode = "trilinear" if x.ndim == 5 else "bilinear"
    return x if x.shape[2:] == tuple(size) else F.interpolate(x, tuple(size), mode=mode, align_corners=False)
