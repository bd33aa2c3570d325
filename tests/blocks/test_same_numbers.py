"""What is computed otherwise than torch would, for speed, against torch: values and gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_livseg.blocks.neighborhoods import neighborhoods, overlaid
from nnunet_livseg.blocks.pointwise import as_pointwise
from nnunet_livseg.blocks.pooling import mean_and_max

SIZES = (3, 5, 4)


def both_agree(ours, theirs, inputs):
    """Values and the gradients by a random direction."""
    torch.testing.assert_close(ours, theirs)
    goals = [torch.randn_like(one) for one in theirs]
    gradients = [torch.autograd.grad(outputs, inputs, goals) for outputs in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("axes", [[1], [2, 3, 4]])
def test_mean_and_max_share_the_gradient_of_equal_maxima(axes):
    x = torch.randint(0, 4, (2, 6, *SIZES)).double().requires_grad_()
    both_agree(mean_and_max(x, axes), (x.mean(axes, keepdim=True), x.amax(axes, keepdim=True)), [x])


@pytest.mark.parametrize("dim", [2, 3])
def test_a_pointwise_convolution_is_that_convolution(dim):
    conv = (nn.Conv2d, nn.Conv3d)[dim - 2](6, 3, 1).double()
    before = torch.get_rng_state()
    ours = as_pointwise(conv)
    assert torch.equal(before, torch.get_rng_state())  # a seed gives the same weights as before
    assert isinstance(ours, type(conv)) and dict(ours.named_parameters()).keys() == {"weight", "bias"}
    x = torch.randn(2, 6, *SIZES[:dim], dtype=torch.double, requires_grad=True)
    both_agree([ours(x)], [conv(x)], [x, conv.weight, conv.bias])


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 5), (3, 1)])
def test_products_of_neighborhoods_are_convolutions(kernel):
    convolve, transposed = (F.conv3d, F.conv_transpose3d) if len(kernel) == 3 else (F.conv2d, F.conv_transpose2d)
    x = torch.randn(2, 2, *(4, 6, 7)[: len(kernel)], dtype=torch.double, requires_grad=True)
    weight = torch.randn(5, 2, *kernel, dtype=torch.double, requires_grad=True)
    near = neighborhoods(x, kernel)
    both_agree([(weight.flatten(1) @ near.flatten(2)).unflatten(2, near.shape[2:])], [convolve(x, weight)], [x, weight])

    hidden = torch.randn(2, 5, *x.shape[2:], dtype=torch.double, requires_grad=True)
    product = (weight.flatten(1).T @ hidden.flatten(2)).unflatten(2, hidden.shape[2:])
    both_agree([overlaid(product, kernel)], [transposed(hidden, weight)], [hidden, weight])
