"""DAC, RMP and the context blocks against their formulas, written out a second time voxel by voxel."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_livseg.blocks.context import ENERGIES, ChannelContext, ContextBlock, SpatialContext, attend
from nnunet_livseg.blocks.dac import DenseAtrousConvolution
from nnunet_livseg.blocks.rmp import ResidualMultiKernelPooling
from nnunet_livseg.core.errors import UserError

CONVS = {2: nn.Conv2d, 3: nn.Conv3d}
SIZES = {2: (5, 7), 3: (3, 4, 5)}


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def dim(request):
    return request.param


def _features(dim, channels, scale=1.0, sizes=None):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(2, channels, *(sizes or SIZES[dim]), generator=generator)


# --- DAC --------------------------------------------------------------------------------------------------------------


def _convolve(conv, x, dilation):
    """A 3x3(x3) convolution, tap by tap: shift the padded map and add."""
    dim = x.ndim - 2
    padded = F.pad(x, [dilation] * 2 * dim)
    total = conv.bias.view(1, -1, *[1] * dim)
    for tap in range(3**dim):
        index = [tap // 3**axis % 3 for axis in range(dim)]
        window = tuple(slice(i * dilation, i * dilation + n) for i, n in zip(index, x.shape[2:], strict=True))
        total = total + torch.einsum("oi,bi...->bo...", conv.weight[(..., *index)], padded[(..., *window)])
    return total


def test_dac_is_its_five_terms(dim):
    torch.manual_seed(0)
    dac = DenseAtrousConvolution(4, conv_op=CONVS[dim], kernel_size=(3,) * dim)
    x = _features(dim, 4)

    def point(t):
        return torch.einsum("oi,bi...->bo...", dac.c.weight.flatten(1), t) + dac.c.bias.view(1, -1, *[1] * dim)

    d1 = _convolve(dac.d1, x, 1)
    expected = x + d1.clamp(min=0) + point(_convolve(dac.d3, x, 3)).clamp(min=0)
    expected = expected + point(_convolve(dac.d3, d1, 3)).clamp(min=0)
    expected = expected + point(_convolve(dac.d5, _convolve(dac.d3, d1, 3), 5)).clamp(min=0)
    torch.testing.assert_close(dac(x), expected, rtol=1e-4, atol=1e-5)


def test_dac_parameters_and_thin_axes():
    dac = DenseAtrousConvolution(512, conv_op=nn.Conv2d, kernel_size=(3, 3))
    assert sum(p.numel() for p in dac.parameters()) == 7_342_080
    thin = DenseAtrousConvolution(2, conv_op=nn.Conv3d, kernel_size=(1, 3, 3))
    x = torch.randn(1, 2, 4, 9, 9)
    torch.testing.assert_close(thin(x)[:, :, 1:2], thin(x[:, :, 1:2]))  # slices do not see each other


# --- RMP --------------------------------------------------------------------------------------------------------------


def _pooled_and_upsampled(x, window):
    """Maxima over windows clipped to the map, then linear interpolation at voxel centers, axis by axis."""
    windows = [min(window, n) for n in x.shape[2:]]
    counts = [n // w for n, w in zip(x.shape[2:], windows, strict=True)]
    pooled = x
    for axis, (w, count) in enumerate(zip(windows, counts, strict=True), start=2):
        parts = [pooled.narrow(axis, i * w, w).amax(axis, keepdim=True) for i in range(count)]
        pooled = torch.cat(parts, axis)
    for axis, size in enumerate(x.shape[2:], start=2):
        count, columns = pooled.shape[axis], []
        for i in range(size):
            at = max((i + 0.5) * count / size - 0.5, 0)
            low = int(at)
            high, share = min(low + 1, count - 1), at - low
            columns.append(pooled.select(axis, low) * (1 - share) + pooled.select(axis, high) * share)
        pooled = torch.stack(columns, axis)
    return pooled


@pytest.mark.parametrize("sizes", [(14, 9), (1, 4), (4, 4, 4), (2, 5, 7), (1, 3, 3)])
def test_rmp_is_four_poolings_and_the_map(sizes):
    torch.manual_seed(0)
    rmp = ResidualMultiKernelPooling(3, conv_op=CONVS[len(sizes)])
    x = _features(len(sizes), 3, sizes=sizes)
    result = rmp(x)
    torch.testing.assert_close(result[:, 4:], x)
    for i, window in enumerate((2, 3, 5, 6)):  # squeezing and interpolating commute
        squeezed = torch.einsum("i,bi...->b...", rmp.squeeze.weight.flatten(), _pooled_and_upsampled(x, window))
        torch.testing.assert_close(result[:, i], squeezed + rmp.squeeze.bias, rtol=1e-4, atol=1e-5)


# --- spatial context --------------------------------------------------------------------------------------------------


def _spatial_by_voxels(block, x):
    """Eqs. (1)-(3), one voxel after another."""
    flat = x.flatten(2).double()

    def one_by_one(conv):
        return torch.einsum("oi,bin->bon", conv.weight.flatten(1).double(), flat) + conv.bias.double()[:, None]

    q, k, v = one_by_one(block.query).clamp(min=0), one_by_one(block.key).clamp(min=0), one_by_one(block.value)
    result = torch.empty_like(flat)
    for case in range(flat.shape[0]):
        for i in range(flat.shape[2]):
            energies = [sum(q[case, :, i] * k[case, :, j]).item() for j in range(flat.shape[2])]
            most = max(energies)
            weights = [math.exp(energy - most) for energy in energies]
            gathered = sum(w * v[case, :, j] for j, w in enumerate(weights)) / sum(weights)
            result[case, :, i] = block.alpha.item() * gathered + flat[case, :, i]
    return result.unflatten(2, x.shape[2:]).float()


def test_spatial_context_is_its_formula(dim):
    torch.manual_seed(0)
    block = SpatialContext(16, conv_op=CONVS[dim])
    block.alpha.data.fill_(0.7)
    x = _features(dim, 16)
    torch.testing.assert_close(block(x), _spatial_by_voxels(block, x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 11])
def test_attention_and_its_gradients_are_those_of_the_explicit_map(batch):
    torch.manual_seed(0)
    query, key = (torch.randn(batch, 45, 2, requires_grad=True) for _ in range(2))
    value = torch.randn(batch, 45, 16, requires_grad=True)
    direction = torch.randn(batch, 45, 16)
    explicit = torch.softmax(query @ key.transpose(1, 2), -1) @ value
    fused = attend(query, key, value)
    torch.testing.assert_close(fused, explicit, rtol=0, atol=1e-5)
    inputs = (query, key, value)
    for ours, theirs in zip(
        torch.autograd.grad((fused * direction).sum(), inputs),
        torch.autograd.grad((explicit * direction).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


MEMORY = """
import resource, sys, torch
from torch import nn
from nnunet_livseg.blocks.context import ContextBlock
block = ContextBlock(16, conv_op=nn.Conv3d)
for p in block.parameters():
    p.data.add_(0.01)
x = torch.randn(1, 16, 32, 32, 32, requires_grad=sys.argv[1] == "training")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
block(x[..., :4]).sum()  # libraries load
before = peak()
if sys.argv[1] == "training":
    block(x).sum().backward()
else:
    with torch.no_grad():
        block(x)
print(peak() - before)
"""


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_memory_at_32768_voxels_is_linear(mode):
    run = subprocess.run([sys.executable, "-c", MEMORY, mode], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 200  # MiB; the explicit map has 4,096


# --- channel context --------------------------------------------------------------------------------------------------

BY_HAND = {
    "paper": lambda products, voxels: products,
    "danet": lambda products, voxels: [-p for p in products],
    "scaled": lambda products, voxels: [p / voxels for p in products],
}


@pytest.mark.parametrize("energy", ENERGIES)
def test_channel_context_is_its_formula(dim, energy):
    block = ChannelContext(energy=energy)
    block.beta.data.fill_(0.7)
    x = _features(dim, 6, scale=0.3)
    flat = x.flatten(2).double()
    expected = flat.clone()
    for case in range(2):
        for i in range(6):
            products = [(flat[case, i] * flat[case, j]).sum().item() for j in range(6)]
            energies = BY_HAND[energy](products, flat.shape[2])
            weights = [math.exp(e) for e in energies]
            expected[case, i] += 0.7 * sum(w * flat[case, j] for j, w in enumerate(weights)) / sum(weights)
    torch.testing.assert_close(block(x), expected.unflatten(2, x.shape[2:]).float(), rtol=0, atol=1e-5)


def test_the_papers_channel_softmax_saturates_and_the_scaled_one_does_not():
    """Why there are other energies: on a large map, the paper's mixes nothing."""
    x = torch.relu(_features(2, 8, sizes=(112, 112)))
    paper, scaled = ChannelContext(), ChannelContext(energy="scaled")
    for block in (paper, scaled):
        block.beta.data.fill_(1)
    torch.testing.assert_close(paper(x), 2 * x, rtol=0, atol=0)
    assert (scaled(x) - 2 * x).abs().max() > 0.1


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "count"), [(64, 5_202), (128, 20_642), (256, 82_242)])
def test_context_parameters(channels, count):
    assert sum(p.numel() for p in ContextBlock(channels, conv_op=nn.Conv2d).parameters()) == count


def test_block_is_the_sum_of_its_extractors_and_starts_as_twice_the_skip(dim):
    torch.manual_seed(0)
    block = ContextBlock(16, conv_op=CONVS[dim])
    x = _features(dim, 16)
    torch.testing.assert_close(block(x), 2 * x)
    for parameter in block.parameters():
        parameter.data.add_(0.1)
    parts = block.extractors
    torch.testing.assert_close(block(x), parts["spatial"](x) + parts["channel"](x))
    torch.testing.assert_close(ContextBlock(16, conv_op=CONVS[dim], energy=None)(x), x)


@pytest.mark.parametrize("energy", ENERGIES)
def test_large_activations_under_autocast_stay_finite(dim, energy):
    """In float16 the energies of activations of 1e4 are infinite and the softmax is NaN; here nothing is float16."""
    torch.manual_seed(0)
    block = ContextBlock(16, conv_op=CONVS[dim], energy=energy)
    for parameter in block.parameters():
        parameter.data.add_(0.1)
    x = _features(dim, 16, scale=1e4).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.float16):
        result = block(x)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, block(x.float()))
    result.mean().backward()
    assert torch.isfinite(result).all()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in block.parameters())


def test_refuses_unknown_energies_and_empty_blocks():
    with pytest.raises(UserError, match="channel energy is 'cosine', but must be one of paper, danet, scaled"):
        ChannelContext(energy="cosine")
    with pytest.raises(UserError, match="needs at least one extractor: spatial, channel or both"):
        ContextBlock(8, conv_op=nn.Conv2d, spatial=False, energy=None)
