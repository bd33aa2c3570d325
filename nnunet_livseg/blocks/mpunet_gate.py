"""MPU-Net's attention gate: a voxel-wise weight from a feature map and the coarser one that steers it.

Yu and Han, MPU-Net, arXiv:2307.05799, section 3.3.1, Eqs. (10)-(12); additive attention of Oktay et al., 2018.
Readings (docs/papers/mpunet.md): sigma_2 is the usual sigmoid (a minus sign is missing in print), and both linear maps
have a bias and a normalization, as in the authors' code. What is gated is the network's choice, see networks/mpunet.py.
"""

# Shape letters:  B batch, C channels of what is gated, G of what steers, *S sizes of what is gated, *s coarser sizes

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import VOXELS, AttentionSpec


class SteeredGate(nn.Module):
    """Gate a feature map.

    Args:
        channels: Channels C of the map; the gate's inner maps have half as many.
        steering_channels: Channels G of the steering map.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        norm: Makes the normalization of a number of channels.
    """

    def __init__(
        self,
        channels: int,
        steering_channels: int,
        *,
        conv_op: type[nn.Module],
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.see = nn.Sequential(conv_op(channels, inner, 1), norm(inner))
        self.steer = nn.Sequential(conv_op(steering_channels, inner, 1), norm(inner))
        self.weigh = nn.Sequential(conv_op(inner, 1, 1), norm(1))
        self._mode = "trilinear" if conv_op is nn.Conv3d else "bilinear"

    def attention(self, x: Tensor, steering: Tensor) -> Tensor:
        """Weights ``(B, 1, *S)`` in (0, 1) for ``x (B, C, *S)`` and ``steering (B, G, *s)``, Eqs. (11) and (12)."""
        steered = self.steer(steering)
        if steered.shape[2:] != x.shape[2:]:
            steered = F.interpolate(steered, x.shape[2:], mode=self._mode, align_corners=False)
        return torch.sigmoid(self.weigh(F.relu(self.see(x) + steered)))

    def forward(self, x: Tensor, steering: Tensor) -> Tensor:
        """Gate ``x (B, C, *S)`` by ``steering (B, G, *s)``, Eq. (10); returns ``(B, C, *S)``."""
        return x * self.attention(x, steering)

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """Its attention; see ``blocks.attention_spec``."""
        source = "MPU-Net, Eqs. (11) and (12)"
        return [
            AttentionSpec(
                "gate", "Attention gate", source, VOXELS, level, self, lambda call: self.attention(*call.inputs)
            ),
        ]
