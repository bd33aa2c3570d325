"""Attention gate: suppress what a skip connection carries where a coarse gating signal sees nothing.

Schlemper et al., Attention gated networks, Medical Image Analysis 2019, section 3; the additive grid attention of the
authors' 3D segmentation network. Comparator "AG" of DPC-Net's Table 4.
Different from the authors' code: the normalization is the plans' (instance instead of batch normalization, same
parameter count), and the sub-sampling of theta follows the plans' strides instead of being fixed to 2.
"""

# Shape letters:  B batch, C channels of the skip, G of the gating signal, *S sizes of the skip, *s coarser sizes

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import VOXELS, AttentionSpec


class AttentionGate(nn.Module):
    """Gate a skip connection.

    Args:
        channels: Channels C of the skip connection.
        gating_channels: Channels G of the gating signal.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        norm: Normalization of C channels that follows the output transform.
        stride: Sub-sampling of the skip before it meets the gating signal, one entry per axis.
    """

    def __init__(
        self, channels: int, gating_channels: int, *, conv_op: type[nn.Module], norm: nn.Module, stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.theta = conv_op(channels, channels, tuple(stride), stride=tuple(stride), bias=False)
        self.phi = conv_op(gating_channels, channels, 1)
        self.psi = conv_op(channels, 1, 1)
        self.transform = nn.Sequential(conv_op(channels, channels, 1), norm)
        self._mode = "trilinear" if conv_op is nn.Conv3d else "bilinear"

    def attention(self, x: Tensor, gating: Tensor) -> Tensor:
        """Attention ``(B, 1, *S)`` in (0, 1) for ``x (B, C, *S)`` and ``gating (B, G, *s)``."""
        skip = self.theta(x)
        gate = self._resize(self.phi(gating), skip.shape[2:])
        return self._resize(torch.sigmoid(self.psi(F.relu(skip + gate))), x.shape[2:])

    def forward(self, x: Tensor, gating: Tensor) -> Tensor:
        """Gate ``x (B, C, *S)`` by ``gating (B, G, *s)``; returns ``(B, C, *S)``."""
        return self.transform(self.attention(x, gating) * x)

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """Its attention; see ``blocks.attention_spec``."""
        source = "Schlemper et al. 2019, section 3 (AG of DPC-Net, Table 4)"
        return [
            AttentionSpec(
                "gate", "Attention gate", source, VOXELS, level, self, lambda call: self.attention(*call.inputs)
            ),
        ]

    def _resize(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        return F.interpolate(x, size=size, mode=self._mode, align_corners=False)
