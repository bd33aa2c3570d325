"""SAT against Eq. (1), written out with loops over numpy arrays."""

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_livseg.blocks.sat import SemanticAttentionTransmission

CONV = {2: nn.Conv2d, 3: nn.Conv3d}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def attention_by_hand(block, deeper, inner):
    first, second = block.attend.squeeze, block.attend.excite
    rows = []
    for case in deeper.numpy():
        z = np.array([channel.sum() / channel.size for channel in case])
        z = inner(first.weight.detach().numpy().reshape(first.out_channels, -1) @ z + first.bias.detach().numpy())
        z = second.weight.detach().numpy().reshape(second.out_channels, -1) @ z + second.bias.detach().numpy()
        rows.append(sigmoid(z))
    return np.stack(rows)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(
    ("name", "inner"), [(None, lambda z: z), ("relu", lambda z: np.maximum(z, 0)), ("sigmoid", sigmoid)]
)
def test_sat_is_equation_1(dim, name, inner):
    torch.manual_seed(0)
    block = SemanticAttentionTransmission(5, 7, conv_op=CONV[dim], inner_activation=name).double()
    x, deeper = torch.randn(2, 5, *(8, 6, 4)[:dim]).double(), 3 * torch.randn(2, 7, *(4, 3, 2)[:dim]).double()
    expected = np.stack(
        [[v * channel for v, channel in zip(weights, case, strict=True)]
         for weights, case in zip(attention_by_hand(block, deeper, inner), x.numpy(), strict=True)]
    )  # fmt: skip
    np.testing.assert_allclose(block(x, deeper).detach().numpy(), expected, atol=1e-12)


def test_hidden_width_is_that_of_the_level_unless_given():
    assert SemanticAttentionTransmission(5, 7, conv_op=nn.Conv2d).attend.squeeze.out_channels == 5
    assert SemanticAttentionTransmission(5, 7, conv_op=nn.Conv2d, hidden=7).attend.squeeze.out_channels == 7


def test_attention_stays_in_float32_under_autocast():
    block = SemanticAttentionTransmission(5, 7, conv_op=nn.Conv2d)
    with torch.autocast("cpu", dtype=torch.float16):
        weights = block.attention(torch.full((1, 7, 64, 64), 6e4, dtype=torch.float16))  # its sum is no float16
    assert weights.dtype == torch.float32 and torch.isfinite(weights).all()
