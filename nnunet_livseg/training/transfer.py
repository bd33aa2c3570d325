"""Initial weights from another training, for what fits by name and shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nnunet_livseg.core.errors import UserError


@dataclass(frozen=True)
class TransferReport:
    """Which tensors of a network came from a checkpoint; one that has several names there is named once."""

    source: Path
    loaded: list[str]
    adapted: list[str]  # first convolution, from another number of input channels
    new: list[str]

    def summary(self) -> str:
        """For the training log: how much was loaded, and each tensor that was not."""
        total = len(self.loaded) + len(self.adapted) + len(self.new)
        lines = [f"Initial weights from {self.source}: {len(self.loaded)} of {total} tensors loaded."]
        lines += [f"  adapted to the number of input channels: {name}" for name in self.adapted]
        lines += [f"  new: {name}" for name in self.new]
        return "\n".join(lines)


def load_matching(network: nn.Module, source: Path, *, map_location: torch.device | str = "cpu") -> TransferReport:
    """Load every tensor of a nnU-Net checkpoint that matches ``network`` by name and shape.

    The first convolution is adapted to another number of input channels: its kernels are averaged over the old
    channels and scaled, so that equal channels give the old response.

    Raises:
        UserError: The file is missing or is not an nnU-Net checkpoint, or none of its convolution kernels fits.
    """
    weights = read_weights(source, map_location)
    report = matching(network, weights, source)
    own = network.state_dict()
    for name in report.loaded:
        own[name].copy_(weights[name])
    for name in report.adapted:
        found, tensor = weights[name], own[name]
        tensor.copy_(found.mean(1, keepdim=True).expand_as(tensor) * (found.shape[1] / tensor.shape[1]))
    return report


def matching(network: nn.Module, weights: Mapping[str, Tensor], source: Path) -> TransferReport:
    """Which of ``weights``, those of the checkpoint ``source``, fit; a look at names and shapes, which loads nothing.

    Raises:
        UserError: No kernel of a convolution fits; norms and biases fit anywhere, and alone are no transfer.
    """
    own = network.state_dict(keep_vars=True)  # the parameters themselves
    stem = next(module for module in network.modules() if isinstance(module, _ConvNd)).weight
    names_of: dict[int, list[str]] = {}  # nnU-Net's blocks name a convolution twice, and a file may name it once
    for name, tensor in own.items():
        names_of.setdefault(id(tensor), []).append(name)
    loaded, adapted, new = [], [], []
    for names in names_of.values():
        name = next((one for one in names if one in weights), names[0])
        found, tensor = weights.get(name), own[name]
        if found is not None and found.shape == tensor.shape:
            loaded.append(name)
        elif found is not None and tensor is stem and _same_but_channels(found, tensor):
            adapted.append(name)
        else:
            new.append(name)
    if not any(_is_kernel(own[name]) for name in loaded + adapted):
        raise UserError(_no_transfer(source, weights, own, loaded))
    return TransferReport(source, loaded, adapted, new)


def _is_kernel(tensor: Tensor) -> bool:
    return tensor.ndim > 2


def _no_transfer(source: Path, weights: Mapping[str, Tensor], own: Mapping[str, Tensor], loaded: list[str]) -> str:
    theirs, ours = ({tensor.ndim - 2 for tensor in one.values() if _is_kernel(tensor)} for one in (weights, own))
    if theirs and ours and not theirs & ours:
        reason = f"its convolutions are {max(theirs)}D, and the network's are {max(ours)}D"
    elif loaded:
        reason = f"only {len(loaded)} norms and biases have the same name and shape, which is not enough for a transfer"
    else:
        reason = "no tensor has the same name and shape"
    return (
        f"nothing in {source} fits this network: {reason}."
        "\n  Give the weights of a network with the same U-Net, for example of an nnU-Net training "
        "with the source plans."
    )


def read_weights(source: Path, map_location: torch.device | str) -> dict[str, Tensor]:
    """The network's tensors of a checkpoint of nnU-Net or of ``.safetensors``, by name; on ``meta``, shapes alone.

    Raises:
        UserError: The file is missing, or is neither.
    """
    if not source.is_file():
        raise UserError(
            f"there is no checkpoint {source}, which the recipe starts from.\n  Correct livseg plan --init."
        )
    try:
        if source.suffix == ".safetensors":
            return {name: tensor.to(map_location, torch.float32) for name, tensor in load_file(source).items()}
        content = torch.load(
            source, map_location=map_location, weights_only=False
        )  # nnU-Net's checkpoints hold objects
        weights = content["network_weights"]
        return {name.removeprefix("module.").removeprefix("_orig_mod."): tensor for name, tensor in weights.items()}
    except Exception as error:
        raise UserError(f"{source} is not a checkpoint of nnU-Net: {error}\n  Correct livseg plan --init.") from error


def _same_but_channels(found: Tensor, own: Tensor) -> bool:
    return found.ndim == own.ndim and found.shape[:1] == own.shape[:1] and found.shape[2:] == own.shape[2:]
