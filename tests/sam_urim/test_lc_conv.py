"""LC-Conv against Eq. (4), window by window."""

import itertools

import pytest
import torch
from torch import nn

from nnunet_livseg.blocks.lc_conv import LocalConfidenceConv

SIZES = (3, 4, 5)


def lc_conv(kernel, *, bias="outside", channels=3, out_channels=2):
    torch.manual_seed(0)
    conv_op = {2: nn.Conv2d, 3: nn.Conv3d}[len(kernel)]
    block = LocalConfidenceConv(channels, out_channels, conv_op=conv_op, kernel_size=kernel, bias=bias)
    nn.init.normal_(block.bias)
    return block


def inputs(dim, channels=3):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, channels, *SIZES[-dim:], dtype=torch.double, generator=generator)
    return x, torch.rand(2, 1, *SIZES[-dim:], dtype=torch.double, generator=generator)


def window_by_window(block, x, m):
    """Eq. (4) at every position; what lies outside the image has confidence 0."""
    kernel, sizes = block.kernel_size, x.shape[2:]
    result = torch.zeros(x.shape[0], block.conv.weight.shape[0], *sizes, dtype=x.dtype)
    bias = block.bias.flatten()
    for position in itertools.product(*map(range, sizes)):
        summed, total = 0, 0
        for offset in itertools.product(*map(range, kernel)):
            there = tuple(p + o - k // 2 for p, o, k in zip(position, offset, kernel, strict=True))
            if all(0 <= t < n for t, n in zip(there, sizes, strict=True)):
                masked = x[(..., *there)] * m[(..., *there)]
                summed = summed + masked @ block.conv.weight[(..., *offset)].T
                total = total + m[(..., *there)]
        if block.bias_position == "inside":
            value = torch.where(total > 1e-6, (summed + bias) / total, 0)
        else:
            value = torch.where(total > 1e-6, summed / total, 0) + bias
        result[(..., *position)] = value
    return result


@pytest.mark.parametrize("kernel", [(3, 3), (3, 3, 3), (1, 3, 3)])
@pytest.mark.parametrize("bias", ["outside", "inside"])
def test_equals_the_equation(kernel, bias):
    block = lc_conv(kernel, bias=bias).double()
    x, m = inputs(len(kernel))
    torch.testing.assert_close(block(x, m), window_by_window(block, x, m))


@pytest.mark.parametrize("kernel", [(3, 3), (3, 3, 3)])
def test_a_window_without_confidence_gives_the_bias(kernel):
    block = lc_conv(kernel).double()
    x, m = inputs(len(kernel))
    m[..., :3] = 0  # all that the first two columns see
    x, m = x.requires_grad_(), m.requires_grad_()
    out = block(x, m)
    torch.testing.assert_close(out, window_by_window(block, x, m))
    torch.testing.assert_close(out[..., 0], block.bias[..., 0].expand_as(out[..., 0]))
    out.square().sum().backward()
    assert x.grad.isfinite().all() and m.grad.isfinite().all() and block.bias.grad.isfinite().all()


def test_nothing_sure_at_all_is_finite():
    for bias in ("outside", "inside"):
        block = lc_conv((3, 3), bias=bias)
        out = block(torch.randn(1, 3, 4, 5), torch.zeros(1, 1, 4, 5))
        out.sum().backward()
        assert out.isfinite().all() and block.conv.weight.grad.isfinite().all()


@pytest.mark.parametrize("factor", [1e-4, 0.3])
def test_only_the_ratio_of_confidences_counts(factor):
    block = lc_conv((3, 3)).double()
    x, m = inputs(2)
    torch.testing.assert_close(block(x, m * factor), block(x, m))


def test_equal_confidence_is_the_mean_over_the_window():
    """An ordinary convolution, divided by the positions of the window that lie in the image."""
    block = lc_conv((3, 3)).double()
    x, _ = inputs(2)
    inside = torch.full(x.shape[2:], 9.0, dtype=torch.double)
    inside[[0, -1]] -= 3
    inside[:, [0, -1]] = inside[:, [0, -1]] / 3 * 2
    out = block(x, torch.full_like(x[:, :1], 0.2))
    torch.testing.assert_close(out, block.conv(x) / inside + block.bias)


@pytest.mark.parametrize("bias", ["outside", "inside"])
def test_finite_in_half_precision_with_large_activations(bias):
    """258 channels of 1e4 sum to far beyond float16; a confidence of 1e-8 is 0 in float16."""
    block = lc_conv((3, 3), bias=bias, channels=258, out_channels=16)
    block.conv.weight.data.abs_()
    x = torch.full((2, 258, 6, 7), 1e4).half().requires_grad_()
    m = torch.full((2, 1, 6, 7), 1e-5)
    m[0, ..., :4] = 0
    m.requires_grad_()
    with torch.autocast("cpu", dtype=torch.float16):
        out = block(x, m)
    assert out.dtype == torch.float32 and out.isfinite().all()
    exact = block.double()(x.double(), m.double()).float()
    torch.testing.assert_close(out, exact, rtol=1e-2, atol=1e-3 * exact.abs().max().item())
    (out / out.detach().abs().amax()).mean().backward()
    assert x.grad.isfinite().all() and m.grad.isfinite().all()
