"""The losses of outputs, and the weighted sum over several outputs.

A loss is named in a row or in the plans and made from nnU-Net's label manager, so regions and the ignore label work as
in nnU-Net. All losses compute in float32, also under autocast.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunet_livseg.losses.dice import PooledSquaredDice, dice_and_ce
from nnunet_livseg.losses.tversky import tversky_ce, tversky_ce_code
from nnunet_livseg.losses.weighted_ce import weighted_ce
from nnunet_livseg.networks.outputs import TrainingOutput

# name in rows and plans -> (label manager, batch_dice, ddp) -> loss of one output
LOSSES: dict[str, Callable[[LabelManager, bool, bool], nn.Module]] = {
    "dice_ce": dice_and_ce,
    "ce": partial(dice_and_ce, weight_dice=0),
    "dice": partial(dice_and_ce, weight_ce=0),
    "pooled_dice_ce": partial(dice_and_ce, dice=PooledSquaredDice),
    "pooled_dice": partial(dice_and_ce, dice=PooledSquaredDice, weight_ce=0),
    "weighted_ce": weighted_ce,
    "tversky_ce": tversky_ce,
    "tversky_ce_code": tversky_ce_code,
}


class MultiOutputLoss(nn.Module):
    """Weighted sum of one loss over the training outputs that a network declares.

    Args:
        loss: Loss of one output.
        outputs: The network's declaration.
        auxiliary_decay: The recipe's entry of this name, ``{"every": epochs, "factor": f}`` or ``None``.
    """

    def __init__(
        self, loss: nn.Module, outputs: Sequence[TrainingOutput], auxiliary_decay: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.loss = loss
        self.losses, self.declared = zip(*(_of_output(loss, output) for output in outputs), strict=True)
        self.auxiliary_decay = auxiliary_decay
        self.set_epoch(0)
        strides = target_strides(outputs)
        self.target_of = [strides.index(output.stride) for output in outputs]

    def set_epoch(self, epoch: int) -> None:
        """Decay the weights of all but the first output to those of ``epoch`` (from 0)."""
        decay = self.auxiliary_decay or {"every": 1, "factor": 1.0}
        factor = decay["factor"] ** (epoch // decay["every"])
        self.weights = [self.declared[0], *(weight * factor for weight in self.declared[1:])]

    def forward(self, outputs: list[Tensor] | Tensor, targets: list[Tensor] | Tensor) -> Tensor:
        """Total loss of ``outputs``, each against the target at its size.

        ``targets`` has one entry per ``target_strides`` or one per output. Without deep supervision there is one output
        and one target, not in lists.
        """
        if isinstance(outputs, Tensor):
            outputs, targets = [outputs], [targets]
        target_of = self.target_of if len(targets) < len(outputs) else range(len(outputs))
        with torch.autocast(outputs[0].device.type, enabled=False):
            terms = [
                weight * loss(output.float(), targets[index])
                for output, loss, weight, index in zip(outputs, self.losses, self.weights, target_of, strict=True)
                if weight
            ]
            # where everything is ignored nnU-Net's cross-entropy is a plain 0; the sum of nothing has a gradient, of 0
            nothing = sum(output.flatten()[:0].float().sum() for output in outputs)
            return sum(terms, start=nothing)


def _of_output(loss: nn.Module, output: TrainingOutput) -> tuple[nn.Module, float]:
    """The loss of one output and its weight.

    Where its two terms weigh differently, they are weighted inside, by the attributes of nnU-Net's compound losses. A
    loss that has no overlap term is all cross-entropy.
    """
    if output.overlap_weight is None or not hasattr(loss, "weight_dice"):
        return loss, output.weight
    own = copy(loss)
    own.weight_ce, own.weight_dice = loss.weight_ce * output.weight, loss.weight_dice * output.overlap_weight
    return own, float(own.weight_ce != 0 or own.weight_dice != 0)


def target_strides(outputs: Sequence[TrainingOutput]) -> list[tuple[int, ...]]:
    """Strides at which targets are needed, each once, in order; the first is full resolution."""
    return list(dict.fromkeys(output.stride for output in outputs))
