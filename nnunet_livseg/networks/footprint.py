"""The cost of a network, found by running it on tensors without data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode


def conv_feature_map_size(network: nn.Module, input_size: Sequence[int], input_channels: int) -> int:
    """Elements of all convolutions' outputs for one case of ``input_size``: what nnU-Net's planners size patches by.

    Counted with all training outputs, by running the network on the meta device, so it cannot disagree with
    ``forward``. What no convolution module returns as a whole, as the parts of SpaCor's hidden map, is left out.
    """
    elements = 0

    def count(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, _ConvNd)]
    try:
        run_on_meta(network, torch.empty(1, input_channels, *input_size, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return elements


def run_on_meta(network: nn.Module, x: Tensor) -> Tensor | list[Tensor]:
    """Shapes of all training outputs of ``network`` for the meta tensor ``x``, without computing anything."""
    # not state_dict: nnU-Net's blocks list a convolution under two names, and torch would put the meta tensor back
    tensors = (*network.named_parameters(), *network.named_buffers())
    state = {name: tensor.detach().to("meta") for name, tensor in tensors}
    with torch.no_grad(), _all_outputs(network):
        return torch.func.functional_call(network, state, (x,), tie_weights=False)


def forward_flops(network: nn.Module, x: Tensor) -> float:
    """Floating-point operations of a forward pass with all outputs; a multiplication and an addition are two.

    ``network`` and ``x`` may be on the device meta, where the same is counted and nothing is computed.
    """
    with torch.device(x.device), torch.no_grad(), _all_outputs(network), FlopCounterMode(display=False) as counter:
        network(x)
    return float(counter.get_total_flops())


def saved_for_backward(network: nn.Module, x: Tensor) -> int:
    """Bytes of the tensors that a training step keeps for its backward pass, without the parameters.

    ``network`` and ``x`` may be on the device meta.
    """
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with (
        torch.device(x.device),
        _all_outputs(network),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        network.train()
        outputs = network(x)
    total = sum(kept.values())
    del outputs  # which had kept the tensors alive, so that no two had one address
    return total


@contextmanager
def _all_outputs(network: nn.Module) -> Iterator[None]:
    before, training = network.decoder.deep_supervision, network.training
    network.decoder.deep_supervision = True
    network.eval()  # batch normalization takes no single case in training
    try:
        yield
    finally:
        network.decoder.deep_supervision = before
        network.train(training)
