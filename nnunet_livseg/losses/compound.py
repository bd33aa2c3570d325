"""nnU-Net's compound losses with a paper's terms in place of its own."""

from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn


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
