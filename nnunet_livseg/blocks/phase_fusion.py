"""Feature fusions that SAM is compared with: one phase alone, addition, modality weighting.

Zhang et al., MICCAI 2021, section 3 (SP, FLF-add, MW); modality weighting after Wu et al., Modality weighted U-Net,
ICIP 2019. All follow one form: features of P phases in, the aggregation and the maps that go on in the streams out.
None of them feeds the aggregation back (docs/papers/sam_urim.md).
"""

# Shape letters:  B batch, P phases, C channels of this level, *S spatial sizes

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import VECTOR, AttentionSpec


class FirstPhase(nn.Module):
    """The primary phase as it is; what SAM is for one phase, where its only weight is 1.

    Args:
        channels: Channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The first of ``features``, maps ``(B, C, *S)``, and all of them unchanged."""
        return features[0], list(features)


class PhaseSum(nn.Module):
    """FLF-add: the sum of all phases.

    Args:
        channels: Channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The sum ``(B, C, *S)`` of ``features``, P maps ``(B, C, *S)``, and these unchanged."""
        return sum(features[1:], features[0]), list(features)


class ModalityWeighting(nn.Module):
    """MW: the sum of all phases, each with one trained number per level; it starts as the plain sum.

    Args:
        channels: Channels C.
        phases: Number of phases P.
    """

    def __init__(self, channels: int, *, phases: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.weights = nn.Parameter(torch.ones(phases))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The weighted sum ``(B, C, *S)`` of ``features``, P maps ``(B, C, *S)``, and these unchanged."""
        terms = [weight * phase for weight, phase in zip(self.weights, features, strict=True)]
        return sum(terms[1:], terms[0]).to(features[0].dtype), list(features)

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """Its trained numbers, which no image changes; see ``blocks.attention_spec``."""
        title, source = "MW: trained weight per phase", "Wu et al. 2020 (MW of SAM + URIM, Table 1)"
        return [AttentionSpec("mw", title, source, VECTOR, level, self, lambda call: self.weights[None])]
