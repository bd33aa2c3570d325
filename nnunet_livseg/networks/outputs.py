"""The training outputs of a network, declared once: losses, targets and tests are derived from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TrainingOutput:
    """One entry of the list that a network returns while ``decoder.deep_supervision`` is set.

    Attributes:
        name: What the output is, for logs and documents (``"sem0"``).
        stride: Size of the input divided by size of the output, one entry per axis.
        weight: Its share in the total loss; 0 for an output that is watched but not trained.
        overlap_weight: Share of the loss's overlap term (Dice, Tversky), if it has its own; ``weight`` is then that of
            the cross-entropy. ``None``: both terms have ``weight``.
    """

    name: str
    stride: tuple[int, ...]
    weight: float
    overlap_weight: float | None = None


def level_strides(strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Cumulative stride of every stage, from the strides that the plans list per stage."""
    return [tuple(int(s) for s in row) for row in np.cumprod(np.array(strides), axis=0)]


def nnunet_weights(levels: int) -> list[float]:
    """nnU-Net's deep-supervision weights: halved per level, the coarsest as good as off, sum 1.

    nnU-Net sets the coarsest to 0, and to 1e-6 under DDP, where an unused head would stop the training; we take 1e-6
    everywhere.
    """
    weights = np.array([1 / 2**i for i in range(levels)])
    if levels > 1:
        weights[-1] = 1e-6
    return [float(weight) for weight in weights / weights.sum()]


def nnunet_outputs(strides: Sequence[Sequence[int]]) -> list[TrainingOutput]:
    """What nnU-Net's own networks return for training: an output at every level but the deepest."""
    levels = level_strides(strides)[:-1]
    weights = nnunet_weights(len(levels))
    return [TrainingOutput(f"level{i}", *of) for i, of in enumerate(zip(levels, weights, strict=True))]
