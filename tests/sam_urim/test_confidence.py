"""M_conf against Eq. (3), where the printed form can be evaluated, and beyond."""

import pytest
import torch

from nnunet_livseg.blocks.confidence import class_confidence, confidence, region_confidence


def printed(scores):
    """1 - exp(1 - S_max / S_min) of the best two scores ``(B, K, ...)``."""
    ordered = scores.sort(1, descending=True).values
    return 1 - torch.exp(1 - ordered[:, :1] / ordered[:, 1:2])


@pytest.mark.parametrize("sizes", [(5, 7), (3, 5, 4)])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_classes_equal_the_printed_form(sizes, classes):
    logits = torch.randn(2, classes, *sizes, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    ours = class_confidence(logits)
    assert ours.shape == (2, 1, *sizes)
    torch.testing.assert_close(ours, printed(logits.softmax(1)))


def test_two_classes_compare_largest_and_smallest_score():
    logits = torch.randn(2, 2, 5, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    scores = logits.softmax(1)
    torch.testing.assert_close(
        class_confidence(logits), 1 - torch.exp(1 - scores.amax(1, keepdim=True) / scores.amin(1, keepdim=True))
    )


def test_regions_are_as_sure_as_their_least_sure_one():
    logits = torch.randn(2, 3, 4, 5, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    each = [
        printed(torch.stack([p, 1 - p], 1)) for p in logits.sigmoid().unbind(1)
    ]  # every region is two classes: inside and outside
    torch.testing.assert_close(region_confidence(logits), torch.cat(each, 1).amin(1, keepdim=True))


def test_range_and_slope():
    """M(0) = 0 with slope 1; dM/dd = exp(d + 1 - e^d)."""
    d = torch.linspace(0, 3, 50, dtype=torch.double, requires_grad=True)
    m = confidence(d)
    m.sum().backward()
    assert m[0] == 0 and (m.diff() > 0).all() and m[-1] < 1
    torch.testing.assert_close(d.grad, torch.exp(d + 1 - d.exp()).detach())


@pytest.mark.parametrize("largest", [60.0, 100.0, 1e4, 6e4])
@pytest.mark.parametrize("measure", [class_confidence, region_confidence])
@pytest.mark.parametrize("classes", [2, 3])
def test_finite_where_the_printed_form_is_not(largest, measure, classes):
    logits = torch.linspace(-largest, largest, 24).view(1, classes, -1, 2).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.float16):
        m = measure(logits)
    assert m.dtype == torch.float32 and m.isfinite().all() and (m <= 1).all()
    m.sum().backward()
    assert logits.grad.isfinite().all()


def test_the_printed_form_has_no_gradient_for_sure_positions():
    """Why it is not computed as printed; if this passes no more, the stable form is not needed any more."""
    logits = torch.tensor([60.0, 0.0]).view(1, 2, 1).requires_grad_()
    printed(logits.softmax(1)).sum().backward()
    assert logits.grad.isnan().all()


def test_ties_have_no_confidence():
    assert not class_confidence(torch.zeros(1, 4, 3, 3)).any()
    assert not region_confidence(torch.zeros(1, 4, 3, 3)).any()
