"""The Tversky loss with cross-entropy against Eq. (19), written out voxel by voxel."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_livseg.losses import LOSSES
from nnunet_livseg.losses.tversky import TverskyCrossEntropy

SIZE = (3, 4, 5)


def case(dim, classes=3, regions=False, ignore=None, spread=2.0):
    generator = torch.Generator().manual_seed(1)
    size = SIZE[:dim]
    x = spread * torch.randn(2, classes, *size, generator=generator)
    if regions:
        y = (torch.rand(2, classes + (ignore is not None), *size, generator=generator) > 0.6).int()
    else:
        y = torch.randint(0, classes + (ignore is not None), (2, 1, *size), generator=generator)
    return x, y


def voxel_by_voxel(x, y, *, regions, ignore, pooled, code):
    """Eq. (19) in double precision, with loops."""
    x, y = x.double().numpy(), y.numpy()
    b, k = x.shape[:2]
    x, y = x.reshape(b, k, -1), y.reshape(b, y.shape[1], -1)
    counts, entropy, voxels = np.zeros((b, k, 3)), 0.0, 0
    for i in range(b):
        for n in range(x.shape[2]):
            if regions:
                truth = y[i, :k, n]
                ignored = ignore is not None and y[i, k, n] == 1
                p = 1 / (1 + np.exp(-x[i, :, n]))
            else:
                truth = np.arange(k) == y[i, 0, n]
                ignored = ignore is not None and y[i, 0, n] == ignore
                p = np.exp(x[i, :, n]) / np.exp(x[i, :, n]).sum()
            if ignored:
                continue
            voxels += 1
            for c in range(k):
                counts[i, c] += (p[c] * truth[c], p[c] * (1 - truth[c]), (1 - p[c]) * truth[c])  # TP, FP, FN
                q = 1 / (1 + math.exp(-p[c])) if code else p[c]
                entropy -= math.log(q) if truth[c] else math.log(1 - q)
    if pooled:
        counts = counts.sum(0, keepdims=True)
    counts = counts[:, 0 if regions or code else 1 :]
    tp, fp, fn = np.moveaxis(counts, 2, 0)
    index = (tp + (0 if code else 1)) / (tp + 0.3 * fp + 0.7 * fn + 1)
    return 1 - index.mean() + entropy / (voxels * k)


@pytest.mark.parametrize("code", [False, True], ids=["corrected", "code"])
@pytest.mark.parametrize("pooled", [False, True], ids=["per-case", "pooled"])
@pytest.mark.parametrize("ignore", [None, 3], ids=["", "ignore"])
@pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
def test_equals_the_equation(dim, regions, ignore, pooled, code):
    x, y = case(dim, regions=regions, ignore=ignore)
    loss = TverskyCrossEntropy(regions=regions, ignore_label=ignore, batch_dice=pooled, authors_code=code)
    expected = voxel_by_voxel(x, y, regions=regions, ignore=ignore, pooled=pooled and not code, code=code)
    assert loss(x, y).item() == pytest.approx(expected, rel=1e-5)


def test_missing_a_voxel_costs_more_than_inventing_one():
    loss = TverskyCrossEntropy()
    y = torch.zeros(1, 1, 10, 10, dtype=torch.long)
    y[..., :4] = 1
    certain = torch.where(torch.arange(10) < 4, 20.0, -20.0).expand(10, 10).clone()
    missed, invented = certain.clone(), certain.clone()
    missed[0, 0], invented[0, 9] = -20, 20
    missed, invented = (torch.stack([-t, t])[None] / 2 for t in (missed, invented))
    assert loss(missed, y) > loss(invented, y)
    assert (loss(missed, y) - loss(invented, y)).item() == pytest.approx(40 / 40.3 - 40 / 40.7, abs=0.02)


def test_the_authors_cross_entropy_never_gets_small():
    x = 100 * torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    y = torch.ones(1, 1, 8, 8, dtype=torch.long)
    assert TverskyCrossEntropy()(x, y).item() == pytest.approx(0, abs=1e-5)
    floor = (math.log(1 + math.exp(-1)) + math.log(2)) / 2  # 0.313 for positives, 0.693 for negatives
    # of the two classes the absent one scores 0 even though it is predicted right
    assert TverskyCrossEntropy(authors_code=True)(x, y).item() == pytest.approx(1 - 64 / 65 / 2 + floor, abs=1e-5)


@pytest.mark.parametrize("code", [False, True], ids=["corrected", "code"])
@pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
@pytest.mark.parametrize("spread", [0, 1e2, 1e4, 1e30])
def test_finite_with_empty_classes_and_extreme_values(dim, regions, code, spread):
    x, y = case(dim, regions=regions, spread=1)
    x = (x.sign() * spread).requires_grad_()
    for truth in (y, torch.zeros_like(y), torch.ones_like(y)):
        loss = TverskyCrossEntropy(regions=regions, authors_code=code)
        value = loss(x, truth)
        (gradient,) = torch.autograd.grad(value, x)
        assert value.isfinite()
        assert gradient.isfinite().all()


def test_half_precision_is_computed_in_float32():
    x, y = case(3)
    x = (x * 1e4).clamp(-6e4, 6e4).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.float16):
        value = TverskyCrossEntropy()(x, y)
    assert value.dtype == torch.float32
    value.backward()
    assert value.isfinite()
    assert x.grad.isfinite().all()


def test_nothing_but_ignored_voxels_is_no_loss():
    x, y = case(2)
    assert TverskyCrossEntropy(ignore_label=3)(x, torch.full_like(y, 3)).item() == 0


def test_the_table_makes_both_from_a_datasets_labels():
    labels = SimpleNamespace(has_regions=True, has_ignore_label=True, ignore_label=3)
    loss = LOSSES["tversky_ce"](labels, True, False)
    assert (loss.regions, loss.ignore_label, loss.pooled, loss.authors_code) == (True, 3, True, False)
    labels = SimpleNamespace(has_regions=False, has_ignore_label=False, ignore_label=None)
    loss = LOSSES["tversky_ce_code"](labels, True, False)
    assert (loss.regions, loss.ignore_label, loss.pooled, loss.authors_code) == (False, None, False, True)
