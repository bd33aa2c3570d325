"""What an output is trained with, and how several outputs add up.

The losses are nnU-Net's, with the papers' terms in place of its own where they differ, so regions and the ignore label
work as in nnU-Net. All of them compute in float32, also under autocast.
"""

# Shape letters:  B batch, K classes or regions, *S spatial sizes

from collections.abc import Callable, Sequence
from functools import partial

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunet_livseg.networks.outputs import TrainingOutput


class PooledSquaredDice(nn.Module):
    """One Dice fraction pooled over all classes, background included, with squared denominators.

    Zhang et al., DPC-Net, Medical Physics 2022, Eq. (12). The arguments are those of nnU-Net's Dice losses, so that it
    fits into its compound losses; ``do_bg`` is ignored, as the equation sums over all classes.
    """

    def __init__(
        self,
        apply_nonlin: Callable[[Tensor], Tensor],
        batch_dice: bool = False,
        do_bg: bool = True,
        smooth: float = 1e-5,
        ddp: bool = False,
    ) -> None:
        super().__init__()
        self.apply_nonlin, self.batch_dice, self.smooth, self.ddp = apply_nonlin, batch_dice, smooth, ddp

    def forward(self, x: Tensor, y: Tensor, loss_mask: Tensor | None = None) -> Tensor:
        """Loss of logits ``x (B, K, *S)`` against labels ``y (B, 1, *S)`` or one-hot regions ``y (B, K, *S)``."""
        p = self.apply_nonlin(x)
        g = y.to(p.dtype) if y.shape == p.shape else torch.zeros_like(p).scatter_(1, y.long(), 1)
        mask = 1 if loss_mask is None else loss_mask
        axes = tuple(range(1, p.ndim))
        overlap, sizes = (p * g * mask).sum(axes), ((p.square() + g.square()) * mask).sum(axes)
        if self.batch_dice:
            if self.ddp:
                overlap, sizes = AllGatherGrad.apply(overlap), AllGatherGrad.apply(sizes)
            overlap, sizes = overlap.sum(), sizes.sum()
        return -((2 * overlap + self.smooth) / (sizes + self.smooth)).mean()


def _compound(
    labels: LabelManager,
    batch_dice: bool,
    ddp: bool,
    *,
    weight_ce: float = 1,
    weight_dice: float = 1,
    dice: type[nn.Module] = MemoryEfficientSoftDiceLoss,
) -> nn.Module:
    """nnU-Net's Dice + cross-entropy (classes) or Dice + binary cross-entropy (regions)."""
    options = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": labels.has_regions, "ddp": ddp}
    weights = {"weight_ce": weight_ce, "weight_dice": weight_dice, "dice_class": dice}
    if labels.has_regions:
        return DC_and_BCE_loss({}, options, use_ignore_label=labels.has_ignore_label, **weights)
    return DC_and_CE_loss(options, {}, ignore_label=labels.ignore_label, **weights)


LOSSES: dict[str, Callable[[LabelManager, bool, bool], nn.Module]] = {
    "dice_ce": _compound,
    "ce": partial(_compound, weight_dice=0),
    "dice": partial(_compound, weight_ce=0),
    "pooled_dice_ce": partial(_compound, dice=PooledSquaredDice),
    "pooled_dice": partial(_compound, dice=PooledSquaredDice, weight_ce=0),
}


class MultiOutputLoss(nn.Module):
    """Weighted sum of one loss over the training outputs that a network declares.

    Args:
        loss: Loss of one output.
        outputs: The network's declaration.
    """

    def __init__(self, loss: nn.Module, outputs: Sequence[TrainingOutput]) -> None:
        super().__init__()
        self.loss = loss
        self.weights = [output.weight for output in outputs]
        strides = target_strides(outputs)
        self.target_of = [strides.index(output.stride) for output in outputs]

    def forward(self, outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
        """Total loss of ``outputs``, against the one of ``targets`` (one per ``target_strides``) at their size."""
        with torch.autocast(outputs[0].device.type, enabled=False):
            terms = [
                weight * self.loss(output.float(), targets[index])
                for output, weight, index in zip(outputs, self.weights, self.target_of, strict=True)
                if weight
            ]
            return sum(terms)


def target_strides(outputs: Sequence[TrainingOutput]) -> list[tuple[int, ...]]:
    """Strides at which targets are needed, each once, in order; the first is full resolution."""
    return list(dict.fromkeys(output.stride for output in outputs))
