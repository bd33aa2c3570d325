"""SemCor against Eqs. (7)-(9), and the folded head against the map that it replaces."""

import pytest
import torch
from torch import nn

from nnunet_livseg.blocks.semcor import SemanticCorrelation


def naive(block, x, coarser):
    axes = tuple(range(2, x.ndim))
    average = torch.cat([x.mean(axes), coarser.mean(axes)], 1)
    maximum = torch.cat([x.amax(axes), coarser.amax(axes)], 1)
    inputs = [{"avg": average, "max": maximum}[p] for p in block.poolings]

    def mlp(t):
        hidden = t @ block.mlp[0].weight.T + block.mlp[0].bias
        hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
        return hidden @ block.mlp[2].weight.T + block.mlp[2].bias

    v = sum(mlp(t) for t in inputs) if block.shared_mlp else mlp(torch.cat(inputs, 1))
    weights = 1 / (1 + torch.exp(-v))
    return torch.einsum("bc,bc...->bc...", weights, block.g(x))


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("pooling", ["avg", "max", "both"])
@pytest.mark.parametrize("shared_mlp", [False, True])
@pytest.mark.parametrize("g", [False, True])
def test_equals_the_equations_and_the_folded_head_equals_the_naive_one(dim, pooling, shared_mlp, g):
    torch.manual_seed(0)
    conv = nn.Conv3d if dim == 3 else nn.Conv2d
    block = SemanticCorrelation(6, 4, conv_op=conv, pooling=pooling, shared_mlp=shared_mlp, reduction=2, g=g).double()
    head = conv(6, 3, 1).double()
    x = torch.randn(2, 6, *(3, 5, 7)[:dim], dtype=torch.double)
    coarser = torch.randn(2, 4, *(2, 3, 4)[:dim], dtype=torch.double)
    torch.testing.assert_close(block(x, coarser), naive(block, x, coarser))
    torch.testing.assert_close(block.predict(x, coarser, head), head(naive(block, x, coarser)))
