"""SemCor: weight the channels of a pyramid level by what this and the next coarser level contain.

Zhang et al., Decoupled Pyramid Correlation Network, Medical Physics 2022, section II.E, Eqs. (7)-(9).
Readings (docs/papers/dpcnet.md): g maps C to C channels and takes the spatially refined level. Where the result is
read by a 1x1 head only, head(sigmoid(v) * g(x)) is one small matrix per case, so the C-channel map is never made.
"""

# Shape letters:  B batch, C channels of this level, D channels of the coarser one, K classes, *S, *s spatial sizes

import torch
from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import FEATURES, VECTOR, AttentionSpec, ModuleCall, strength
from nnunet_livseg.blocks.pointwise import pointwise
from nnunet_livseg.blocks.pooling import POOLINGS, mean_and_max


class SemanticCorrelation(nn.Module):
    """Channel attention on a level, computed from the level and the next coarser one.

    Args:
        channels: Channels C of the level that is weighted.
        coarser_channels: Channels D of the next coarser level.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        pooling: ``"avg"``, ``"max"`` or ``"both"``: what squeezes the positions (Table 1).
        shared_mlp: With ``"both"``, run one MLP on each squeeze and add (CBAM's way, matches the counts of Table 4)
            instead of concatenating the squeezes (Eq. 8).
        reduction: Hidden channels of the MLP are ``C / reduction``.
        g: Whether the level passes a 1x1 convolution before it is weighted (Eq. 9).
    """

    def __init__(
        self,
        channels: int,
        coarser_channels: int,
        *,
        conv_op: type[nn.Module],
        pooling: str = "both",
        shared_mlp: bool = False,
        reduction: int = 1,
        g: bool = True,
    ) -> None:
        super().__init__()
        self.poolings = POOLINGS[pooling]
        self.shared_mlp = shared_mlp
        squeezed = (channels + coarser_channels) * (1 if shared_mlp else len(self.poolings))
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(nn.Linear(squeezed, hidden), nn.LeakyReLU(0.01), nn.Linear(hidden, channels))
        self.g = pointwise(conv_op, channels, channels) if g else nn.Identity()

    def attention(self, x: Tensor, coarser: Tensor) -> Tensor:
        """Channel weights ``(B, C)`` in (0, 1) from ``x (B, C, *S)`` and ``coarser (B, D, *s)``, Eqs. (7) and (8)."""
        here, there = _squeezed(x), _squeezed(coarser)
        squeezes = [torch.cat([here[p], there[p]], 1) for p in self.poolings]
        inputs = squeezes if self.shared_mlp else [torch.cat(squeezes, 1)]
        return torch.sigmoid(sum(self.mlp(squeeze) for squeeze in inputs))

    def forward(self, x: Tensor, coarser: Tensor, head: nn.Module | None = None) -> Tensor:
        """Weight ``x (B, C, *S)``, Eq. (9); returns ``(B, C, *S)``, or with a ``head`` what ``predict`` returns."""
        if head is not None:
            return self.predict(x, coarser, head)
        weights = self.attention(x, coarser)
        return weights.view(*weights.shape, *[1] * (x.ndim - 2)) * self.g(x)

    def predict(self, x: Tensor, coarser: Tensor, head: nn.Module) -> Tensor:
        """``head(self(x, coarser))`` for a 1x1 convolution ``head``, without making its input; ``(B, K, *S)``."""
        weighted_head = head.weight.flatten(1) * self.attention(x, coarser)[:, None]  # (B, K, C)
        if isinstance(self.g, nn.Identity):
            matrix, bias = weighted_head, head.bias.expand(x.shape[0], -1)
        else:
            matrix = weighted_head @ self.g.weight.flatten(1)
            bias = weighted_head @ self.g.bias + head.bias
        logits = matrix @ x.flatten(2) + bias[..., None]
        return logits.unflatten(2, x.shape[2:])

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """Its channel weights and the refined features; see ``blocks.attention_spec``."""

        def weights(call: ModuleCall) -> Tensor:
            return self.attention(*call.inputs[:2])

        def features(call: ModuleCall) -> Tensor:
            return strength(self.forward(*call.inputs[:2]))  # not self(...), whose calls are watched

        return [
            AttentionSpec(
                "semcor_features", "SemCor: features", "DPC-Net, Eq. (9), Fig. 5", FEATURES, level, self, features
            ),
            AttentionSpec(
                "semcor_attention", "SemCor: channel attention", "DPC-Net, Eq. (8)", VECTOR, level, self, weights
            ),
        ]


def _squeezed(x: Tensor) -> dict[str, Tensor]:
    """Mean and maximum over the positions by the pooling's name, each ``(B, C)``."""
    squeezes = mean_and_max(x, range(2, x.ndim))
    return {name: squeeze.flatten(1) for name, squeeze in zip(POOLINGS["both"], squeezes, strict=True)}
