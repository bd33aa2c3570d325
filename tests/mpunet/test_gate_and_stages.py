"""The gate against Eqs. (10)-(12), down-sampling and the multi-scale block against Eqs. (5) and (14)-(17)."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_livseg.blocks.mpunet_gate import SteeredGate
from nnunet_livseg.blocks.mpunet_stages import MultiScaleBlock, ResidualStage, SlidingMaximum, convolutions, down, up

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def linear(conv, x):
    weight = conv.weight.reshape(conv.weight.shape[0], -1)
    return torch.einsum("oc,bc...->bo...", weight, x) + conv.bias.view(1, -1, *[1] * (x.ndim - 2))


def normalized(norm, x):
    view = (1, -1, *[1] * (x.ndim - 2))
    mean, var = norm.running_mean.view(view), norm.running_var.view(view)
    return (x - mean) / (var + norm.eps) ** 0.5 * norm.weight.view(view) + norm.bias.view(view)


def shaken(module):
    """``module`` for prediction, with normalizations that have something to do."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight.data.uniform_(0.5, 2)
            norm.bias.data.normal_()
    return module.eval()


@pytest.mark.parametrize("coarser", [False, True])
def test_gate_equals_its_equations(dim, coarser):
    torch.manual_seed(0)
    gate = shaken(SteeredGate(6, 5, conv_op=CONV[dim], norm=NORM[dim]))
    x = torch.randn(2, 6, *(4, 6, 10)[:dim])
    steering = torch.randn(2, 5, *(2, 3, 5)[:dim]) if coarser else torch.randn(2, 5, *(4, 6, 10)[:dim])
    w_x = normalized(gate.see[1], linear(gate.see[0], x))
    w_g = normalized(gate.steer[1], linear(gate.steer[0], steering))
    if coarser:
        w_g = F.interpolate(w_g, x.shape[2:], mode="trilinear" if dim == 3 else "bilinear")
    inner = (w_x + w_g).clamp(min=0)
    alpha = 1 / (1 + torch.exp(-normalized(gate.weigh[1], linear(gate.weigh[0], inner))))
    torch.testing.assert_close(gate(x, steering), x * alpha)
    assert alpha.shape[1] == 1


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2), (1, 1, 1)])
@pytest.mark.parametrize("elu_alpha", [1.0, "channels"])
def test_down_pools_convolves_normalizes_and_bends(dim, stride, elu_alpha):
    torch.manual_seed(0)
    stride = stride[:dim]
    kernel = (1, 3, 3)[:dim]
    block = shaken(down(CONV[dim], 3, 4, kernel, stride, norm=NORM[dim], elu_alpha=elu_alpha))
    x = torch.randn(2, 3, *(4, 6, 8)[:dim])
    # the largest of each axis' three neighbors, on axes that are reduced (or, without a stride, convolved) only
    reach = [n > 1 for n in (kernel if max(stride) == 1 else stride)]
    padded = F.pad(x, [1] * 2 * dim, value=-float("inf"))
    offsets = itertools.product(*[(-1, 0, 1) if r else (0,) for r in reach])
    windows = [
        padded[(..., *[slice(1 + o, 1 + o + n) for o, n in zip(offset, x.shape[2:], strict=True)])]
        for offset in offsets
    ]
    pooled = torch.stack(windows).amax(0)
    convolve = F.conv3d if dim == 3 else F.conv2d
    conv = block[1]
    size = kernel if max(stride) == 1 else stride
    assert conv.weight.shape[2:] == size
    padding = [n // 2 for n in kernel] if max(stride) == 1 else 0
    y = normalized(block[2], convolve(pooled, conv.weight, conv.bias, stride, padding))
    alpha = 4.0 if elu_alpha == "channels" else 1.0
    torch.testing.assert_close(block(x), torch.where(y > 0, y, alpha * (torch.exp(y) - 1)))


@pytest.mark.parametrize(("window", "size"), [((3, 3), (1, 7)), ((3, 3, 3), (4, 5, 2)), ((1, 3, 3), (3, 4, 6))])
def test_the_sliding_maximum_is_max_pooling_with_and_without_gradients(window, size):
    x = torch.randn(2, 3, *size)
    pool = nn.MaxPool3d if len(size) == 3 else nn.MaxPool2d
    expected = pool(window, stride=1, padding=[k // 2 for k in window])(x)
    before = x.clone()
    assert torch.equal(SlidingMaximum(window)(x), expected)
    with torch.no_grad():
        assert torch.equal(SlidingMaximum(window)(x), expected)
    assert torch.equal(x, before), "the input must stay as it is: the skip connection reads it"


def test_up_inverts_the_stride_of_down(dim):
    stride = (1, 2, 2)[:dim]
    block = up(CONV[dim], 5, 3, stride)
    x = torch.randn(2, 5, *(3, 4, 5)[:dim])
    y = block(x)
    assert y.shape == (2, 3, *(n * s for n, s in zip(x.shape[2:], stride, strict=True)))
    first = tuple([slice(None)] * 2 + [0] * dim)  # a corner depends on one voxel
    expected = torch.einsum("io,bi->bo", block[0].weight[first], x[first]) + block[0].bias
    torch.testing.assert_close(y[first], torch.where(expected > 0, expected, 0.25 * expected))


@pytest.mark.parametrize("inputs", [1, 2, 4])
def test_residual_stage_adds_its_input(dim, inputs):
    torch.manual_seed(0)
    stage = ResidualStage(CONV[dim], inputs, 4, (3, 3, 3)[:dim])
    x = torch.randn(2, inputs, *(3, 4, 5)[:dim])
    shortcut = linear(stage.shortcut, x) if inputs == 2 else x
    torch.testing.assert_close(stage(x), stage.body(x) + shortcut)
    assert sum(p.numel() for p in stage.shortcut.parameters()) == (12 if inputs == 2 else 0)


def test_multi_scale_block_sees_near_and_far(dim):
    torch.manual_seed(0)
    block = MultiScaleBlock(CONV[dim], 3, 4, (3, 3, 3)[:dim])
    x = torch.randn(2, 3, *(9, 10, 11)[:dim])
    convolve = F.conv3d if dim == 3 else F.conv2d

    def bend(y, slope):
        return torch.where(y > 0, y, slope.view(1, -1, *[1] * dim) * y)

    parts = []
    for branch, reach in ((block.small, 1), (block.large, 2)):
        y = x
        for conv, prelu in ((branch[0], branch[1]), (branch[2], branch[3])):
            y = bend(convolve(y, conv.weight, conv.bias, padding=reach, dilation=reach), prelu.weight)
        parts.append(y)
    torch.testing.assert_close(block(x), linear(block.join, torch.cat(parts, 1)))


def test_convolutions_keep_the_size_on_thick_slices():
    x = torch.randn(1, 2, 3, 4, 5)
    assert convolutions(nn.Conv3d, 2, 3, (1, 3, 3), count=3, dilation=2)(x).shape == (1, 3, 3, 4, 5)
