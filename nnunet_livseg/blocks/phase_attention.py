"""PA: channel attention within the primary phase, and from the primary phase on the others.

Xu et al., PA-ResSeg, Medical Physics 2021; comparator "PA" of Zhang et al., MICCAI 2021, Table 1.
Different from the authors' code: it normalizes the similarities over the primary phase's channels and then sums over
them, which gives 1 for every channel whatever the images are. We normalize over the other phase's channels, so that the
sum says how much the primary phase asks for each of them. Similarities are float32 under autocast, as sums over all
positions; the matrices are C x C, linear in positions.
"""

# Shape letters:  B batch, C channels of this level, c = C / 4, *S spatial sizes

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import VECTOR, AttentionSpec, ModuleCall
from nnunet_livseg.blocks.precision import no_autocast, widened
from nnunet_livseg.blocks.tensor_helpers import kernel_like, same_padding


class PhaseAttention(nn.Module):
    """Fuse one level of all phases by intra- and inter-phase channel attention, concatenated.

    Args:
        channels: Channels C of every phase.
        phases: Number of phases, at least 2.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        norm: Makes the normalization of so many channels.
        kernel_size: The plans' kernel of this level; axes with kernel 1 are not mixed.
        reduction: Every phase contributes ``C / reduction`` channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        phases: int,
        conv_op: type[nn.Module],
        norm: Callable[[int], nn.Module],
        kernel_size: Sequence[int],
        reduction: int = 4,
    ) -> None:
        super().__init__()
        kernel = kernel_like(3, kernel_size)
        width = max(1, channels // reduction)
        self.out_channels = phases * width

        def convolve(inputs: int) -> nn.Sequential:
            conv = conv_op(inputs, width, kernel, padding=same_padding(kernel), bias=False)
            return nn.Sequential(conv, norm(width), nn.ReLU())

        self.reduce = nn.ModuleList(convolve(channels) for _ in range(phases))
        self.refine = nn.ModuleList(convolve(width) for _ in range(phases))
        self.gamma = nn.Parameter(torch.zeros(phases))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The fusion ``(B, P * c, *S)`` of ``features``, P maps ``(B, C, *S)``, and these unchanged."""
        primary, *others = self._reduced(features)
        attended = [primary + self.gamma[0] * intra_phase(primary)]
        attended += [other + self.gamma[p] * inter_phase(primary, other) for p, other in enumerate(others, start=1)]
        return torch.cat([refine(phase) for refine, phase in zip(self.refine, attended, strict=True)], 1), list(
            features
        )

    def _reduced(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [reduce(phase) for reduce, phase in zip(self.reduce, features, strict=True)]

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """Channel weights of every phase but the primary one; see ``blocks.attention_spec``."""
        source = "PA-ResSeg, Xu et al. 2021 (PA of SAM + URIM, Table 1)"

        def weights_of(phase: int) -> AttentionSpec:
            def read(call: ModuleCall) -> Tensor:
                primary, *others = self._reduced(call.inputs[0])
                return asked_for(primary, others[phase - 1])

            return AttentionSpec(
                f"pa_phase{phase}", f"PA: channel weights of phase {phase}", source, VECTOR, level, self, read
            )

        return [weights_of(phase) for phase in range(1, len(self.reduce))]


def intra_phase(x: Tensor) -> Tensor:
    """Every channel of ``x (B, c, *S)`` as a mean of the channels that differ from it; ``(B, c, *S)``."""
    attention = torch.softmax(-_similarities(x, x), 2)
    return (attention.to(x.dtype) @ x.flatten(2)).view_as(x)


def inter_phase(primary: Tensor, other: Tensor) -> Tensor:
    """``other (B, c, *S)``, its channels scaled by how much ``primary (B, c, *S)`` differs from them."""
    scale = asked_for(primary, other).to(other.dtype)
    return scale.view(*scale.shape, *[1] * (other.ndim - 2)) * other


def asked_for(primary: Tensor, other: Tensor) -> Tensor:
    """Weights ``(B, c)`` in (0.5, 1) of the channels of ``other (B, c, *S)``, from ``primary (B, c, *S)``; float32."""
    return torch.sigmoid(torch.softmax(-_similarities(other, primary), 1).sum(2))


def _similarities(x: Tensor, y: Tensor) -> Tensor:
    """Inner products ``(B, c, c)`` over all positions, in at least float32."""
    with no_autocast(x):
        return widened(x).flatten(2) @ widened(y).flatten(2).transpose(1, 2)
