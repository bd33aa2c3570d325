"""SE: weight the channels of a map by what they contain on average.

Hu et al., Squeeze-and-excitation networks, CVPR 2018, Eqs. (2)-(4). Comparator "SENet" of MFCNet's Table 1.
Written here because the module that nnU-Net's networks bring averages over two of three axes in 3D, and torchvision's
exists in 2D only.
"""

# Shape letters:  B batch, C channels, *S spatial sizes

import torch
from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import VECTOR, AttentionSpec


class SqueezeExcitation(nn.Module):
    """Channel weights from two layers on the global mean.

    Args:
        channels: Channels C.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        reduction: The first layer has ``C / reduction`` channels.
    """

    def __init__(self, channels: int, *, conv_op: type[nn.Module], reduction: int = 16) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.squeeze, self.activate = conv_op(channels, narrow, 1), nn.ReLU()
        self.excite = conv_op(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weight ``x (B, C, *S)``, Eq. (4); returns ``(B, C, *S)``."""
        return x * self.weights(x)

    def weights(self, x: Tensor) -> Tensor:
        """Weights ``(B, C, 1, ...)`` in (0, 1) of the channels of ``x (B, C, *S)``, Eqs. (2) and (3)."""
        mean = x.mean(tuple(range(2, x.ndim)), keepdim=True)
        return torch.sigmoid(self.excite(self.activate(self.squeeze(mean))))

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """The weight of every channel; see ``blocks.attention_spec``."""
        title, source = "SE: weight of every channel", "Hu et al. 2018, Eq. (3) (SENet of MFCNet, Table 1)"
        return [
            AttentionSpec(
                "se", title, source, VECTOR, level, self, lambda call: self.weights(call.inputs[0]).flatten(1)
            )
        ]
