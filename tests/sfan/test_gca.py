"""GCA and its savings against Eqs. (2) and (3) with the concatenated map P really made."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_livseg.blocks.gca import GlobalContextAttention, convolved_at

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
MODE = {2: "bilinear", 3: "trilinear"}
CONVOLVE = {2: F.conv2d, 3: F.conv3d}


def naive(block, levels, channel_weights):
    """Eqs. (2) and (3) as printed: weigh, align, up-sample, concatenate, weigh, convolve."""
    dim, size = levels[0].ndim - 2, levels[0].shape[2:]
    ones = (1,) * dim
    aligned = []
    for level, v, align in zip(levels, channel_weights, block.align, strict=True):
        s = level if v is None else level * v.reshape(*v.shape, *ones)
        p = CONVOLVE[dim](s, align.weight, align.bias)
        aligned.append(F.interpolate(p, size=size, mode=MODE[dim], align_corners=False))
    p = torch.cat(aligned, 1)
    if block.attend is not None:
        pooled = levels[-1].flatten(2).mean(2).reshape(*levels[-1].shape[:2], *ones)
        p = torch.sigmoid(block.attend.excite(block.attend.squeeze(pooled))) * p
    return CONVOLVE[dim](p, block.fuse.weight, block.fuse.bias, padding=block.fuse.padding)


def pyramid(dim, strides, channels, *, batch=2, base=(16, 24, 32)):
    torch.manual_seed(0)
    levels, size = [], list(base[-dim:])
    for c, stride in zip(channels, strides, strict=True):
        size = [n // s for n, s in zip(size, stride, strict=True)]
        levels.append(torch.randn(batch, c, *size, dtype=torch.float64))
    weights = [torch.rand(batch, c, dtype=torch.float64) for c in channels[:-1]]
    return levels, [*weights, None]


GEOMETRIES = {
    "2d": ([(1, 1), (2, 2), (2, 2), (2, 2)], (3, 3)),
    "2d, one axis pooled": ([(1, 1), (2, 2), (1, 2), (2, 4)], (3, 3)),
    "3d": ([(1, 1, 1), (2, 2, 2), (2, 2, 2)], (3, 3, 3)),
    "3d, thick slices": ([(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)], (1, 3, 3)),
}


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gca_is_the_naive_form(geometry, weighted):
    strides, kernel = GEOMETRIES[geometry]
    dim, channels = len(kernel), (4, 6, 8, 9)[: len(strides)]
    levels, v = pyramid(dim, strides, channels)
    block = GlobalContextAttention(channels, 5, conv_op=CONV[dim], kernel_size=kernel, weighted=weighted).double()
    levels = [level.requires_grad_() for level in levels]
    ours, theirs = block(levels, v), naive(block, levels, v)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    target = torch.randn_like(ours)
    inputs = [*levels, *block.parameters()]
    for one, other in zip(
        torch.autograd.grad((ours * target).sum(), inputs),
        torch.autograd.grad((theirs * target).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_gca_in_float32_is_the_naive_form_to_1e_5():
    levels, v = pyramid(3, GEOMETRIES["3d"][0], (8, 16, 32))
    block = GlobalContextAttention((8, 16, 32), 8, conv_op=nn.Conv3d, kernel_size=(3, 3, 3))
    levels, v = [level.float() for level in levels], [w if w is None else w.float() for w in v]
    torch.testing.assert_close(block(levels, v), naive(block, levels, v), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "full", "kernel"),
    [((4, 3), (32, 24), (3, 3)), ((4, 3), (8, 6), (3, 3)), ((3, 5), (20, 31), (5, 1)), ((1, 1), (16, 12), (3, 3)),
     ((2, 3, 4), (2, 24, 32), (1, 3, 3)), ((2, 3, 2), (16, 12, 18), (3, 3, 3)), ((6, 4), (6, 4), (3, 3))],
)  # fmt: skip
def test_convolution_of_an_up_sampled_map(size, full, kernel):
    """Both ways of computing it, odd ratios and single voxels; the borders' zero padding included."""
    torch.manual_seed(0)
    dim = len(size)
    x, weight = torch.randn(2, 3, *size).double(), torch.randn(4, 3, *kernel).double()
    bias = torch.randn(4).double()
    up = F.interpolate(x, size=full, mode=MODE[dim], align_corners=False)
    expected = CONVOLVE[dim](up, weight, bias, padding=[k // 2 for k in kernel])
    torch.testing.assert_close(convolved_at(x, weight, full, bias=bias), expected, rtol=0, atol=1e-12)


def test_nothing_with_all_aligned_channels_is_kept_at_full_resolution():
    """The naive form keeps L*C' maps and their up-sampled parts; ours C' of level 0 and of the up-sampled level 1."""
    strides, channels = [(1, 1)] + [(2, 2)] * 4, (8, 8, 8, 8, 8)
    levels, v = pyramid(2, strides, channels, base=(64, 64))
    block = GlobalContextAttention(channels, 8, conv_op=nn.Conv2d, kernel_size=(3, 3)).double()
    levels = [level.requires_grad_() for level in levels]
    full = levels[0][0, 0].numel()
    inputs = {level.data_ptr() for level in levels}

    def kept(compute):
        seen = {}

        def pack(tensor):
            if tensor.data_ptr() not in inputs:
                seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() / 8
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = compute(block, levels, v)
        del result
        return sum(seen.values()) / levels[0].shape[0] / full

    assert kept(lambda b, x, w: b(x, w)) < 2.6 * 8  # level 0, up-sampled level 1, coarse levels, small matrices
    assert kept(naive) > 2 * 5 * 8
