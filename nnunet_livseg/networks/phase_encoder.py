"""Encoders that run stage by stage, so that the phases can be fused in between."""

# Shape letters:  B batch, C_i channels and *S_i sizes of stage i (stage 0 is the finest)

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.outputs import level_strides
from nnunet_livseg.networks.resnet import ResNetEncoder
from nnunet_livseg.networks.unet import Geometry, build_unet

RESNETS = {
    "resnet50": {"groups": 1, "width_per_group": 64},
    "resnext50": {"groups": 32, "width_per_group": 4},
}
BACKBONES = ("unet", *RESNETS)
FINEST_FUSED_STRIDE = 4  # the paper fuses from a quarter of the image's resolution on


@dataclass(frozen=True)
class PhaseChannels:
    """The channels of the input: those of the image, phase by phase, then those of a cascade's previous stage.

    Args:
        inputs: Channels of the input.
        image: Channels of the image among them; every phase gets those after them.
        per_phase: Channels that make one phase (3 where neighboring slices are channels).

    Raises:
        UserError: The image's channels are no whole phases.
    """

    inputs: int
    image: int
    per_phase: int

    def __post_init__(self) -> None:
        if not 1 <= self.image <= self.inputs or self.image % self.per_phase:
            raise UserError(
                f"the image has {self.image} of the {self.inputs} input channels, which is not a whole "
                f"number of phases of {self.per_phase} channels each.\n  Correct channels_per_phase, "
                "or the channels of the dataset."
            )

    @property
    def phases(self) -> int:
        """Number of phases."""
        return self.image // self.per_phase

    @property
    def stream(self) -> int:
        """Channels that each phase's stream sees."""
        return self.per_phase + self.inputs - self.image

    def split(self, x: Tensor) -> list[Tensor]:
        """What each phase's stream sees of ``x (B, channels, *S)``."""
        previous = x[:, self.image :]
        return [torch.cat([phase, previous], 1) for phase in x[:, : self.image].split(self.per_phase, 1)]


@dataclass(frozen=True)
class Stage:
    """A stage of an encoder: channels C_i, stride from the image, and the kernel that the plans have there."""

    channels: int
    stride: tuple[int, ...]
    kernel_size: tuple[int, ...]

    @property
    def fused(self) -> bool:
        """Whether the phases are fused after this stage."""
        return max(self.stride) >= FINEST_FUSED_STRIDE


def build_encoder(
    backbone: str, input_channels: int, geometry: Geometry, *, norm: str | Callable[[int], nn.Module]
) -> tuple[nn.Module, list[Stage]]:
    """The encoder ``backbone`` and what its stages are.

    ``"unet"`` is the encoder that the plans describe. The ResNets have five stages with a stride of 2 each; in 3D they
    follow kernels and strides of the plans' stages 1 to 5 where there are so many.
    """
    g = geometry
    if backbone == "unet":
        encoder, _ = build_unet(input_channels, 1, g, deep_supervision=False)
        return encoder, _stages(g.features_per_stage, g.strides, g.kernel_sizes)
    anisotropic = {}
    if g.dim == 3 and g.n_stages >= 6:
        anisotropic = {"strides": g.strides[1:6], "kernel_sizes": g.kernel_sizes[1:6]}
    encoder = ResNetEncoder(
        input_channels,
        conv_op=g.conv_op,
        block="bottleneck",
        layers=(3, 4, 6, 3),
        norm=norm,
        **RESNETS[backbone],
        **anisotropic,
    )
    kernels = anisotropic.get("kernel_sizes", [[3] * g.dim] * 5)
    return encoder, _stages(encoder.channels, encoder.strides, kernels)


def _stages(channels: Sequence[int], strides: Sequence[Sequence[int]], kernels: Sequence[Sequence[int]]) -> list[Stage]:
    return [
        Stage(c, stride, tuple(kernel))
        for c, stride, kernel in zip(channels, level_strides(strides), kernels, strict=True)
    ]


def fused_stages(stages: Sequence[Stage]) -> list[Stage]:
    """The stages after which the phases are fused.

    Raises:
        UserError: There are none.
    """
    fused = [stage for stage in stages if stage.fused]
    if not fused:
        raise UserError(
            f"SAM + URIM fuses phases from stride 4 on, but the last of these plans' {len(stages)} stages "
            f"has stride {max(stages[-1].stride)}."
            "\n  Plan with a larger patch (livseg plan --patch), or use nnUNetTrainer."
        )
    return fused


def run_stage(encoder: nn.Module, stage: int, x: Tensor) -> Tensor:
    """Map ``(B, C_i, *S_i)`` of stage i, from that of the stage before it (stage 0: from the image)."""
    for module in _modules(encoder, stage):
        x = module(x)
    return x


def _modules(encoder: nn.Module, stage: int) -> list[nn.Module]:
    if isinstance(encoder, ResNetEncoder):
        if stage == 0:
            return [encoder.conv1, encoder.bn1, encoder.relu]
        layer = getattr(encoder, f"layer{stage}")
        return [encoder.maxpool, layer] if stage == 1 else [layer]
    stem = getattr(encoder, "stem", None)  # residual encoders have one
    return [stem, encoder.stages[stage]] if stage == 0 and stem is not None else [encoder.stages[stage]]
