"""GCA: align all encoder levels at full resolution and fuse them, weighted by the global context.

Zhang et al., Semantic Feature Attention Network, arXiv:1911.00282, section 2, Eqs. (2) and (3).
Readings (docs/papers/sfan.md): 1x1 convolution before upsampling, corners not aligned, the 3x3 convolution has C'
outputs.

The L*C' aligned channels are never made at full resolution. Weights that belong to channels (V of SAT, G) go into the
1x1 convolution of their level; the 3x3 convolution runs level by level; and on coarse levels, where upsampling and
convolution are both linear, the convolution's channels are mixed on the coarse grid and the upsampling with the
convolution's shifts follows as one small matrix per axis. All of this computes the same function.
"""

# Shape letters:  B batch, L levels, C_l channels and *S_l sizes of level l (level 0 is full resolution), C' aligned
# channels, *K kernel of the fusing convolution, n and m sizes of one axis

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import VECTOR, AttentionSpec, ModuleCall
from nnunet_livseg.blocks.sat import ContextVector


class GlobalContextAttention(nn.Module):
    """Alignment blocks, global attention and the 3x3 convolution that fuses the levels.

    Args:
        channels: Channels C_l of the levels, finest first.
        aligned_channels: Channels C' of every aligned level and of the result.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        kernel_size: Kernel of the fusing convolution, one entry per axis.
        weighted: Whether the global context weights the aligned channels (otherwise G = 1).
        hidden: Outputs of the first convolution of the global attention; those of the deepest level if left out.
        inner_activation: See ``blocks.sat.ContextVector``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        aligned_channels: int,
        *,
        conv_op: type[nn.Module],
        kernel_size: Sequence[int],
        weighted: bool = True,
        hidden: int | None = None,
        inner_activation: str | None = None,
    ) -> None:
        super().__init__()
        self.aligned_channels = aligned_channels
        total = len(channels) * aligned_channels
        aligning, fusing = _CONVOLUTIONS[conv_op]
        self.align = nn.ModuleList(aligning(c, aligned_channels, 1) for c in channels)
        self.attend = None
        if weighted:
            self.attend = ContextVector(
                channels[-1], hidden or channels[-1], total, conv_op=conv_op, inner_activation=inner_activation
            )
        self.fuse = fusing(total, aligned_channels, tuple(kernel_size), padding=tuple(k // 2 for k in kernel_size))

    def attention(self, deepest: Tensor) -> Tensor:
        """Global context weights G ``(B, L, C')`` in (0, 1) from ``deepest (B, C_(L-1), *S_(L-1))``, Eq. (3)."""
        return self.attend(deepest).unflatten(1, (len(self.align), self.aligned_channels))

    def forward(self, levels: Sequence[Tensor], channel_weights: Sequence[Tensor | None]) -> Tensor:
        """Fuse ``levels (B, C_l, *S_l)``, finest first; returns ``(B, C', *S_0)``, before any activation.

        Args:
            levels: Encoder levels H_l.
            channel_weights: V_l ``(B, C_l)`` per level, or ``None`` where a level passes unweighted.
        """
        g = [None] * len(levels) if self.attend is None else self.attention(levels[-1]).unbind(1)
        return self.fuse([align(*x) for align, *x in zip(self.align, levels, channel_weights, g, strict=True)])

    def attention_specs(self) -> list[AttentionSpec]:
        """The part of G that weights each level's aligned channels; see ``blocks.attention_spec``."""
        if self.attend is None:
            return []

        def part(level: int) -> AttentionSpec:
            def read(call: ModuleCall) -> Tensor:
                return call.output.unflatten(1, (len(self.align), self.aligned_channels))[:, level]

            return AttentionSpec("gca", "GCA: global context G", "SFAN, Eq. (3)", VECTOR, level, self.attend, read)

        return [part(level) for level in range(len(self.align))]


class _Aligning:
    """A 1x1 convolution whose inputs and outputs are weighted."""

    def forward(self, x: Tensor, v: Tensor | None, g: Tensor | None) -> Tensor:
        """``g * conv1(v * x)``, Eqs. (1) to (3), by one small matrix per case; ``(B, C', *S)``.

        Args:
            x: A level ``(B, C, *S)``.
            v: Weights ``(B, C)`` of its channels, or ``None`` for ones.
            g: Weights ``(B, C')`` of the aligned channels, or ``None`` for ones.
        """
        batch = x.shape[0]
        matrix, bias = self.weight.flatten(1).expand(batch, -1, -1), self.bias.expand(batch, -1)
        if v is not None:
            matrix = matrix * v[:, None]
        if g is not None:
            matrix, bias = g[..., None] * matrix, g * bias
        return torch.baddbmm(bias[..., None], matrix, x.flatten(2)).unflatten(2, x.shape[2:])


class _Fusing:
    """A convolution of the concatenation of upsampled maps, one map after the other."""

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Upsample ``levels (B, C', *S_l)`` to the first one's size, concatenate, convolve; ``(B, C', *S_0)``."""
        size = levels[0].shape[2:]
        kernels = self.weight.split(levels[0].shape[1], 1)
        fused = convolved_at(levels[0], kernels[0], size, bias=self.bias)
        coarse = []
        for level, kernel in zip(levels[1:], kernels[1:], strict=True):
            if mixes_first(level, kernel, size):
                coarse.append(_rows_and_table(level, kernel, size))
            else:
                fused = fused + convolved_at(level, kernel, size)
        if coarse:  # one product along the last axis for all of them
            rows, tables = zip(*coarse, strict=True)
            fused = fused + torch.cat(rows, -1) @ torch.cat(tables)
        return fused


# they stay convolutions for nnU-Net's initialization and for everything that counts maps of convolutions
class _Aligning2d(_Aligning, nn.Conv2d): ...


class _Aligning3d(_Aligning, nn.Conv3d): ...


class _Fusing2d(_Fusing, nn.Conv2d): ...


class _Fusing3d(_Fusing, nn.Conv3d): ...


_CONVOLUTIONS = {nn.Conv2d: (_Aligning2d, _Fusing2d), nn.Conv3d: (_Aligning3d, _Fusing3d)}


def convolved_at(x: Tensor, kernel: Tensor, size: Sequence[int], *, bias: Tensor | None = None) -> Tensor:
    """Upsample ``x (B, C, *S)`` linearly to ``size`` and convolve it there, zero padded; ``(B, N, *size)``.

    Args:
        x: A map at its own resolution.
        kernel: Weights ``(N, C, *K)`` with odd K.
        size: Spatial sizes of the result.
        bias: Bias ``(N)`` of the convolution.
    """
    if mixes_first(x, kernel, size):
        rows, table = _rows_and_table(x, kernel, size)
        fused = rows @ table
        return fused if bias is None else fused + bias.view(-1, *[1] * len(size))
    if tuple(x.shape[2:]) != tuple(size):
        mode = "trilinear" if len(size) == 3 else "bilinear"
        x = F.interpolate(x, size=tuple(size), mode=mode, align_corners=False)
    convolve = F.conv3d if len(size) == 3 else F.conv2d
    return convolve(x, kernel, bias, padding=tuple(k // 2 for k in kernel.shape[2:]))


def mixes_first(x: Tensor, kernel: Tensor, size: Sequence[int]) -> bool:
    """Whether the maps of all taps on the grid of ``x`` are smaller than one map of ``size``."""
    return prod(kernel.shape[2:]) * prod(x.shape[2:]) < prod(size)


def _rows_and_table(x: Tensor, kernel: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Two factors whose product is ``convolved_at``, without an upsampled map of C channels.

    Every tap of the kernel mixes channels on the coarse grid, and each axis is upsampled and shifted by its taps in
    one product; that along the last axis is left to the caller.

    Returns:
        Rows ``(B, N, *size but the last, taps * n)`` and the table ``(taps * n, m)`` of the last axis.
    """
    mixing = kernel.flatten(2).transpose(1, 2).flatten(0, 1)  # (N * prod(K), C)
    mixed = (mixing @ x.flatten(2)).unflatten(2, x.shape[2:]).unflatten(1, (kernel.shape[0], *kernel.shape[2:]))
    *tables, last = (
        _up_sampling_table(coarse, full, taps, like=mixed)
        for coarse, full, taps in zip(x.shape[2:], size, kernel.shape[2:], strict=True)
    )
    for remaining, table in zip(range(len(size), 1, -1), tables, strict=True):
        mixed = torch.tensordot(mixed, table, dims=([2, 2 + remaining], [0, 1]))  # (B, N, *remaining K, *S, *done)
    return mixed.movedim((2, 3), (-2, -1)).flatten(-2), last.flatten(0, 1)


def _up_sampling_table(coarse: int, full: int, taps: int, *, like: Tensor) -> Tensor:
    """Linear upsampling of an axis from n to m voxels, once per tap and shifted by it; ``(taps, n, m)``.

    Entry ``[t, i, j]`` is the share of coarse voxel i in full voxel ``j + t - taps // 2``, 0 beyond the border.
    """
    unit = torch.eye(coarse, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    shares = F.interpolate(unit[None], size=full, mode="linear", align_corners=False)[0]
    reach = taps // 2
    padded = F.pad(shares, (reach, reach))
    return torch.stack([padded[:, tap : tap + full] for tap in range(taps)]).to(like.dtype)
