"""URIM and ASPP against their figures."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_livseg.blocks.aspp import AtrousSpatialPyramidPooling
from nnunet_livseg.blocks.confidence import class_confidence, region_confidence
from nnunet_livseg.blocks.uncertain_inpainting import UncertainRegionInpainting

SIZES = (4, 5, 6)
CONV = {2: nn.Conv2d, 3: nn.Conv3d}


def urim(dim, classes=3, **options):
    torch.manual_seed(0)
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dim]
    return UncertainRegionInpainting(
        6,
        classes,
        width=4,
        conv_op=CONV[dim],
        norm=partial(norm, affine=True),
        kernel_size=(3,) * dim,
        dropout=0.0,
        **options,
    ).double()


def inputs(dim, classes=3):
    generator = torch.Generator().manual_seed(3)
    initial = torch.randn(2, classes, *SIZES[-dim:], dtype=torch.double, generator=generator)
    return initial, torch.randn(2, 6, *SIZES[-dim:], dtype=torch.double, generator=generator)


def widen(m):
    """3x3 maximum by shifts, outside of the image nothing."""
    for axis in range(2, m.ndim):
        before, after = m.roll(1, axis), m.roll(-1, axis)
        before.select(axis, 0).fill_(0)
        after.select(axis, -1).fill_(0)
        m = torch.maximum(m, torch.maximum(before, after))
    return m


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("concat_input", [True, False])
@pytest.mark.parametrize("regions", [True, False])
def test_equals_figure_2b(dim, concat_input, regions):
    block, (initial, features) = urim(dim, concat_input=concat_input, regions=regions), inputs(dim)
    scores = 1 / (1 + (-initial).exp()) if regions else initial.exp() / initial.exp().sum(1, keepdim=True)
    m = region_confidence(initial) if regions else class_confidence(initial)
    x = refined = torch.cat([scores, features], 1)
    for i in range(4):
        m = widen(m) if i else m
        refined = F.relu(block.after[i][0](block.convs[i](refined, m)))
    last = block.seg_layers[0]
    read = torch.cat([refined, x], 1) if concat_input else refined
    expected = torch.einsum("bc...,kc->bk...", read, last.weight.flatten(1)) + last.bias.view(1, -1, *[1] * dim)
    torch.testing.assert_close(block(initial, features), expected)


def test_checkpoints_of_before_the_first_convolution_was_called_a_head():
    block = urim(2)
    old = {name.replace("convs.0.seg_layers.0.", "convs.0.conv."): t + 1 for name, t in block.state_dict().items()}
    assert "convs.0.conv.weight" in old
    block.load_state_dict(old)
    torch.testing.assert_close(block.convs[0].conv.weight.data, old["convs.0.conv.weight"])


def test_one_region_has_no_softmax():
    """The softmax of one class would be certain of everything."""
    block, (initial, features) = urim(2, classes=1), inputs(2, classes=1)
    scores, confidence = block.scores_and_confidence(initial)
    torch.testing.assert_close(scores, initial.sigmoid())
    torch.testing.assert_close(confidence, region_confidence(initial))
    assert block(initial, features).shape == initial.shape


def test_unsure_positions_do_not_speak():
    """Where confidence is 0, the features do not matter to the first convolution, there and around."""
    block, (initial, features) = urim(2, concat_input=False), inputs(2)
    block.after[0] = nn.Identity()  # whose statistics would spread everything
    initial[:, :, 2, 3] = 1.0  # a tie
    _, m = block.scores_and_confidence(initial)
    changed = features.clone()
    changed[:, :, 2, 3] += 10
    first = [block.convs[0](torch.cat([initial.softmax(1), f], 1), m) for f in (features, changed)]
    torch.testing.assert_close(*first)


def test_gradients_pass_through_the_confidence():
    block, (initial, features) = urim(2), inputs(2)
    block.seg_layers[0].weight.data[:, 4:7] = 0  # the scores' own ways to the output
    block.convs[0].conv.weight.data[:, :3] = 0
    block(initial.requires_grad_(), features).square().sum().backward()
    assert initial.grad.abs().sum() > 0


@pytest.mark.parametrize("dim", [2, 3])
def test_aspp_equals_its_figure(dim):
    torch.manual_seed(0)
    kernel = (1, 3, 3)[-dim:]
    block = AtrousSpatialPyramidPooling(
        5, 3, conv_op=CONV[dim], norm=nn.Identity, pooled_norm=nn.Identity, kernel_size=kernel, dropout=0.0
    ).double()
    x = torch.randn(2, 5, *(4, 20, 15)[-dim:], dtype=torch.double)
    convolve = F.conv3d if dim == 3 else F.conv2d
    maps = [convolve(x, block.branches[0][0].weight).clamp(min=0)]
    for branch, rate in zip(block.branches[1:], (6, 12, 18), strict=True):
        reach = [rate if k > 1 else 0 for k in kernel]
        maps.append(convolve(x, branch[0].weight, padding=reach, dilation=[max(r, 1) for r in reach]).clamp(min=0))
    mean = x.flatten(2).mean(2)
    pooled = (mean @ block.pooled[0].weight.flatten(1).T).clamp(min=0)
    maps.append(pooled.view(2, 3, *[1] * dim).expand_as(maps[0]))
    expected = convolve(torch.cat(maps, 1), block.project[0][0].weight).clamp(min=0)
    torch.testing.assert_close(block(x), expected)


def test_aspp_has_the_parameters_of_the_authors():
    with torch.device("meta"):
        block = AtrousSpatialPyramidPooling(
            2048, 256, conv_op=nn.Conv2d, norm=nn.BatchNorm2d, pooled_norm=nn.BatchNorm2d, kernel_size=(3, 3)
        )
    assert sum(p.numel() for p in block.parameters()) == 15_535_104
