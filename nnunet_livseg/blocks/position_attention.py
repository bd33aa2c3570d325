"""PAM: every position of a coarse map sees every other one, without a map of N x N weights.

Yu and Han, MPU-Net, arXiv:2307.05799, section 3.2.3, Eqs. (6)-(9); the position attention of DANet (Fu et al., 2019).
Readings (docs/papers/mpunet.md): the softmax of Eq. (8) runs over the positions that a position looks at, the sum of
Eq. (9) over all of them. With one head, queries and keys have C/8 channels and their products are not scaled, as in
the authors' code, whose parameter count the paper prints. With more heads the text holds: full width, scaled by
1/sqrt(d), and a linear map of all heads.
Un-scaled products leave fp16's range, and bf16 rounds them by whole numbers, so everything runs in at least float32.
"""

# Shape letters:  B batch, C channels, H heads, d channels of a head, N positions, *S spatial sizes with product N

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import POSITIONS, AttentionSpec, ModuleCall, position_of
from nnunet_livseg.blocks.precision import no_autocast, widened
from nnunet_livseg.core.errors import UserError

REDUCTION = 8  # of queries and keys; the printed parameter count leaves no other
MAP_ELEMENTS = 2**22  # of the rows of the N x N map that exist at a time, 16 MiB; more where B and N are large:
FEWEST_ROWS = 256


class PositionAttention(nn.Module):
    """Self-attention over positions, added to its input with a weight that starts at 0.

    Args:
        channels: Channels C.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        n_heads: 1 is the authors' code; more are Eqs. (6) and (7), with more parameters.

    Raises:
        UserError: C does not divide by the number of heads.
    """

    def __init__(self, channels: int, *, conv_op: type[nn.Module], n_heads: int = 1) -> None:
        super().__init__()
        _require_divisible(channels, n_heads)
        inner = max(1, channels // REDUCTION) if n_heads == 1 else channels
        self.n_heads = n_heads
        self.scale = 1.0 if n_heads == 1 else (channels // n_heads) ** -0.5
        self.query = conv_op(channels, inner, 1)
        self.key = conv_op(channels, inner, 1)
        self.value = conv_op(channels, channels, 1)
        self.join = nn.Identity() if n_heads == 1 else conv_op(channels, channels, 1)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the positions of ``x (B, C, *S)``, Eq. (9); returns ``(B, C, *S)`` in float32 or more."""
        with no_autocast(x):
            x = widened(x)
            q, k, v = (self._heads(project(x)) for project in (self.query, self.key, self.value))
            attended = attend(q, k, v, scale=self.scale)
            return self.gain * self.join(attended.transpose(2, 3).reshape(x.shape)) + x

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """The row of its map that belongs to one position, mean over the heads; see ``blocks.attention_spec``."""
        title, source = "PAM: what the point attends to", "MPU-Net, Eq. (8)"
        return [AttentionSpec("pam", title, source, POSITIONS, level, self, self._row)]

    def _row(self, call: ModuleCall) -> Tensor:
        x = widened(call.inputs[0])
        here = position_of(call.point, x.shape[2:])
        q, k = (self._heads(project(x)) for project in (self.query, self.key))
        return _weights(self.scale * q[:, :, here : here + 1], k).mean(1).unflatten(2, x.shape[2:])

    def _heads(self, x: Tensor) -> Tensor:
        """``(B, H * d, *S)`` as ``(B, H, N, d)``."""
        return x.flatten(2).unflatten(1, (self.n_heads, -1)).transpose(2, 3)


def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """``softmax(scale * q k^T) v`` for ``q, k (B, H, N, d)`` and ``v (B, H, N, D)``, in memory linear in N.

    Some rows of the N x N map exist at a time. PyTorch's fused attention is linear in memory as well, but on CPUs only
    for q, k and v of equal width, and there its gradient takes several times as long.
    """
    return _Attend.apply(scale * q, k, v)


class _Attend(torch.autograd.Function):
    """Attention by rows, which are computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(v)
        for some, part in _by_rows(q, out):
            part.copy_(_weights(some, k) @ v)
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients; that of a softmax with weights w is ``w * (dw - sum(w * dw))``, here with the sum ``grad out``."""
        q, k, v, out = ctx.saved_tensors
        shift = (grad * out).sum(3, keepdim=True)
        grad_q, grad_k, grad_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for some, some_grad, some_shift, part in _by_rows(q, grad, shift, grad_q):
            weights = _weights(some, k)
            grad_v += weights.transpose(2, 3) @ some_grad
            weights *= some_grad @ v.transpose(2, 3) - some_shift  # now the logits' gradient
            part.copy_(weights @ k)
            grad_k += weights.transpose(2, 3) @ some
        return grad_q, grad_k, grad_v


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(2, 3), 3)


def _by_rows(q: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of a part of the positions of each ``(B, H, N, *)``."""
    rows = max(FEWEST_ROWS, MAP_ELEMENTS // (q.shape[0] * q.shape[1] * q.shape[2]))
    return zip(*(x.split(rows, 2) for x in (q, *others)), strict=True)


class PositionEmbedding(nn.Module):
    """A learned vector per position of a grid, Eq. (2); on other grids it is interpolated.

    Args:
        channels: Channels C.
        grid: Sizes of the grid on which it is learned, in the order of the axes.
    """

    def __init__(self, channels: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(1, channels, *grid))
        self._mode = "trilinear" if len(grid) == 3 else "bilinear"

    def forward(self, x: Tensor) -> Tensor:
        """Add the embedding to ``x (B, C, *S)``; returns ``(B, C, *S)``."""
        if x.shape[2:] == self.embedding.shape[2:]:
            return x + self.embedding
        return x + F.interpolate(self.embedding, x.shape[2:], mode=self._mode, align_corners=False)


def _require_divisible(channels: int, n_heads: int) -> None:
    if not isinstance(n_heads, int) or n_heads < 1 or channels % n_heads:
        raise UserError(
            f"n_heads is {n_heads}, but the position attention splits {channels} channels evenly among its heads."
            f"\n  Choose a number of heads that divides {channels}."
        )
