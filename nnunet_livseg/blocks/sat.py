"""SAT: weight the channels of an encoder level by the context of the next deeper level.

Zhang et al., Semantic Feature Attention Network, arXiv:1911.00282, section 2, Eq. (1).
Readings (docs/papers/sfan.md): the two 1x1 convolutions have no activation between them, as printed, and so are one
linear map; the first one has as many outputs as the level that is weighted.
"""

# Shape letters:  B batch, C channels of this level, D channels of the deeper one, *S, *s spatial sizes

import torch
from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import VECTOR, AttentionSpec

INNER_ACTIVATIONS = {None: nn.Identity, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}


class ContextVector(nn.Module):
    """``sigmoid(conv1(conv1(mean over positions)))``, the vector of Eqs. (1) and (3); in float32 also under autocast.

    Args:
        channels: Channels D of the map that is read.
        hidden: Outputs of the first convolution.
        outputs: Length N of the vector.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        inner_activation: Key of ``INNER_ACTIVATIONS``: what stands between the two convolutions.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        outputs: int,
        *,
        conv_op: type[nn.Module],
        inner_activation: str | None = None,
    ) -> None:
        super().__init__()
        self.squeeze = conv_op(channels, hidden, 1)
        self.inner = INNER_ACTIVATIONS[inner_activation]()
        self.excite = conv_op(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The vector ``(B, N)`` in (0, 1) of ``x (B, D, *s)``."""
        device = "cpu" if x.device.type == "meta" else x.device.type
        with torch.autocast(device, enabled=False):
            context = x.mean(tuple(range(2, x.ndim)), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
            return torch.sigmoid(self.excite(self.inner(self.squeeze(context)))).flatten(1)


class SemanticAttentionTransmission(nn.Module):
    """Channel attention on a level, computed from the next deeper level.

    Args:
        channels: Channels C of the level that is weighted.
        deeper_channels: Channels D of the next deeper level.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        hidden: Outputs of the first convolution; C if left out.
        inner_activation: See ``ContextVector``.
    """

    def __init__(
        self,
        channels: int,
        deeper_channels: int,
        *,
        conv_op: type[nn.Module],
        hidden: int | None = None,
        inner_activation: str | None = None,
    ) -> None:
        super().__init__()
        self.attend = ContextVector(
            deeper_channels, hidden or channels, channels, conv_op=conv_op, inner_activation=inner_activation
        )

    def attention(self, deeper: Tensor) -> Tensor:
        """Channel weights V ``(B, C)`` in (0, 1) from ``deeper (B, D, *s)``, Eq. (1)."""
        return self.attend(deeper)

    def forward(self, x: Tensor, deeper: Tensor) -> Tensor:
        """Weight ``x (B, C, *S)`` by ``deeper (B, D, *s)``; returns S ``(B, C, *S)``.

        A network whose next operation is a 1x1 convolution puts ``attention`` into its weights instead.
        """
        weights = self.attention(deeper).to(x.dtype)
        return weights.view(*weights.shape, *[1] * (x.ndim - 2)) * x

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """Its channel weights V; see ``blocks.attention_spec``."""
        title, source = "SAT: channel attention V", "SFAN, Eq. (1)"
        return [AttentionSpec("sat", title, source, VECTOR, level, self.attend, lambda call: call.output)]
