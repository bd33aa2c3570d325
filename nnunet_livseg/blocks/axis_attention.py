"""CS-Net's spatial attention: positions are related by what lies along one axis from the one and across from the other.

Mou et al., CS-Net: Channel and Spatial Attention Network for Curvilinear Structure Segmentation, MICCAI 2019, section
2.2; in 3D as its extension CS2-Net (Medical Image Analysis 2021), with a third convolution for the third axis.
Different from the authors' code: their 3D form multiplies two N x N maps. The same product is computed from a d x d
matrix between them, and no N x N map is made at all. Its rows gather with weights that sum to 1, as in 2D, while the 3D
code gathers along the columns. Un-scaled energies leave float16's range, so all runs in at least float32.
"""

# Shape letters:  B batch, C channels, d = C / 8 channels of queries and keys, N positions, *S spatial sizes

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nnunet_livseg.blocks.attention_spec import POSITIONS, AttentionSpec, ModuleCall, position_of
from nnunet_livseg.blocks.context import attend
from nnunet_livseg.blocks.precision import no_autocast, widened


class AxisAttention(nn.Module):
    """``X + gamma X'``, where X' gathers at each position the features of positions with the same structure.

    Args:
        channels: Channels C.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        norm: Makes the normalization of so many channels, after the convolutions of queries and keys.
        reduction: Queries and keys have ``C / reduction`` channels.
    """

    def __init__(
        self, channels: int, *, conv_op: type[nn.Module], norm: Callable[[int], nn.Module], reduction: int = 8
    ) -> None:
        super().__init__()
        dim, narrow = {nn.Conv2d: 2, nn.Conv3d: 3}[conv_op], max(1, channels // reduction)

        def along(axis: int) -> nn.Sequential:
            kernel = tuple(3 if i == axis else 1 for i in range(dim))
            conv = conv_op(channels, narrow, kernel, padding=tuple(k // 2 for k in kernel))
            return nn.Sequential(conv, norm(narrow), nn.ReLU())

        self.query, self.key = along(dim - 1), along(dim - 2)
        self.third = along(0) if dim == 3 else None
        self.value = conv_op(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attention on ``x (B, C, *S)``; returns ``(B, C, *S)`` in float32 or more."""
        with no_autocast(x):
            x = widened(x)
            query, key = self.related(x)
            gathered = attend(query, key, _rows(self.value(x)))
            return x + self.gamma * gathered.transpose(1, 2).unflatten(2, x.shape[2:])

    def related(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys ``(B, N, d)``, whose products are the energies of pairs of positions."""
        query, key = _rows(self.query(x)), _rows(self.key(x))
        if self.third is not None:
            query = query @ (key.transpose(1, 2) @ _rows(self.third(x)))
        return query, key

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """The row of its map that belongs to one position; see ``blocks.attention_spec``."""
        title, source = (
            "Spatial attention: weights with which the point gathers",
            "CS-Net, section 2.2 (MFCNet, Table 1)",
        )
        return [AttentionSpec("axis_attention", title, source, POSITIONS, level, self, self._row)]

    def _row(self, call: ModuleCall) -> Tensor:
        x = widened(call.inputs[0])
        query, key = self.related(x)
        here = position_of(call.point, x.shape[2:])
        energies = query[:, here : here + 1] @ key.transpose(1, 2)
        return torch.softmax(energies, 2).unflatten(2, x.shape[2:])


def _rows(x: Tensor) -> Tensor:
    """``(B, C, *S)`` as ``(B, N, C)``."""
    return x.flatten(2).transpose(1, 2)
