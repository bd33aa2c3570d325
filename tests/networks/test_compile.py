"""torch.compile on a CPU, by hand: pytest --long -m long tests/networks/test_compile.py

nnU-Net compiles on a GPU only. inductor is the same there up to the code that it writes, so what a network does to the
graph shows here: a break, another result, a gradient that is lost.
"""

import pytest
import torch
from torch import nn

from nnunet_livseg.reference_networks import build
from nnunet_livseg.variants import find_variant

from .conftest import small_configuration
from .test_every_row import SHALLOWEST, SHALLOWEST_SIZE, without_repeated_blocks

SYSTEMS = ("dpcnet", "sfan", "mpunet", "mfcnet", "sam-urim")  # each in 3D, the larger graph


def step(run, network, x):
    """Outputs of ``run`` and the gradients of the network's parameters, by a loss that all outputs have part in."""
    network.zero_grad()
    outputs = run(x)
    weights = [torch.linspace(-1, 1, o.numel()).reshape(o.shape) for o in outputs]
    sum((o * w).mean() for o, w in zip(outputs, weights, strict=True)).backward()
    return [o.detach() for o in outputs], {name: p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.long
@pytest.mark.parametrize("name", SYSTEMS)
def test_compiled_by_inductor_a_system_trains_as_before(name):
    torch.manual_seed(0)
    torch._dynamo.reset()
    configuration = small_configuration(3, SHALLOWEST, SHALLOWEST_SIZE, convolutions=1)
    network = without_repeated_blocks(build(configuration, find_variant(name), channels=2))
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0  # compiled code draws other numbers
    x = torch.randn(2, 2, *SHALLOWEST_SIZE)
    outputs, gradients = step(network, network, x)
    assert torch._dynamo.explain(network)(x).graph_break_count == 0
    compiled_outputs, compiled_gradients = step(torch.compile(network), network, x)
    for eager, compiled in zip(outputs, compiled_outputs, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)
    largest = max(eager.abs().max() for eager in gradients.values())  # before a norm, a bias has noise only
    for parameter, eager in gradients.items():
        allowed = 2e-3 * eager.abs().max() + 1e-5 * largest
        torch.testing.assert_close(compiled_gradients[parameter], eager, rtol=0, atol=allowed.item())
