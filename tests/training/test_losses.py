"""Losses against their formulas, and on the patches that break losses: empty, one voxel, huge logits."""

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_livseg.losses import LOSSES, MultiOutputLoss, target_strides
from nnunet_livseg.losses.dice import PooledSquaredDice
from nnunet_livseg.networks.outputs import TrainingOutput, nnunet_weights

CLASSES = LabelManager({"background": 0, "liver": 1, "tumor": 2}, None)
REGIONS = LabelManager({"background": 0, "liver": [1, 2], "tumor": 2}, regions_class_order=(1, 2))
IGNORE = LabelManager({"background": 0, "liver": 1, "tumor": 2, "ignore": 3}, None)
REGIONS_IGNORE = LabelManager({"background": 0, "liver": [1, 2], "tumor": 2, "ignore": 3}, regions_class_order=(1, 2))
SIZE = (2, 6, 8, 10)  # batch, z, y, x


def target_of(labels, values):
    """Targets as nnU-Net's data loader makes them: labels, or one channel per region (and ignore)."""
    if not labels.has_regions:
        return values[:, None]
    channels = [values > 0, values == 2] + ([values == 3] if labels.has_ignore_label else [])
    return torch.stack(channels, 1)


EMPTY = ("background only", "one voxel", "all tumor")
CASES = [(labels, case) for labels in (CLASSES, REGIONS, IGNORE, REGIONS_IGNORE) for case in EMPTY]
CASES += [(IGNORE, "all ignored"), (REGIONS_IGNORE, "all ignored")]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("labels", "case"), CASES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_value_and_gradient_are_finite(name, labels, case, scale):
    values = torch.zeros(SIZE, dtype=torch.long)
    if case == "one voxel":
        values[0, 3, 4, 5] = 2
    elif case == "all tumor":
        values[:] = 2
    elif case == "all ignored":
        values[:] = 3
    heads = labels.num_segmentation_heads
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(2, heads, *SIZE[1:], generator=generator).sign() * scale).requires_grad_()
    loss = MultiOutputLoss(LOSSES[name](labels, False, False), [TrainingOutput("only", (1, 1, 1), 1.0)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss([logits.half()], [target_of(labels, values)])  # what a network returns under autocast
    assert value.dtype == torch.float32
    assert value.isfinite()
    value.backward()
    assert logits.grad.isfinite().all()


def test_pooled_dice_is_equation_12():
    """One fraction over all classes and voxels, squares below."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4, 5))
    labels = rng.integers(0, 3, size=(2, 1, 4, 5))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    g = (labels == np.arange(3).reshape(1, 3, 1, 1)).astype(float)
    expected = -np.mean([2 * (p[b] * g[b]).sum() / ((p[b] ** 2).sum() + (g[b] ** 2).sum()) for b in range(2)])
    loss = PooledSquaredDice(lambda x: x.softmax(1), smooth=0)
    assert loss(torch.tensor(logits), torch.tensor(labels)).item() == pytest.approx(expected)
    pooled = -2 * (p * g).sum() / ((p**2).sum() + (g**2).sum())
    loss = PooledSquaredDice(lambda x: x.softmax(1), smooth=0, batch_dice=True)
    assert loss(torch.tensor(logits), torch.tensor(labels)).item() == pytest.approx(pooled)


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_voxels_have_no_gradient(name):
    values = torch.randint(0, 4, SIZE, generator=torch.Generator().manual_seed(0))
    logits = torch.randn(2, 3, *SIZE[1:], requires_grad=True)
    LOSSES[name](IGNORE, False, False)(logits, target_of(IGNORE, values)).backward()
    ignored = (values == 3)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].any()


@pytest.mark.parametrize(("name", "has_ce", "has_dice"), [("dice_ce", 1, 1), ("ce", 1, 0), ("dice", 0, 1)])
def test_terms_of_table_3(name, has_ce, has_dice):
    values = torch.randint(0, 3, SIZE, generator=torch.Generator().manual_seed(1))
    logits = torch.randn(2, 3, *SIZE[1:], generator=torch.Generator().manual_seed(2))
    ce = torch.nn.functional.cross_entropy(logits, values)
    p, onehot = logits.softmax(1)[:, 1:], torch.nn.functional.one_hot(values, 3).movedim(-1, 1)[:, 1:]
    axes = (2, 3, 4)
    dice = ((2 * (p * onehot).sum(axes) + 1e-5) / (p.sum(axes) + onehot.sum(axes) + 1e-5)).mean()
    loss = LOSSES[name](CLASSES, False, False)(logits, values[:, None])
    torch.testing.assert_close(loss, has_ce * ce - has_dice * dice)


def test_outputs_meet_the_target_of_their_size():
    outputs = [
        TrainingOutput("a", (1, 1), 0.5),
        TrainingOutput("b", (2, 2), 0.25),
        TrainingOutput("watched", (1, 1), 0.0),
        TrainingOutput("c", (1, 1), 0.125),
    ]
    seen = []

    def loss(output, target):
        seen.append((output.shape[-1], target.shape[-1]))
        return output.sum()

    total = MultiOutputLoss(loss, outputs)
    assert target_strides(outputs) == [(1, 1), (2, 2)]
    maps = [torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2), torch.full((1, 1, 4, 4), torch.nan), torch.ones(1, 1, 4, 4)]
    assert total(maps, [torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)]).item() == 0.5 * 16 + 0.25 * 4 + 0.125 * 16
    assert seen == [(4, 4), (2, 2), (4, 4)]


@pytest.mark.parametrize("labels", [CLASSES, REGIONS, IGNORE, REGIONS_IGNORE], ids=["", "regions", "ignore", "both"])
@pytest.mark.parametrize(("name", "overlap"), [("dice_ce", "dice"), ("pooled_dice_ce", "pooled_dice")])
def test_the_two_terms_of_an_output_may_weigh_differently(name, overlap, labels):
    values = torch.randint(0, 3, SIZE, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn(2, labels.num_segmentation_heads, *SIZE[1:], generator=generator) for _ in range(4)]
    shares = [(1.0, 1.0), (0.5, 0.7), (0.0, 0.25), (2.0, 0.0)]
    full = (1, 1, 1)
    outputs = [TrainingOutput(f"o{i}", full, ce, overlap_weight=other) for i, (ce, other) in enumerate(shares)]
    target = target_of(labels, values)
    ce, dice = (LOSSES[term](labels, True, False) for term in ("ce", overlap))
    expected = sum(a * ce(m, target) + b * dice(m, target) for (a, b), m in zip(shares, maps, strict=True))
    whole = LOSSES[name](labels, True, False)
    torch.testing.assert_close(MultiOutputLoss(whole, outputs)(maps, [target]), expected)
    assert (whole.weight_ce, whole.weight_dice) == (1, 1), "the loss that was passed in must stay as it is"


def test_a_share_of_the_overlap_is_nothing_to_a_loss_without_one():
    values = torch.randint(0, 3, SIZE, generator=torch.Generator().manual_seed(1))
    logits = torch.randn(2, 3, *SIZE[1:], generator=torch.Generator().manual_seed(2))
    loss = LOSSES["weighted_ce"](CLASSES, False, False)
    outputs = [TrainingOutput("a", (1, 1, 1), 0.5, overlap_weight=9.0), TrainingOutput("b", (1, 1, 1), 0.0, 1.0)]
    total = MultiOutputLoss(loss, outputs)([logits, logits], [values[:, None]])
    torch.testing.assert_close(total, 0.5 * loss(logits, values[:, None]))


def test_level_weights_are_nnunets():
    assert nnunet_weights(3)[:2] == pytest.approx([2 / 3, 1 / 3], rel=1e-5)
    assert nnunet_weights(3)[2] < 1e-6
    assert sum(nnunet_weights(5)) == pytest.approx(1)


def test_a_target_for_every_output_or_for_every_size_is_the_same():
    """nnU-Net's losses get one per output; ours are brought one per size. Without deep supervision both are one."""
    full, half = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    loss = MultiOutputLoss(
        torch.nn.L1Loss(),
        [TrainingOutput(f"{i}", (s, s), weight) for i, s, weight in ((0, 1, 1), (1, 1, 0.5), (2, 2, 2))],
    )
    outputs = [full + 1, full + 2, half + 3]
    assert loss(outputs, [full, half]).item() == pytest.approx(1 + 1 + 6)
    assert loss(outputs, [full, full, half]).item() == pytest.approx(1 + 1 + 6)
    alone = MultiOutputLoss(torch.nn.L1Loss(), [TrainingOutput("prediction", (1, 1), 1.0)])
    assert alone(full + 1, full).item() == pytest.approx(1)
