"""SpaCor against Eqs. (4)-(6), written out with up-sampled maps and concatenations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_livseg.blocks.spacor import SpatialCorrelation, channel_statistics


def naive(block, x, finer):
    """Up-sample the level, concatenate, squeeze, attend, weigh g of the up-sampled level, average down."""
    up = F.interpolate(x, size=finer.shape[2:], mode="nearest")
    both = torch.cat([up, finer], 1)
    squeezed = {"avg": both.mean(1, keepdim=True), "max": both.amax(1, keepdim=True)}
    maps = [squeezed[p] for p in block.poolings]
    t = torch.cat(maps, 1) if block.descriptor == "concat" else sum(maps)
    attention = torch.sigmoid(block.attend[2](F.leaky_relu(block.attend[0](t), 0.01)))
    pool = F.avg_pool3d if x.ndim == 5 else F.avg_pool2d
    return pool(attention * block.g(up), block.stride, block.stride)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("pooling", ["avg", "max", "both"])
@pytest.mark.parametrize("descriptor", ["sum", "concat"])
@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
def test_equals_the_equations(dim, pooling, descriptor, stride):
    torch.manual_seed(0)
    stride = stride[-dim:] if dim == 2 else stride
    kernel = (3,) * dim if stride[0] == 2 or dim == 2 else (1, 3, 3)
    conv = nn.Conv3d if dim == 3 else nn.Conv2d
    block = SpatialCorrelation(
        5, conv_op=conv, kernel_size=kernel, stride=stride, pooling=pooling, descriptor=descriptor
    ).double()
    sizes = (4, 6, 10)[:dim]
    x = torch.randn(2, 5, *sizes, dtype=torch.double, requires_grad=True)
    finer = torch.randn(
        2, 3, *(n * s for n, s in zip(sizes, stride, strict=True)), dtype=torch.double, requires_grad=True
    )

    ours = block(x, channel_statistics(x), channel_statistics(finer))
    reference = naive(block, x, finer)
    torch.testing.assert_close(ours, reference)

    goal = torch.randn_like(ours)  # the gradients go through the recomputation
    parameters = [x, finer, *block.parameters()]
    for a, b in zip(
        torch.autograd.grad((ours * goal).sum(), parameters),
        torch.autograd.grad((reference * goal).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_keeps_no_hidden_map_for_the_backward_pass():
    """The hidden map of the attention is C channels on the finer grid: more than everything else here."""
    block = SpatialCorrelation(16, conv_op=nn.Conv3d, kernel_size=(3, 3, 3), stride=(2, 2, 2))
    x, finer = torch.randn(1, 16, 8, 8, 8), torch.randn(1, 8, 16, 16, 16)
    saved = 0

    def pack(tensor):
        nonlocal saved
        saved = max(saved, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(x.requires_grad_(), channel_statistics(x), channel_statistics(finer.requires_grad_()))
    assert saved < 16 * 16**3


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation has made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, tuple | list) else [out]
        self.elements = max(self.elements, *(t.numel() for t in made if isinstance(t, torch.Tensor)), 0)
        return out


def test_the_hidden_map_is_never_there_as_a_whole():
    """Its recomputation would stand on top of all that the network keeps for the backward pass."""
    block = SpatialCorrelation(48, conv_op=nn.Conv3d, kernel_size=(3, 3, 3), stride=(2, 2, 2))
    x, finer = torch.randn(1, 48, 8, 8, 8, requires_grad=True), torch.randn(1, 4, 16, 16, 16, requires_grad=True)
    with LargestTensor() as largest:
        block(x, channel_statistics(x), channel_statistics(finer)).sum().backward()
    assert largest.elements == 48 * 16**3 / 4
