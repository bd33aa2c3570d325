"""SAM: weight the contrast phases against each other, per channel and position, and feed the result back to each phase.

Zhang et al., Multi-phase Liver Tumor Segmentation with Spatial Aggregation and Uncertain Region Inpainting, MICCAI
2021, section 2.1, Eqs. (1) and (2).
Readings (docs/papers/sam_urim.md): every mapping sees the descriptors of all phases; branches are C/4 wide; there is no
sigmoid before the softmax (the authors' code has one: ``pre_softmax_sigmoid``); more than two phases have a mapping
each. The branches of the pyramid run in float32 under autocast: they sum up to 1372 descriptors as large as the
features themselves, which overflows in float16.
"""

# Shape letters:  B batch, P phases, C channels of this level, b = C / reduction, *S spatial sizes

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import PHASES, AttentionSpec, ModuleCall
from nnunet_livseg.blocks.precision import no_autocast, widened
from nnunet_livseg.blocks.tensor_helpers import kernel_like, same_padding

KERNELS = (3, 5, 7)


class SpatialAggregation(nn.Module):
    """Aggregate one level of all phases by response maps that sum to 1 over the phases.

    Args:
        channels: Channels C of every phase.
        phases: Number of phases P, at least 2.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        norm: Makes the normalization of so many channels.
        pooled_norm: The same for the globally pooled branch, whose maps have one position.
        kernel_size: The plans' kernel of this level; axes with kernel 1 are not mixed.
        reduction: Branches have ``C / reduction`` channels.
        pre_softmax_sigmoid: Squash the responses before the softmax (authors' code), which keeps the weights of two
            phases within 0.27 and 0.73.
    """

    def __init__(
        self,
        channels: int,
        *,
        phases: int,
        conv_op: type[nn.Module],
        norm: Callable[[int], nn.Module],
        pooled_norm: Callable[[int], nn.Module],
        kernel_size: Sequence[int],
        reduction: int = 4,
        pre_softmax_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = channels
        self.pre_softmax_sigmoid = pre_softmax_sigmoid
        self.mappings = nn.ModuleList(
            _Mapping(
                2 * phases,
                max(1, channels // reduction),
                channels,
                conv_op=conv_op,
                norm=norm,
                pooled_norm=pooled_norm,
                kernel_size=kernel_size,
            )
            for _ in range(phases)
        )

    def responses(self, features: Sequence[Tensor]) -> Tensor:
        """Response maps ``w (B, P, C, *S)`` in float32 for ``features``, P maps ``(B, C, *S)``; sum 1 over P."""
        descriptors = describe(features)
        raw = widened(torch.stack([mapping(descriptors, dtype=features[0].dtype) for mapping in self.mappings], 1))
        return torch.softmax(torch.sigmoid(raw) if self.pre_softmax_sigmoid else raw, 1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Aggregate ``features``, P maps ``(B, C, *S)``.

        Returns the aggregation ``(B, C, *S)``, Eq. (1), and the P modulated maps that go on in their streams, Eq. (2).
        """
        weights = self.responses(features)
        terms = [weights[:, p] * phase for p, phase in enumerate(features)]
        aggregated = sum(terms[1:], terms[0]).to(features[0].dtype)
        return aggregated, [(phase + aggregated) / 2 for phase in features]

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """Its response maps, mean over the channels; see ``blocks.attention_spec``."""
        title, source = "SAM: phase weights (mean of channels)", "SAM + URIM, section 2.1, Eq. (1)"

        def read(call: ModuleCall) -> Tensor:
            return self.responses(call.inputs[0]).mean(2)

        return [AttentionSpec("sam", title, source, PHASES, level, self, read)]


def describe(features: Sequence[Tensor]) -> Tensor:
    """Mean and maximum over the channels of every phase in float32, ``(B, 2P, *S)``: mean, max, mean, max, ..."""
    maximum = [widened(x.amax(1, keepdim=True)) for x in features]
    mean = [x.mean(1, keepdim=True, dtype=largest.dtype) for x, largest in zip(features, maximum, strict=True)]
    return torch.cat([squeezed for pair in zip(mean, maximum, strict=True) for squeezed in pair], 1)


class _Mapping(nn.Module):
    """``M`` of section 2.1: three convolutions and a global pooling, side by side, then a 3x3 convolution to C."""

    def __init__(
        self,
        descriptors: int,
        width: int,
        channels: int,
        *,
        conv_op: type[nn.Module],
        norm: Callable[[int], nn.Module],
        pooled_norm: Callable[[int], nn.Module],
        kernel_size: Sequence[int],
    ) -> None:
        super().__init__()

        def convolve(inputs: int, outputs: int, size: int) -> nn.Sequential:
            kernel = kernel_like(size, kernel_size)
            return nn.Sequential(
                conv_op(inputs, outputs, kernel, padding=same_padding(kernel), bias=False), norm(outputs)
            )

        self.pyramid = nn.ModuleList(convolve(descriptors, width, size) for size in KERNELS)
        self.pooled = nn.Sequential(conv_op(descriptors, width, 1, bias=False), pooled_norm(width), nn.ReLU())
        self.fuse = convolve((len(KERNELS) + 1) * width, channels, 3)

    def forward(self, descriptors: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Responses ``w^(0) (B, C, *S)`` of ``descriptors (B, 2P, *S)``; the last convolution computes in ``dtype``."""
        with no_autocast(descriptors):
            branches = [branch(descriptors) for branch in self.pyramid]
            pooled = self.pooled(descriptors.mean(tuple(range(2, descriptors.ndim)), keepdim=True))
            branches.append(pooled.expand_as(branches[0]))
        return self.fuse(torch.cat(branches, 1).to(dtype))
