"""SAM against section 2.1 and Eqs. (1) and (2), written out with numpy-like sums; the comparators' fusions."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_livseg.blocks.phase_attention import PhaseAttention
from nnunet_livseg.blocks.phase_fusion import FirstPhase, ModalityWeighting, PhaseSum
from nnunet_livseg.blocks.spatial_aggregation import SpatialAggregation

SIZES = (3, 7, 10)
CONV = {2: nn.Conv2d, 3: nn.Conv3d}
INSTANCE = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
BATCH = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def sam(dim, phases, norm, *, channels=8, sigmoid=False, kernel=None):
    torch.manual_seed(0)
    if norm == "batch":
        norms = {"norm": BATCH[dim], "pooled_norm": BATCH[dim]}
    else:
        norms = {"norm": partial(INSTANCE[dim], affine=True), "pooled_norm": partial(nn.GroupNorm, 1)}
    block = SpatialAggregation(
        channels,
        phases=phases,
        conv_op=CONV[dim],
        kernel_size=kernel or (3,) * dim,
        pre_softmax_sigmoid=sigmoid,
        **norms,
    ).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block


def phases_like(dim, phases, channels=8, sizes=SIZES):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(2, channels, *sizes[-dim:], dtype=torch.double, generator=generator).add(p) for p in range(phases)
    ]


def normalize(x, module, axes):
    """(x - mean) / sqrt(var + eps), then the affine map; the statistics over ``axes``."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
    return (x - mean) / (variance + module.eps).sqrt() * module.weight.view(shape) + module.bias.view(shape)


def naive(block, features, *, batch_norm, sigmoid):
    """Section 2.1 step by step."""
    space = tuple(range(2, features[0].ndim))
    convolve = F.conv3d if len(space) == 3 else F.conv2d
    axes = (0, *space) if batch_norm else space
    descriptors = []
    for phase in features:
        descriptors += [sum(phase.unbind(1)) / phase.shape[1], torch.stack(phase.unbind(1)).max(0).values]
    x = torch.stack(descriptors, 1)
    responses = []
    for mapping in block.mappings:
        maps = []
        for branch in mapping.pyramid:
            padding = [n // 2 for n in branch[0].weight.shape[2:]]
            maps.append(normalize(convolve(x, branch[0].weight, padding=padding), branch[1], axes))
        pooled = torch.einsum("bd,wd->bw", x.mean(space), mapping.pooled[0].weight.flatten(1))
        pooled = normalize(pooled, mapping.pooled[1], (0,) if batch_norm else (1,)).clamp(min=0)
        maps.append(pooled.reshape(*pooled.shape, *[1] * len(space)) * torch.ones_like(maps[0]))
        fuse, norm = mapping.fuse
        padding = [n // 2 for n in fuse.weight.shape[2:]]
        response = normalize(convolve(torch.cat(maps, 1), fuse.weight, padding=padding), norm, axes)
        responses.append(1 / (1 + (-response).exp()) if sigmoid else response)
    powers = [response.exp() for response in responses]
    weights = [power / sum(powers) for power in powers]
    aggregated = sum(w * phase for w, phase in zip(weights, features, strict=True))
    return weights, aggregated, [(phase + aggregated) / 2 for phase in features]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("phases", [2, 3])
@pytest.mark.parametrize(("norm", "sigmoid"), [("plans", False), ("batch", True)])
def test_sam_equals_the_equations(dim, phases, norm, sigmoid):
    block, features = sam(dim, phases, norm, sigmoid=sigmoid), phases_like(dim, phases)
    weights, aggregated, modulated = naive(block, features, batch_norm=norm == "batch", sigmoid=sigmoid)
    torch.testing.assert_close(block.responses(features), torch.stack(weights, 1))
    ours, onward = block(features)
    torch.testing.assert_close(ours, aggregated)
    torch.testing.assert_close(onward, modulated)


def test_sam_equals_the_equations_on_thick_slices():
    block, features = sam(3, 2, "plans", kernel=(1, 3, 3)), phases_like(3, 2)
    assert {tuple(m[0].kernel_size) for m in block.mappings[0].pyramid} == {(1, 3, 3), (1, 5, 5), (1, 7, 7)}
    torch.testing.assert_close(block(features)[0], naive(block, features, batch_norm=False, sigmoid=False)[1])


def test_responses_with_the_sigmoid_stay_in_the_middle():
    """A softmax of two numbers within 0 and 1 lies within 1 / (1 + e) and e / (1 + e)."""
    features = phases_like(2, 2)
    narrow, wide = sam(2, 2, "batch", sigmoid=True), sam(2, 2, "batch")
    assert 0.2689 < narrow.responses(features).min() < narrow.responses(features).max() < 0.7311
    assert wide.responses(features).min() < 0.1


@pytest.mark.parametrize(("channels", "count"), [(256, 1_224_704), (512, 4_808_704)])
def test_sam_has_the_parameters_of_the_authors(channels, count):
    with torch.device("meta"):
        block = SpatialAggregation(
            channels,
            phases=2,
            conv_op=nn.Conv2d,
            norm=nn.BatchNorm2d,
            pooled_norm=nn.BatchNorm2d,
            kernel_size=(3, 3),
        )
    b = channels // 4
    formula = 2 * (4 * b * 84 + 8 * b + 36 * b * channels + 2 * channels)
    assert sum(p.numel() for p in block.parameters()) == count == formula


def test_sam_is_finite_in_half_precision_with_large_features():
    """The 7x7x7 convolution of 1372 descriptors of 1e4 overflows in float16."""
    block = sam(3, 2, "plans").float()
    for parameter in block.parameters():
        parameter.data.abs_()  # nothing cancels
    features = [(1e4 + phase).half().requires_grad_() for phase in phases_like(3, 2, sizes=(8, 9, 10))]
    with torch.autocast("cpu", dtype=torch.float16):
        aggregated, onward = block(features)
        assert aggregated.dtype == onward[0].dtype == torch.float16
    assert aggregated.isfinite().all() and all(phase.isfinite().all() for phase in onward)
    aggregated.float().mean().backward()
    assert all(phase.grad.isfinite().all() for phase in features)


def test_sums_and_weights():
    a, b, c = phases_like(3, 3)
    first, onward = FirstPhase(8)([a, b, c])
    assert first is a and onward == [a, b, c]
    torch.testing.assert_close(PhaseSum(8)([a, b, c])[0], a + b + c)
    weighted = ModalityWeighting(8, phases=3).double()
    torch.testing.assert_close(weighted([a, b, c])[0], a + b + c)  # starts as the sum
    weighted.weights.data = torch.tensor([0.5, -2.0, 3.0], dtype=torch.double)
    aggregated, onward = weighted([a, b, c])
    torch.testing.assert_close(aggregated, 0.5 * a - 2 * b + 3 * c)
    assert onward == [a, b, c]


@pytest.mark.parametrize("dim", [2, 3])
def test_phase_attention_equals_its_formula(dim):
    torch.manual_seed(0)
    block = PhaseAttention(
        12, phases=2, conv_op=CONV[dim], norm=lambda channels: nn.Identity(), kernel_size=(3,) * dim
    ).double()
    block.gamma.data = torch.tensor([0.7, -0.4], dtype=torch.double)
    features = [0.3 * phase for phase in phases_like(dim, 2, channels=12)]
    fixed, other = (reduce(phase) for reduce, phase in zip(block.reduce, features, strict=True))
    scales, means = [], []
    for case in range(2):
        f, o = fixed[case].flatten(1), other[case].flatten(1)
        within = torch.softmax((f @ f.T).max(1, keepdim=True).values - f @ f.T, 1)
        means.append(within @ f)
        between = torch.tensor([[-(o[i] * f[j]).sum().item() for j in range(3)] for i in range(3)]).double()
        scales.append(1 / (1 + (-torch.softmax(between, 0).sum(1)).exp()))
    means = torch.stack(means).view_as(fixed)
    scales = torch.stack(scales).view(2, 3, *[1] * dim)
    expected = torch.cat([block.refine[0](fixed + 0.7 * means), block.refine[1](other - 0.4 * scales * other)], 1)
    fused, onward = block(features)
    torch.testing.assert_close(fused, expected, rtol=1e-5, atol=1e-6)
    assert onward == features
    assert scales.std() > 1e-3, "the authors' own normalization gives the same scale for every channel"
