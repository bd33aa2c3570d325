"""Fused probabilities and nnU-Net's later softmax or sigmoid."""

import pytest
import torch

from nnunet_livseg.blocks.probability_fusion import FLOOR, fuse_sigmoid, fuse_softmax


def maps(dim, spread):
    generator = torch.Generator().manual_seed(0)
    return [spread * torch.randn(2, 3, *(3, 4, 5)[:dim], generator=generator) for _ in range(4)]


@pytest.mark.parametrize("spread", [1, 30, 1e4])
def test_softmax_gives_back_the_mean_probability(dim, spread):
    logits = maps(dim, spread)
    mean = sum(x.double().softmax(1) for x in logits) / 4
    fused = fuse_softmax(logits)
    torch.testing.assert_close(fused.softmax(1).double(), mean, rtol=1e-5, atol=1e-7)
    assert fused.min() >= FLOOR


@pytest.mark.parametrize("spread", [1, 30, 1e4])
def test_sigmoid_gives_back_the_mean_probability(dim, spread):
    logits = maps(dim, spread)
    mean = sum(x.double().sigmoid() for x in logits) / 4
    fused = fuse_sigmoid(logits)
    torch.testing.assert_close(fused.sigmoid().double(), mean, rtol=1e-5, atol=1e-7)
    assert fused.abs().max() <= -FLOOR


@pytest.mark.parametrize("fuse", [fuse_softmax, fuse_sigmoid])
def test_half_precision_maps_are_fused_in_float32_and_learn(fuse):
    logits = [x.half().requires_grad_() for x in maps(3, 1e4)]
    with torch.autocast("cpu", dtype=torch.float16):
        fused = fuse(logits)
    assert fused.dtype == torch.float32
    assert fused.isfinite().all()
    assert (10 * fused).half().isfinite().all()  # nnU-Net's sliding window
    fused.mean().backward()
    assert all(x.grad.isfinite().all() for x in logits)


def test_equal_maps_are_their_own_mean():
    x = maps(2, 3)[0]
    torch.testing.assert_close(fuse_softmax([x] * 4), x.log_softmax(1))
    torch.testing.assert_close(fuse_sigmoid([x] * 4), x)
