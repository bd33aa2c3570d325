"""SAM + URIM: one stream per contrast phase, fused level by level, and a correction of unsure positions.

Zhang et al., Multi-phase Liver Tumor Segmentation with Spatial Aggregation and Uncertain Region Inpainting, MICCAI
2021. Readings of what the paper leaves open: docs/papers/sam_urim.md.
"""

# Shape letters:  B batch, P phases, K classes, C_i channels and *S_i sizes of fused level i (0 is the finest),
#                 F features of the decoder, *S sizes of the image

from typing import Any

import torch
from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import AttentionSpec
from nnunet_livseg.blocks.lc_conv import BIASES
from nnunet_livseg.blocks.phase_attention import PhaseAttention
from nnunet_livseg.blocks.phase_fusion import FirstPhase, ModalityWeighting, PhaseSum
from nnunet_livseg.blocks.spatial_aggregation import SpatialAggregation
from nnunet_livseg.blocks.uncertain_inpainting import UncertainRegionInpainting
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.norms import NORMS, norms
from nnunet_livseg.networks.outputs import TrainingOutput
from nnunet_livseg.networks.phase_encoder import (
    BACKBONES,
    PhaseChannels,
    Stage,
    build_encoder,
    fused_stages,
    run_stage,
)
from nnunet_livseg.networks.planned import PlannedNetwork
from nnunet_livseg.networks.pyramid_decoder import PyramidDecoder

FUSIONS = {
    "sam": "spatial aggregation at every level, fed back into the streams",
    "add": "sum of the phases at every level (FLF-add)",
    "mw": "weighted sum, one number per phase and level (MW-UNet)",
    "pa": "channel attention within and between phases (PA-ResSeg)",
    "ilf": "input level: all phases are channels of one stream",
    "dlf": "decision level: each phase has its features, concatenated before the prediction",
    "single": "the first phase alone",
}
WIDEST_SAM_3D = 512


class SAMURIM(PlannedNetwork):
    """SAM + URIM, the ablations of its Table 3 and the fusions of its Table 1.

    The phases are channels of the image, the one that the labels were drawn on first. With one phase every fusion is
    ``"single"``.

    Args:
        input_channels: Channels of the image, phase by phase, then those of a cascade's previous stage.
        num_classes: Channels K of both outputs.
        fusion: Key of ``FUSIONS``.
        urim: Whether unsure positions are corrected.
        backbone: ``"unet"`` (the plans' encoder), ``"resnet50"`` or ``"resnext50"``.
        image_channels: Channels of the image among the input; every phase gets those after them. ``None``: all.
        channels_per_phase: Channels that make one phase (3 where neighboring slices are channels).
        share_streams: Whether all phases run through the same encoder.
        norm: ``"plans"`` or ``"batch"``; ``None`` takes the plans' with the U-Net and batch with the ResNets.
        decoder_features: Features F; URIM has half as many. ``None``: the paper's 256, or fewer where no fused level
            is so wide.
        branch_reduction, pre_softmax_sigmoid: Readings of SAM, see ``blocks.spatial_aggregation``.
        aspp, align_corners: Readings of the decoder, see ``pyramid_decoder``.
        dropout: Scales the authors' dropout in decoder and URIM; 1 is theirs, 0 is none, as in nnU-Net's networks.
        urim_concat_input, lc_bias: Readings of URIM, see ``blocks.uncertain_inpainting``.
        regions: Whether the outputs are sigmoids of regions instead of a softmax over classes.
        pretrained: ImageNet weights for a ResNet: ``"imagenet"`` or a local file; loaded when a training starts.
        deep_supervision: Whether ``forward`` returns all training outputs.
        geometry: What nnU-Net's plans hold, see ``networks.unet.Geometry``.

    Raises:
        UserError: The channels are no whole phases, the plans are too shallow, SAM would explode (ResNets in 3D), or an
            option has an unknown value.
    """

    TITLE = "SAM + URIM"

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        fusion: str = "sam",
        urim: bool = True,
        backbone: str = "unet",
        image_channels: int | None = None,
        channels_per_phase: int = 1,
        share_streams: bool = True,
        norm: str | None = None,
        decoder_features: int | None = None,
        branch_reduction: int = 4,
        pre_softmax_sigmoid: bool = False,
        aspp: bool = False,
        align_corners: bool = False,
        dropout: float = 0.0,
        urim_concat_input: bool = True,
        lc_bias: str = "outside",
        regions: bool = False,
        pretrained: str | None = None,
        deep_supervision: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(input_channels, geometry)
        norm = norm or ("plans" if backbone == "unet" else "batch")
        self.require_known(fusion=(fusion, FUSIONS), backbone=(backbone, BACKBONES), norm=(norm, NORMS))
        self.require_known(lc_bias=(lc_bias, BIASES))
        if pretrained is not None and backbone == "unet":
            raise UserError("there are no ImageNet weights for the U-Net encoder.\n  Omit the option pretrained.")
        g, self.pretrained = self.geometry, pretrained
        self._split(input_channels, image_channels, channels_per_phase, fusion)
        make_norm, pooled_norm = norms(g, norm)

        self.encoder, stages = build_encoder(backbone, self.stream_channels, g, norm=make_norm)
        others = 0 if share_streams else self.phases - 1
        self.other_encoders = nn.ModuleList(
            build_encoder(backbone, self.stream_channels, g, norm=make_norm)[0] for _ in range(others)
        )
        self.stages = stages
        fused = fused_stages(stages)
        width = decoder_features or min(256, max(stage.channels for stage in fused))
        self.fusions = nn.ModuleList()
        if self.fusion != "dlf":
            shared = {"conv_op": g.conv_op, "norm": make_norm}
            sam = {"reduction": branch_reduction, "pre_softmax_sigmoid": pre_softmax_sigmoid}
            sam |= shared | {"pooled_norm": pooled_norm}
            self.fusions.extend(self._fusion(stage, sam=sam, pa=shared) for stage in fused)
        streams = self.phases if self.fusion == "dlf" else 1
        self.decoder = PyramidDecoder(
            [f.out_channels for f in self.fusions] or [stage.channels for stage in fused],
            num_classes,
            width=width,
            streams=streams,
            conv_op=g.conv_op,
            norm=make_norm,
            pooled_norm=pooled_norm,
            kernel_sizes=[stage.kernel_size for stage in fused],
            aspp=aspp,
            dropout=dropout,
            align_corners=align_corners,
            deep_supervision=deep_supervision,
        )
        self.urim = None
        if urim:
            self.urim = UncertainRegionInpainting(
                streams * width,
                num_classes,
                width=max(1, width // 2),
                conv_op=g.conv_op,
                norm=make_norm,
                kernel_size=fused[0].kernel_size,
                dropout=0.1 * dropout,
                concat_input=urim_concat_input,
                bias=lc_bias,
                regions=regions,
            )

    def _split(self, input_channels: int, image_channels: int | None, channels_per_phase: int, fusion: str) -> None:
        """Number of phases, and channels that each stream sees."""
        image = input_channels if image_channels is None else image_channels
        self.channels = PhaseChannels(input_channels, image, channels_per_phase)
        self.phases = self.channels.phases
        self.fusion = fusion if self.phases > 1 else "single"
        self.stream_channels = input_channels if self.fusion == "ilf" else self.channels.stream
        if self.fusion in ("ilf", "single"):
            self.phases = 1

    def _fusion(self, stage: Stage, *, sam: dict[str, Any], pa: dict[str, Any]) -> nn.Module:
        if self.fusion == "sam":
            if self.geometry.dim == 3 and stage.channels > WIDEST_SAM_3D:
                raise UserError(
                    f"SAM on {stage.channels} channels in 3D would have {54 * stage.channels**2 / 1e6:.0f} million "
                    f"parameters at this level alone. The limit is {WIDEST_SAM_3D} channels."
                    "\n  Use --option backbone=unet, or the configuration 2d."
                )
            return SpatialAggregation(stage.channels, phases=self.phases, kernel_size=stage.kernel_size, **sam)
        if self.fusion == "pa":
            return PhaseAttention(stage.channels, phases=self.phases, kernel_size=stage.kernel_size, **pa)
        if self.fusion == "mw":
            return ModalityWeighting(stage.channels, phases=self.phases)
        return PhaseSum(stage.channels) if self.fusion == "add" else FirstPhase(stage.channels)

    # --- what is computed -------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S)`` of ``x (B, channels, *S)``, or the list that ``training_outputs`` declares."""
        features = self.features(x)
        initial = self.decoder.predict(features)
        outputs = [initial] if self.urim is None else [self.urim(initial, features), initial]
        if self.decoder.deep_supervision:
            return [self.decoder.resize(output, x.shape[2:]) for output in outputs]
        return self.decoder.resize(outputs[0], x.shape[2:])

    def features(self, x: Tensor) -> Tensor:
        """Features ``(B, F, *S_0)`` that both predictions read; with decision-level fusion ``(B, P * F, *S_0)``."""
        maps, levels = self.split(x), []
        for i, stage in enumerate(self.stages):
            maps = [run_stage(self._encoder(p), i, phase) for p, phase in enumerate(maps)]
            if not stage.fused:
                continue
            if self.fusion == "dlf":
                levels.append(maps)
            else:
                aggregated, maps = self.fusions[len(levels)](maps)
                levels.append(aggregated)
        if self.fusion == "dlf":
            return torch.cat([self.decoder(phase) for phase in zip(*levels, strict=True)], 1)
        return self.decoder(levels)

    def split(self, x: Tensor) -> list[Tensor]:
        """What each stream sees of ``x (B, channels, *S)``: its phase, and a cascade's previous segmentation."""
        return [x] if self.fusion == "ilf" else self.channels.split(x)[: self.phases]

    def _encoder(self, phase: int) -> nn.Module:
        return self.encoder if phase == 0 or not len(self.other_encoders) else self.other_encoders[phase - 1]

    # --- what is declared -------------------------------------------------------------------------------------------

    def training_outputs(self) -> list[TrainingOutput]:
        """Final and initial segmentation, both at full resolution with weight 1 (section 2.3)."""
        full = (1,) * self.geometry.dim
        names = ["final"] if self.urim is None else ["final", "initial"]
        return [TrainingOutput(name, full, 1.0) for name in names]

    def attention_specs(self) -> list[AttentionSpec]:
        """How the phases are weighted at each fused level, and URIM's confidence, as far as the network has them."""
        levels = [level for level, stage in enumerate(self.stages) if stage.fused]
        weighing = [
            (i, fusion) for i, fusion in zip(levels, self.fusions, strict=False) if hasattr(fusion, "attention_specs")
        ]
        fusions = [one for level, fusion in weighing for one in fusion.attention_specs(level)]
        return fusions + ([] if self.urim is None else self.urim.attention_specs(levels[0]))

    def load_pretrained(self) -> str | None:
        """Load the ImageNet weights that the option ``pretrained`` names; returns a line for the log."""
        if self.pretrained is None:
            return None
        lines = [encoder.load_weights(self.pretrained) for encoder in (self.encoder, *self.other_encoders)]
        return "\n".join(lines)
