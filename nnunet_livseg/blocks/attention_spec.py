"""The attention maps that a network can show: each block declares its maps, the network the level of each block.

Nothing here runs in a normal forward pass. ``record_attention`` hooks the modules that the declarations name, runs the
network once, and reads every map from what went into a module and what came out.
"""

# Shape letters:  B batch, C channels, P phases, N numbers, *S spatial sizes

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

VOXELS = "voxel map"  # (B, 1, *S), a weight or a confidence in 0..1
PHASES = "phase weights"  # (B, P, *S), sum 1 over the phases
POSITIONS = "position weights"  # (B, 1, *S), what one position gathers from all others; sum 1 over S
FEATURES = "features"  # (B, 1, *S), mean absolute value over the channels, at least 0
VECTOR = "vector"  # (B, N), one number per channel or phase
KINDS = (VOXELS, PHASES, POSITIONS, FEATURES, VECTOR)


class ModuleCall(NamedTuple):
    """One call of a module.

    Args:
        inputs: Its positional arguments.
        output: What it returned.
        point: The position that ``POSITIONS`` maps are about: its share of the way along each spatial axis, 0 to 1.
    """

    inputs: tuple
    output: Any
    point: tuple[float, ...]


@dataclass(frozen=True)
class AttentionSpec:
    """A map that a network can show.

    Args:
        key: Short name, unique in the network together with ``level``; part of file names.
        title: The paper's name of it.
        source: Paper with equation or figure.
        kind: One of ``KINDS``.
        level: Where in the pyramid; 0 is full resolution.
        module: The module whose call is watched; each is called once per forward pass.
        read: The map, from that call.
    """

    key: str
    title: str
    source: str
    kind: str
    level: int
    module: nn.Module
    read: Callable[[ModuleCall], Tensor]


def output_features(key: str, title: str, source: str, level: int, module: nn.Module) -> AttentionSpec:
    """The feature map that ``module`` returns, as strength."""
    return AttentionSpec(key, title, source, FEATURES, level, module, lambda call: strength(call.output))


def strength(features: Tensor) -> Tensor:
    """How strongly ``features (B, C, *S)`` respond at each position: mean absolute value over C; ``(B, 1, *S)``."""
    return features.abs().mean(1, keepdim=True)


def position_of(point: Sequence[float], size: Sequence[int]) -> int:
    """Index, in row-major order, of the position of a map of ``size`` that holds ``point`` (see ``ModuleCall``)."""
    index = 0
    for share, length in zip(point, size, strict=True):
        index = index * length + min(int(share * length), length - 1)
    return index


@torch.no_grad()
def record_attention(
    network: nn.Module, x: Tensor, shown: Sequence[AttentionSpec], *, point: Sequence[float]
) -> tuple[Tensor, list[Tensor]]:
    """Run ``network`` on ``x (1, C, *S)`` in evaluation mode, and read all maps of ``shown``.

    Mode and deep supervision of the network are as before when this returns, and its hooks are gone.

    Returns:
        The prediction's logits ``(1, K, *S)`` and the maps, in the order of ``shown``.
    """
    maps: dict[int, Tensor] = {}

    def reader(number: int, read: Callable[[ModuleCall], Tensor]) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
            maps[number] = read(ModuleCall(inputs, output, tuple(point))).float().cpu()

        return hook

    training, supervision = network.training, network.decoder.deep_supervision
    hooks = [one.module.register_forward_hook(reader(number, one.read)) for number, one in enumerate(shown)]
    try:
        network.eval()
        network.decoder.deep_supervision = True  # DPC-Net computes all levels only then
        logits = network(x)[0]
    finally:
        network.decoder.deep_supervision = supervision
        network.train(training)
        for hook in hooks:
            hook.remove()
    return logits.float(), [maps[number] for number in range(len(shown))]
