"""PAM against Eqs. (6)-(9) with the whole N x N map; its memory; its numbers under autocast."""

import pytest
import torch
from torch import nn

from nnunet_livseg.blocks import position_attention
from nnunet_livseg.blocks.position_attention import PositionAttention, PositionEmbedding
from nnunet_livseg.core.errors import UserError

CONV = {2: nn.Conv2d, 3: nn.Conv3d}


def make(channels, dim, n_heads=1):
    torch.manual_seed(0)
    block = PositionAttention(channels, conv_op=CONV[dim], n_heads=n_heads)
    block.gain.data.fill_(0.7)
    return block


def naive(block, x):
    """Eq. (9) position by position, in double precision."""
    b, c, *_ = x.shape
    f = x.double().reshape(b, c, -1)

    def linear(conv, t):
        weight = conv.weight.double().reshape(conv.weight.shape[0], -1)
        return torch.einsum("oc,bcn->bon", weight, t) + conv.bias.double()[:, None]

    q, k, v = linear(block.query, f), linear(block.key, f), linear(block.value, f)
    heads = block.n_heads
    width, parts = q.shape[1] // heads, []
    for h in range(heads):
        qh, kh = q[:, h * width : (h + 1) * width], k[:, h * width : (h + 1) * width]
        logits = torch.einsum("bdi,bdj->bij", qh, kh) / (1 if heads == 1 else width**0.5)
        weights = logits.exp() / logits.exp().sum(2, keepdim=True)  # over the positions j that i looks at
        parts.append(torch.einsum("bij,bdj->bdi", weights, v[:, h * (c // heads) : (h + 1) * (c // heads)]))
    out = torch.cat(parts, 1)
    if heads > 1:
        out = linear(block.join, out)
    return (block.gain.double() * out + f).reshape(x.shape)


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("channels", [12, 24])  # 12: queries of one channel; 24: of three
def test_equals_the_naive_form_and_so_do_its_gradients(dim, n_heads, channels):
    block = make(channels, dim, n_heads)
    x = torch.randn(2, channels, *(3, 5, 7)[:dim])
    torch.testing.assert_close(block(x).double(), naive(block, x), rtol=1e-5, atol=1e-5)
    grad = torch.randn(x.shape)
    ours = torch.autograd.grad(block(x), list(block.parameters()), grad)
    theirs = torch.autograd.grad(naive(block, x), list(block.parameters()), grad.double())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_is_the_identity_at_the_start(dim):
    x = torch.randn(1, 8, *(2, 3, 4)[:dim])
    assert torch.equal(PositionAttention(8, conv_op=CONV[dim])(x), x)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_memory_is_linear_in_the_number_of_positions(training, peak_mib):
    """The N x N map would take 576 MiB at 12,288 positions, and its softmax as much again."""
    block = make(16, 3)

    def call(*size):
        x = torch.randn(1, 16, *size, requires_grad=training)
        with torch.set_grad_enabled(training):
            y = block(x)
        if training:
            y.square().mean().backward()

    call(8, 8, 8)  # what PyTorch allocates once
    assert peak_mib(lambda: call(16, 16, 16)) < 256  # some rows of the map at a time, whatever the allocator keeps
    assert peak_mib(lambda: call(16, 16, 48)) < 256


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_finite_under_autocast_at_activations_of_10000(dim, dtype):
    block = make(32, dim)
    x = (torch.randn(2, 32, *(4, 5, 6)[:dim]).clamp(-3, 3) * 1e4 / 3).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        q, k = block.query(x), block.key(x)
        assert not torch.einsum("bc...,bc...->b...", q, k).to(torch.float16).isfinite().all()  # why float32 is needed
        y = block(x)
    assert y.dtype == torch.float32
    assert y.isfinite().all()
    y.mean().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in block.parameters())


def test_autocast_does_not_change_the_result(dim):
    block = make(32, dim)
    x = torch.randn(1, 32, *(4, 5, 6)[:dim])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(block(x), block(x.clone()), rtol=0, atol=0)
        y = block(x)
    torch.testing.assert_close(y, block(x), rtol=0, atol=0)


@pytest.mark.parametrize("n", [255, 256, 700])  # one part, exactly one, three with a rest
def test_rows_at_a_time_give_the_whole(n, monkeypatch):
    monkeypatch.setattr(position_attention, "MAP_ELEMENTS", 1)
    q, k, v = (torch.randn(2, 3, n, d, requires_grad=True) for d in (4, 4, 5))
    expected = torch.softmax(2.5 * q @ k.transpose(2, 3), 3) @ v
    got = position_attention.attend(q, k, v, scale=2.5)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(got.shape)
    for ours, theirs in zip(
        torch.autograd.grad(got, (q, k, v), grad), torch.autograd.grad(expected, (q, k, v), grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_embedding_is_added_and_interpolated(dim):
    embedding = PositionEmbedding(3, (4, 2, 6)[:dim])
    embedding.embedding.data.normal_()
    x = torch.randn(2, 3, *(4, 2, 6)[:dim])
    torch.testing.assert_close(embedding(x), x + embedding.embedding)
    twice = torch.zeros(1, 3, *(8, 4, 12)[:dim])
    got = embedding(twice)
    # half-way between the grid's points the interpolation is 3/4 of one neighbor and 1/4 of the other, per axis
    expected = embedding.embedding
    for axis in range(2, 2 + dim):
        n = expected.shape[axis]
        index = torch.arange(2 * n)
        near, far = index // 2, (index // 2 + index % 2 * 2 - 1).clamp(0, n - 1)
        expected = 0.75 * expected.index_select(axis, near) + 0.25 * expected.index_select(axis, far)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("n_heads", [0, 5, 2.0])
def test_heads_that_do_not_divide_the_channels_are_refused(n_heads):
    with pytest.raises(UserError, match=r"n_heads is .*, but the position attention splits 16 channels"):
        PositionAttention(16, conv_op=nn.Conv3d, n_heads=n_heads)
