"""Cross-entropy with fixed weights for background, liver and tumor.

Li et al., H-DenseUNet, IEEE TMI 2018, whose authors train with 0.78 / 0.65 / 8.57; SFAN (arXiv:1911.00282)
refers to it.
The mean is over voxels: a voxel of weight w counts w / N, unlike torch's, which divides by the sum of the weights.
"""

# Shape letters:  B batch, K classes or regions, *S spatial sizes

from collections.abc import Sequence

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import TUMOR, roles

BACKGROUND_WEIGHT, LIVER_WEIGHT, TUMOR_WEIGHT = 0.78, 0.65, 8.57


def weighted_ce(labels: LabelManager, batch_dice: bool, ddp: bool) -> nn.Module:
    """The loss for a dataset's labels; tumor labels are recognized by name, every other foreground counts as liver.

    Raises:
        UserError: No label of the dataset is a tumor by its name.
    """
    role = roles(labels.label_dict)
    tumors = [role[name] == TUMOR for name in role]
    if not any(tumors):
        raise UserError(
            f"the loss weighted_ce weights background {BACKGROUND_WEIGHT}, liver {LIVER_WEIGHT} and tumor"
            f" {TUMOR_WEIGHT}, but no label of this dataset has the name of a tumor:"
            f" {', '.join(role) or 'background only'}."
            "\n  Name the label tumor (or lesion, cancer, HCC, metastasis) in dataset.json if it is one."
            "\n  Otherwise choose another loss: write plans with livseg plan --loss ce."
        )
    if labels.has_regions:
        return WeightedRegionCrossEntropy(tumors, has_ignore=labels.has_ignore_label)
    weights = [BACKGROUND_WEIGHT] * len(labels.all_labels)
    for name, tumor in zip(role, tumors, strict=True):
        value = int(np.ravel(labels.label_dict[name])[0])  # a label may stand in a list
        weights[value] = TUMOR_WEIGHT if tumor else LIVER_WEIGHT
    return WeightedCrossEntropy(weights, ignore_label=labels.ignore_label)


class WeightedCrossEntropy(nn.Module):
    """Voxel mean of ``-w_k log p_k``, k the voxel's class.

    Args:
        weights: One weight per class.
        ignore_label: Label whose voxels do not count, neither in the sum nor in their number.
    """

    def __init__(self, weights: Sequence[float], *, ignore_label: int | None = None) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)
        self.ignore_label = -100 if ignore_label is None else ignore_label

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of ``logits (B, K, *S)`` against labels ``target (B, 1, *S)``."""
        classes = target[:, 0].long()
        self.weights = self.weights.to(logits)
        total = F.cross_entropy(logits, classes, self.weights, ignore_index=self.ignore_label, reduction="sum")
        return total / (classes != self.ignore_label).sum().clamp(min=1)


class WeightedRegionCrossEntropy(nn.Module):
    """Voxel mean of ``w`` times the binary cross-entropy's mean over regions; w is that of the voxel's tissue.

    An extension to nnU-Net's region-based training: a voxel in a tumor region has the tumor's weight, any other voxel
    in a region the liver's, and the rest the background's.

    Args:
        tumors: For each region whether it is tumor.
        has_ignore: Whether the target's last channel marks the voxels that do not count.
    """

    def __init__(self, tumors: Sequence[bool], *, has_ignore: bool = False) -> None:
        super().__init__()
        self.tumor_regions = [i for i, tumor in enumerate(tumors) if tumor]
        self.has_ignore = has_ignore

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of ``logits (B, K, *S)`` against one-hot regions ``target (B, K or K + 1, *S)``."""
        regions = target[:, : logits.shape[1]].to(logits.dtype)
        inside = regions.amax(1)
        tumor = regions[:, self.tumor_regions].amax(1)
        weights = BACKGROUND_WEIGHT + (LIVER_WEIGHT - BACKGROUND_WEIGHT) * inside
        weights = torch.where(tumor > 0, TUMOR_WEIGHT, weights)
        entropy = F.binary_cross_entropy_with_logits(logits, regions, reduction="none").mean(1)
        if not self.has_ignore:
            return (weights * entropy).mean()
        counts = target[:, -1] == 0
        return (weights * entropy * counts).sum() / counts.sum().clamp(min=1)
