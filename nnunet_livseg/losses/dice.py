"""nnU-Net's compound losses of Dice and cross-entropy, and a Dice loss for them that it does not have."""

# Shape letters:  B batch, K classes or regions, *S spatial sizes

from collections.abc import Callable

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn


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


def dice_and_ce(
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
