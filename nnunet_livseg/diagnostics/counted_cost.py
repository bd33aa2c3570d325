"""The cost of a network, counted on tensors without values: nothing is computed, and no memory is needed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nnunet_livseg.networks.footprint import forward_flops, saved_for_backward
from nnunet_livseg.reference_networks import build, build_on_meta
from nnunet_livseg.variants import Variant


@dataclass(frozen=True)
class CountedCost:
    """Trained parameters, and for a batch floating-point operations of a forward pass and bytes saved in float32."""

    parameters: int
    forward_flops: float
    saved_bytes: int


def on_meta(
    configuration: dict[str, Any], variant: Variant | None = None, *, shape: tuple[int, ...], classes: int = 3
) -> tuple[nn.Module, torch.Tensor]:
    """The network and an input of ``shape`` (B, C, *S) on the device meta: to count, for nothing is computed there."""
    network = build_on_meta(configuration, variant, channels=shape[1], classes=classes)
    return network, torch.empty(shape, device="meta")


def counted_cost(
    configuration: dict[str, Any], variant: Variant | None = None, *, shape: tuple[int, ...], classes: int = 3
) -> CountedCost:
    """Trained parameters, FLOPs and saved tensors for an input of ``shape`` (B, C, *S)."""
    network, x = on_meta(configuration, variant, shape=shape, classes=classes)
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    flops = forward_flops(network, x)
    try:
        saved = _saved_on_cpu(configuration, variant, shape, classes)
    except Exception:  # a stranger's network may need values
        saved = saved_for_backward(network, x)
    return CountedCost(parameters, flops, saved)


def _saved_on_cpu(configuration: dict[str, Any], variant: Variant | None, shape: tuple[int, ...], classes: int) -> int:
    """What the kernels of a processor save, on torch's fake tensors; the device meta makes whole attention maps."""
    with FakeTensorMode():
        network = build(configuration, variant, channels=shape[1], classes=classes, initialize=False)
        return saved_for_backward(network, torch.empty(shape))
