"""Initial weights from another training, for what fits by name and shape."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nnunet_livseg.core.errors import UserError


@dataclass(frozen=True)
class TransferReport:
    """Which tensors of a network came from a checkpoint."""

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
        UserError: The file is missing, is no nnU-Net checkpoint, or nothing in it fits.
    """
    weights = _read(source, map_location)
    own = network.state_dict()
    stem = _first_convolution(network).weight
    loaded, adapted, new = [], [], []
    for name, tensor in own.items():
        found = weights.get(name)
        if found is not None and found.shape == tensor.shape:
            tensor.copy_(found)
            loaded.append(name)
        elif found is not None and tensor.data_ptr() == stem.data_ptr() and _same_but_channels(found, tensor):
            tensor.copy_(found.mean(1, keepdim=True).expand_as(tensor) * (found.shape[1] / tensor.shape[1]))
            adapted.append(name)
        else:
            new.append(name)
    if not loaded:
        raise UserError(
            f"nothing in {source} fits this network: no tensor has the same name and shape."
            "\n  Initial weights come from a network with the same U-Net, for example a stock nnU-Net training "
            "with the plans that these plans were made from."
        )
    return TransferReport(source, loaded, adapted, new)


def _read(source: Path, map_location: torch.device | str) -> dict[str, Tensor]:
    if not source.is_file():
        raise UserError(
            f"there is no checkpoint {source}, which the recipe starts from.\n  Correct livseg plan --init."
        )
    try:
        content = torch.load(
            source, map_location=map_location, weights_only=False
        )  # nnU-Net's checkpoints hold objects
        weights = content["network_weights"]
    except Exception as error:
        raise UserError(f"{source} is not a checkpoint of nnU-Net: {error}\n  Correct livseg plan --init.") from error
    return {name.removeprefix("module.").removeprefix("_orig_mod."): tensor for name, tensor in weights.items()}


def _first_convolution(network: nn.Module) -> _ConvNd:
    return next(module for module in network.modules() if isinstance(module, _ConvNd))


def _same_but_channels(found: Tensor, own: Tensor) -> bool:
    return found.ndim == own.ndim and found.shape[:1] == own.shape[:1] and found.shape[2:] == own.shape[2:]
