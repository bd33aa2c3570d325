"""What a network costs, counted on tensors without values: nothing is computed, and no memory is needed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nnunet_livseg.networks.footprint import forward_flops, saved_for_backward
from nnunet_livseg.reference_networks import build
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
    with torch.device("meta"):
        network = build(configuration, variant, channels=shape[1], classes=classes, initialize=False)
        return network, torch.empty(shape)


def counted_cost(
    configuration: dict[str, Any], variant: Variant | None = None, *, shape: tuple[int, ...], classes: int = 3
) -> CountedCost:
    """Trained parameters, FLOPs and saved tensors for an input of ``shape`` (B, C, *S)."""
    network, x = on_meta(configuration, variant, shape=shape, classes=classes)
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    flops = forward_flops(network, x)
    with FakeTensorMode():  # it saves what the kernels of a processor save; meta makes whole attention maps
        fake = build(configuration, variant, channels=shape[1], classes=classes, initialize=False)
        return CountedCost(parameters, flops, saved_for_backward(fake, torch.empty(shape)))
