"""DPC-Net: a U-Net pyramid, refined level by level with its finer (SpaCor) and coarser (SemCor) neighbors.

Zhang et al., Decoupled Pyramid Correlation Network for Liver Tumor Segmentation from CT images, Medical Physics 2022.
Readings of what the paper leaves open: docs/papers/dpcnet.md.
"""

# Shape letters:  B batch, K classes, C_i channels and *S_i sizes of level i (level 0 is full resolution)

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import AttentionSpec, output_features
from nnunet_livseg.blocks.pointwise import as_pointwise, pointwise
from nnunet_livseg.blocks.semcor import SemanticCorrelation
from nnunet_livseg.blocks.spacor import SpatialCorrelation, channel_statistics
from nnunet_livseg.networks.outputs import TrainingOutput, level_strides, nnunet_weights
from nnunet_livseg.networks.planned import PlannedNetwork
from nnunet_livseg.networks.unet import Geometry, Heads, build_unet, decode

SUPERVISIONS = {
    "nnunet": nnunet_weights,
    "paper": lambda levels: [1 / (2**i * levels) for i in range(levels)],  # Eq. (13)
}


class DPCNet(PlannedNetwork):
    """DPC-Net and the ablations of its Tables 1 to 3.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels K of every output.
        spacor: Pooling of SpaCor (``"avg"``, ``"max"``, ``"both"``), or ``None`` to leave SpaCor out.
        semcor: Pooling of SemCor, or ``None`` to leave SemCor out.
        order: ``"spacor_first"`` or ``"semcor_first"`` (Table 4).
        supervise_pyramid: Whether the pyramid's own levels have heads and losses (the paper's PFE).
        final: The prediction: ``"finest"`` (the last map at full resolution) or ``"mean"`` of all levels' finest maps.
        supervision: Weights of the levels: ``"nnunet"`` or ``"paper"``.
        downsampling: See ``networks.unet.DOWNSAMPLINGS``.
        bottleneck_in_pyramid: Whether the encoder's last stage is the pyramid's coarsest level (plain 3D U-Net).
        spacor_descriptor, semcor_shared_mlp, semcor_reduction, semcor_g: Readings of the modules, see ``blocks``.
        deep_supervision: Whether ``forward`` returns all training outputs.
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.

    Raises:
        UserError: The plans are too shallow, or an option has an unknown value.
    """

    TITLE = "DPC-Net"
    MIN_STAGES = 3

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        spacor: str | None = "both",
        semcor: str | None = "both",
        order: str = "spacor_first",
        supervise_pyramid: bool = True,
        final: str = "finest",
        supervision: str = "nnunet",
        downsampling: str = "strided",
        bottleneck_in_pyramid: bool = False,
        spacor_descriptor: str = "sum",
        semcor_shared_mlp: bool = False,
        semcor_reduction: int = 1,
        semcor_g: bool = True,
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        self.require_known(order=(order, ("spacor_first", "semcor_first")), final=(final, ("finest", "mean")))
        self.require_known(supervision=(supervision, SUPERVISIONS))
        self.order, self.final, self.supervision = order, final, supervision
        self.bottleneck_in_pyramid = bottleneck_in_pyramid
        g = self.geometry
        self.encoder, self.decoder = build_unet(
            input_channels, num_classes, g, deep_supervision=deep_supervision, downsampling=downsampling
        )
        self.levels = g.n_stages if bottleneck_in_pyramid else g.n_stages - 1
        channels = list(g.features_per_stage[: self.levels])
        self.spacor = self.semcor = None
        if spacor is not None:
            self.spacor = _Family(
                (
                    SpatialCorrelation(
                        channels[i],
                        conv_op=g.conv_op,
                        kernel_size=tuple(g.kernel_sizes[i - 1]),  # where the attention lives
                        stride=tuple(g.strides[i]),
                        pooling=spacor,
                        descriptor=spacor_descriptor,
                    )
                    for i in range(1, self.levels)
                ),
                first_level=1,
                heads=[_head(g, channels[i], num_classes) for i in range(1, self.levels)],
            )
        if semcor is not None:
            self.semcor = _Family(
                (
                    SemanticCorrelation(
                        channels[i],
                        channels[i + 1],
                        conv_op=g.conv_op,
                        pooling=semcor,
                        shared_mlp=semcor_shared_mlp,
                        reduction=semcor_reduction,
                        g=semcor_g,
                    )
                    for i in range(self.levels - 1)
                ),
                first_level=0,
                heads=[_head(g, channels[i], num_classes) for i in range(self.levels - 1)],
            )
        self._keep_heads(supervise_pyramid, num_classes)

    def _keep_heads(self, supervise_pyramid: bool, num_classes: int) -> None:
        """Drop the pyramid's heads that no output uses: DDP stops at unused parameters."""
        finest = len(self.decoder.seg_layers) - 1
        for stage in range(finest + 1):
            needed = supervise_pyramid or (self.semcor is None and stage == finest)
            head = self.decoder.seg_layers[stage]
            self.decoder.seg_layers[stage] = as_pointwise(head) if needed else nn.Identity()
        self.supervise_pyramid = supervise_pyramid
        self.bottleneck_head = None
        if supervise_pyramid and self.bottleneck_in_pyramid:
            self.bottleneck_head = Heads([_head(self.geometry, self.geometry.features_per_stage[-1], num_classes)])

    # --- what is computed -------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S_0)`` of ``x (B, channels, *S_0)``, or the list that ``training_outputs`` declares."""
        pyramid = self.pyramid(x)
        names = self._names if self.decoder.deep_supervision else self._names[:1]
        refined = self._refine(pyramid, names)
        outputs = [self._output(name, refined) for name in names]
        return outputs if self.decoder.deep_supervision else outputs[0]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Pyramid levels ``F_i (B, C_i, *S_i)`` of the U-Net (PFE), finest first."""
        skips = self.encoder(x)
        levels = decode(self.decoder, skips)
        return [*levels, skips[-1]] if self.bottleneck_in_pyramid else levels

    def _refine(self, pyramid: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        """Both families' inputs: levels before SpaCor and SemCor, as far as the outputs ``names`` need them."""
        refined = {"pfe": pyramid}
        everything = names != self._names[:1] or self.final == "mean"
        if self.spacor is None:
            return refined | {"spa": pyramid}
        if self.order == "semcor_first" and self.semcor is not None:
            last = self.levels - 1 if everything else 1
            refined["sem"] = [self.semcor[i](pyramid[i], pyramid[i + 1]) for i in range(last)]
            pyramid = [*refined["sem"], pyramid[-1]]
            if not everything:
                return refined  # the finest SemCor level is the prediction; SpaCor refines the coarser ones
        last = self.levels if everything else 2
        statistics = [channel_statistics(level) for level in pyramid[:last]]
        spa = [self.spacor[i](pyramid[i], statistics[i], statistics[i - 1]) for i in range(1, last)]
        return refined | {"spa": [pyramid[0], *spa]}  # Eq. (7) needs level 0, which SpaCor does not change

    def _output(self, name: str, refined: dict[str, list[Tensor]]) -> Tensor:
        if name == "mean":
            return self._mean(refined)
        family, level = name[:3], int(name[3:])
        if family == "sem":
            head = self.semcor.head(level)
            if "sem" in refined:
                return head(refined["sem"][level])
            return self.semcor[level](refined["spa"][level], refined["spa"][level + 1], head)
        if family == "spa":
            return self.spacor.head(level)(refined["spa"][level])
        if level == len(self.decoder.seg_layers):
            return self.bottleneck_head.seg_layers[0](refined["pfe"][level])
        return self.decoder.seg_layers[-1 - level](refined["pfe"][level])

    def _mean(self, refined: dict[str, list[Tensor]]) -> Tensor:
        mode = "trilinear" if self.geometry.dim == 3 else "bilinear"
        outputs = [self._output(name, refined) for name in self._best_per_level()]
        size = outputs[0].shape[2:]
        return sum(F.interpolate(output, size, mode=mode, align_corners=False) for output in outputs) / len(outputs)

    # --- what is declared -------------------------------------------------------------------------------------------

    def _available(self) -> list[list[str]]:
        """Names of the outputs that each level has, the last one computed first."""
        levels = [[] for _ in range(self.levels)]
        for i, names in enumerate(levels):
            sem = ["sem"] if self.semcor is not None and i < self.levels - 1 else []
            spa = ["spa"] if self.spacor is not None and i > 0 else []
            names += [*spa, *sem] if self.order == "semcor_first" and i > 0 else [*sem, *spa]
            if self.supervise_pyramid or (i == 0 and not names):
                names.append("pfe")
            names[:] = [f"{name}{i}" for name in names]
        return levels

    def _best_per_level(self) -> list[str]:
        return [names[0] for names in self._available() if names]

    @property
    def _names(self) -> list[str]:
        """All outputs: nnU-Net's own scales first (a stock trainer stops after them), then what remains."""
        available = self._available()
        first = self._best_per_level()
        rest = [name for names in available for name in names[1:]]
        return (["mean", *first[1:], first[0]] if self.final == "mean" else first) + rest

    def training_outputs(self) -> list[TrainingOutput]:
        """The outputs that ``forward`` returns under deep supervision, in order; Eq. (13)."""
        strides = level_strides(self.geometry.strides)
        weights = SUPERVISIONS[self.supervision](self.levels)
        if self._names == ["pfe0"]:
            weights = [1.0]  # a plain U-Net: one output, no deep supervision
        return [
            TrainingOutput("mean", strides[0], 0.0)
            if name == "mean"
            else TrainingOutput(name, strides[int(name[3:])], weights[int(name[3:])])
            for name in self._names
        ]

    def attention_specs(self) -> list[AttentionSpec]:
        """The pyramid and what both families show at each level; nothing where there is neither family."""
        if self.spacor is None and self.semcor is None:
            return []
        stages = [*reversed(self.decoder.stages), self.encoder.stages[-1]]
        pyramid = [
            output_features("pyramid", "Pyramid: features", "DPC-Net, Fig. 5", level, stages[level])
            for level in range(self.levels)
        ]
        families = [family for family in (self.spacor, self.semcor) if family is not None]
        return pyramid + [one for family in families for one in family.attention_specs()]


class _Family(Heads):
    """The modules of one kind, one per level, and their heads; indexed by level."""

    def __init__(self, modules: Sequence[nn.Module], *, first_level: int, heads: list[nn.Module]) -> None:
        super().__init__(heads)
        self.modules_per_level = nn.ModuleList(modules)
        self.first_level = first_level

    def __getitem__(self, level: int) -> nn.Module:
        return self.modules_per_level[level - self.first_level]

    def head(self, level: int) -> nn.Module:
        return self.seg_layers[level - self.first_level]

    def attention_specs(self) -> list[AttentionSpec]:
        return [
            one
            for level, module in enumerate(self.modules_per_level, self.first_level)
            for one in module.attention_specs(level)
        ]


def _head(geometry: Geometry, channels: int, num_classes: int) -> nn.Module:
    return pointwise(geometry.conv_op, channels, num_classes)
