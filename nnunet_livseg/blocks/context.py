"""Spatial and channel context: add to every voxel what similar voxels, and similar channels, contain.

Pang et al., Correlation Matters: Multi-scale Fine-Grained Contextual Information Extraction for Hepatic Tumor
Segmentation, PAKDD 2020, sections 2.2 and 2.3, Eqs. (1)-(7).
Readings (docs/papers/mfcnet.md): f in Eq. (1) is ReLU; the gains alpha and beta start at 0; Eq. (5) mixes channels with
the rows of M, which sum to 1. Energies are not scaled, so everything here runs in at least float32, also under
autocast.
The map over all pairs of voxels is never made: fused attention computes the same sums in memory linear in voxels.
"""

# Shape letters:  B batch, C channels, D = C / 8 channels of queries and keys, N voxels, *S spatial sizes

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import POSITIONS, VECTOR, AttentionSpec, ModuleCall, position_of
from nnunet_livseg.blocks.precision import no_autocast, widened
from nnunet_livseg.core.errors import UserError

_PARALLEL = 8  # heads times batch that keep a processor busy


class SpatialContext(nn.Module):
    """``X + alpha X'``, where X' gathers at each voxel the features of all similar voxels, Eqs. (1)-(3).

    Args:
        channels: Channels C.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        reduction: Queries and keys have ``C / reduction`` channels.
    """

    def __init__(self, channels: int, *, conv_op: type[nn.Module], reduction: int = 8) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.query, self.key = conv_op(channels, narrow, 1), conv_op(channels, narrow, 1)
        self.value = conv_op(channels, channels, 1)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Context of ``x (B, C, *S)``; returns ``(B, C, *S)`` in float32 or more."""
        with no_autocast(x):  # unscaled energies reach 1e9 and more, float16 ends at 65,504
            x = widened(x)
            return x + self.alpha * self.context(x)

    def context(self, x: Tensor) -> Tensor:
        """X' of ``x (B, C, *S)``: softmax of unscaled energies over all voxels, Eq. (2)."""
        query, key = torch.relu(self.query(x)), torch.relu(self.key(x))
        gathered = attend(*(t.flatten(2).transpose(1, 2) for t in (query, key, self.value(x))))
        return gathered.transpose(1, 2).unflatten(2, x.shape[2:])

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """The row of its map that belongs to one position; see ``blocks.attention_spec``."""
        title, source = "Spatial context: weights with which the point gathers", "MFCNet, Eq. (2)"
        return [AttentionSpec("spatial_context", title, source, POSITIONS, level, self, self._row)]

    def _row(self, call: ModuleCall) -> Tensor:
        x = widened(call.inputs[0])
        here = position_of(call.point, x.shape[2:])
        query, key = (torch.relu(project(x)).flatten(2) for project in (self.query, self.key))
        energies = query[:, :, here : here + 1].transpose(1, 2) @ key
        return torch.softmax(energies, 2).unflatten(2, x.shape[2:])


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``softmax(query key^T) value`` of ``(B, N, D)``, ``(B, N, D)`` and ``(B, N, C)``, D at most C; ``(B, N, C)``.

    Memory is linear in N, training and inference, because torch's fused kernels apply. They want equal widths (zeros
    change no energy) with the channels next to each other. Queries are independent of each other, so they are dealt out
    as heads: on CPUs the backward pass of a single head runs on a single core.
    """
    voxels, width = value.shape[1:]
    parts = max(1, _PARALLEL // value.shape[0])
    rows = -(-voxels // parts)
    narrower = width - query.shape[2]
    query = F.pad(query, (0, narrower, 0, parts * rows - voxels)).contiguous().unflatten(1, (parts, rows))
    key, value = (t.contiguous()[:, None].expand(-1, parts, -1, -1) for t in (F.pad(key, (0, narrower)), value))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0).flatten(1, 2)[:, :voxels]


class ChannelContext(nn.Module):
    """``X + beta X'``, where X' mixes the channels of X by their similarity, Eqs. (4)-(6).

    Args:
        energy: Key of ``ENERGIES``: what the softmax over channels is taken of.
    """

    def __init__(self, *, energy: str = "paper") -> None:
        super().__init__()
        if energy not in ENERGIES:
            raise UserError(f"the channel energy is {energy!r}, but must be one of {', '.join(ENERGIES)}.")
        self.energy = energy
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Context of ``x (B, C, *S)``; returns ``(B, C, *S)`` in float32 or more."""
        with no_autocast(x):  # unscaled energies reach 1e9 and more, float16 ends at 65,504
            x = widened(x)
            return x + self.beta * (self.mixing(x) @ x.flatten(2)).unflatten(2, x.shape[2:])

    def mixing(self, x: Tensor) -> Tensor:
        """M ``(B, C, C)`` of ``x (B, C, *S)``, whose rows sum to 1, Eq. (4)."""
        flat = x.flatten(2)
        return torch.softmax(ENERGIES[self.energy](flat @ flat.transpose(1, 2), flat.shape[2]), -1)

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """The largest weight in every row of M (1: a channel gathers a single one); see ``blocks.attention_spec``."""
        title, source = "Channel context: largest weight in the row of each channel", "MFCNet, Eq. (4)"

        def read(call: ModuleCall) -> Tensor:
            return self.mixing(widened(call.inputs[0])).amax(2)

        return [AttentionSpec("channel_context", title, source, VECTOR, level, self, read)]


# name -> (dot products (B, C, C), number of voxels N) -> energies
ENERGIES = {
    "paper": lambda products, voxels: products,  # Eq. (4)
    "danet": lambda products, voxels: products.amax(-1, keepdim=True) - products,  # DANet's code: the least similar
    "scaled": lambda products, voxels: products / voxels,  # ours: the softmax does not saturate on large maps
}


class ContextBlock(nn.Module):
    """The sum of both extractors on one skip connection, Eq. (7), or one of them alone.

    Args:
        channels: Channels C.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        spatial: Whether there is the spatial extractor.
        energy: Key of ``ENERGIES``, or ``None`` for no channel extractor.
    """

    def __init__(
        self, channels: int, *, conv_op: type[nn.Module], spatial: bool = True, energy: str | None = "paper"
    ) -> None:
        super().__init__()
        if not spatial and energy is None:
            raise UserError("a context block needs at least one extractor: spatial, channel or both.")
        self.extractors = nn.ModuleDict()
        if spatial:
            self.extractors["spatial"] = SpatialContext(channels, conv_op=conv_op)
        if energy is not None:
            self.extractors["channel"] = ChannelContext(energy=energy)

    def forward(self, x: Tensor) -> Tensor:
        """Context of ``x (B, C, *S)``; returns ``(B, C, *S)`` in float32 or more. Both together start as ``2 X``."""
        return sum(extractor(x) for extractor in self.extractors.values())

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """What its extractors show; see ``blocks.attention_spec``."""
        return [one for extractor in self.extractors.values() for one in extractor.attention_specs(level)]
