"""Every row on a GPU that is not there: torch's fake tensors have a device and a type, but no values.

A tensor that a network or a loss makes on the CPU stops the pass, as it does on a real GPU. The backward pass is walked
node by node, because torch's engine asks the driver for the device.
"""

from contextlib import nullcontext

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.conv import _ConvNd

from nnunet_livseg.core.labels import LIVER_AND_TUMOR
from nnunet_livseg.inference.ensemble import EnsembleOutputs
from nnunet_livseg.losses import LOSSES, MultiOutputLoss, target_strides
from nnunet_livseg.networks.outputs import TrainingOutput
from nnunet_livseg.reference_networks import build
from nnunet_livseg.variants import find_variant

from .conftest import SHALLOW, SHALLOW_SIZE, small_configuration
from .test_every_row import GRAPHS

GPU = torch.device("cuda", 0)
REGIONS = {"background": 0, "whole_liver": [1, 2], "tumor": [2]}
LABELS = {
    "labels": (LIVER_AND_TUMOR, None, (1, 3)),  # dataset.json's labels, order of regions, channels of target, network
    "ignore": (LIVER_AND_TUMOR | {"ignore": 3}, None, (1, 3)),
    "regions": (REGIONS, [1, 2], (2, 2)),
    "regions with ignore": (REGIONS | {"ignore": 3}, [1, 2], (3, 2)),
}


@pytest.fixture
def gpu(monkeypatch):
    """A mode in which every new tensor is fake; autocast is on in it, though torch sees no GPU."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    return FakeTensorMode()


@pytest.fixture
def gpu_network(variant, dim, gpu):
    with gpu, GPU:
        return build(small_configuration(dim, SHALLOW, SHALLOW_SIZE), variant, channels=2)


def train(network, variant, dim, *, with_gradient=True):
    """One step as the trainer takes it; returns the outputs and the loss."""
    declared = network.training_outputs()
    label = torch.empty(2, 1, *SHALLOW_SIZE[:dim], dtype=torch.int16, device=GPU)
    targets = [label[(..., *(slice(None, None, s) for s in stride))] for stride in target_strides(declared)]
    loss = MultiOutputLoss(LOSSES[variant.loss](LabelManager(LIVER_AND_TUMOR, None), False, False), declared)
    with torch.autocast("cuda"), nullcontext() if with_gradient else torch.no_grad():
        outputs = network(torch.empty(2, 2, *SHALLOW_SIZE[:dim], device=GPU))
        total = loss(outputs, targets)
    if with_gradient:
        backward(total)
    return outputs, total


def backward(loss):
    """What ``loss.backward()`` does, for fake tensors."""
    gradients = {loss.grad_fn: [torch.ones_like(loss)]}
    with torch.no_grad():
        for node in in_order(loss.grad_fn):
            found = getattr(node, "apply", node)(*gradients.pop(node))  # functions in Python are not callable
            found = found if isinstance(found, tuple) else (found,)
            for (following, index), gradient in zip(node.next_functions, found, strict=False):
                if following is not None and gradient is not None:
                    wanted = following._input_metadata[index]
                    assert gradient.device == wanted.device, f"{node.name()} made a gradient on {gradient.device}"
                    gradient = gradient.sum_to_size(wanted.shape).to(wanted.dtype)  # as the engine does
                    inputs = gradients.setdefault(following, [None] * len(following._input_metadata))
                    inputs[index] = gradient if inputs[index] is None else inputs[index] + gradient


def in_order(last):
    """The nodes of autograd's graph, each after all those that lead to it."""
    done, path, seen = [], [(last, iter(last.next_functions))], {last}
    while path:
        _, rest = path[-1]
        following = next((one for one, _ in rest if one is not None and one not in seen), None)
        if following is None:
            done.append(path.pop()[0])
        else:
            seen.add(following)
            path.append((following, iter(following.next_functions)))
    return reversed(done)


def test_every_tensor_is_on_the_gpu(gpu, gpu_network, row):
    """Training under autocast, and prediction with the channels that ``--uncertainty`` adds."""
    variant, dim = row
    with gpu:
        with_gradient = row in GRAPHS  # of the others the backward pass has no operation of its own
        outputs, loss = train(gpu_network, variant, dim, with_gradient=with_gradient)
        assert {tensor.device for tensor in (*outputs, loss)} == {GPU}
        assert loss.dtype == torch.float32
        if with_gradient:
            assert all(p.grad.device == GPU for p in gpu_network.parameters() if p.requires_grad)
        gpu_network.eval()
        gpu_network.decoder.deep_supervision = False
        predicted = EnsembleOutputs(gpu_network, exclusive=True, tumor=(2,))
        with torch.no_grad(), torch.autocast("cuda"):
            assert predicted(torch.empty(1, 2, *SHALLOW_SIZE[:dim], device=GPU)).device == GPU


class ZerosInBackward(torch.autograd.Function):
    """Nothing, and in the gradient the mistake that a block of its own kind could hold."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient + torch.zeros(gradient.shape[-1])


@pytest.mark.parametrize(
    "spoil", [lambda x: x + torch.zeros(x.shape[-1]), ZerosInBackward.apply], ids=["forward", "backward"]
)
@pytest.mark.parametrize("row", [(find_variant("dpcnet-unet"), 2)], ids=["dpcnet-unet-2d"], indirect=True)
def test_a_tensor_without_a_device_is_found(gpu, gpu_network, row, spoil):
    """The test above would see it: a block adds ``torch.zeros(n)`` to what it hands on."""
    block = next(module for module in gpu_network.modules() if isinstance(module, _ConvNd))
    block.register_forward_hook(lambda module, inputs, output: spoil(output))
    with gpu, pytest.raises(RuntimeError, match=r"two (different )?devices,? cuda:0"):
        train(gpu_network, *row)


# nnU-Net's cross-entropy asks how many voxels are not ignored, and weighted_ce counts voxels: fakes have no values
READ_VALUES = {("dice_ce", "ignore"), ("ce", "ignore"), ("pooled_dice_ce", "ignore")}
READ_VALUES |= {("weighted_ce", "labels"), ("weighted_ce", "ignore")}


@pytest.mark.parametrize(
    ("name", "labels"), [(name, labels) for name in LOSSES for labels in LABELS if (name, labels) not in READ_VALUES]
)
def test_every_loss_is_on_the_gpu(gpu, name, labels):
    described, order, (target_channels, classes) = LABELS[labels]
    manager = LabelManager(described, order)
    outputs = [TrainingOutput("prediction", (1, 1, 1), 1.0), TrainingOutput("coarse", (2, 2, 2), 0.5, 0.0)]
    loss = MultiOutputLoss(LOSSES[name](manager, True, False), outputs)
    with gpu:
        logits = [torch.empty(2, classes, n, n, n, device=GPU, dtype=torch.half, requires_grad=True) for n in (8, 4)]
        targets = [torch.empty(2, target_channels, n, n, n, device=GPU, dtype=torch.int16) for n in (8, 4)]
        total = loss(logits, targets)
        assert total.device == GPU
        backward(total)
        assert {tensor.grad.device for tensor in logits} == {GPU}
