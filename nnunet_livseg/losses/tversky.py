"""Tversky loss plus binary cross-entropy per class.

Yu and Han, MPU-Net, arXiv:2307.05799, section 3.4, Eq. (19). Readings (docs/papers/mpunet.md): ``log(1 - log P)`` is
``log(1 - P)``; the cross-entropy is averaged, because summed over millions of voxels it would drown the Tversky term;
false positives weigh 0.3 and false negatives 0.7, as in the authors' code (which swaps the names).
"""

# Shape letters:  B batch, K classes or regions, *S spatial sizes

from functools import partial

import torch
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn
from torch.nn import functional as F

FALSE_POSITIVES, FALSE_NEGATIVES = 0.3, 0.7
SMOOTH = 1.0
_NEARLY_CERTAIN = -1e-7  # largest log P whose log(1 - P) float32 can hold


class TverskyCrossEntropy(nn.Module):
    """``1 - mean Tversky index + binary cross-entropy`` of logits.

    The terms have the weights ``weight_dice`` and ``weight_ce``, 1 each, as nnU-Net's compound losses have.

    Args:
        regions: Whether K counts nnU-Net's regions (sigmoid) instead of classes (softmax).
        ignore_label: Label without loss; with regions, whatever is not ``None`` says that the last target is its mask.
        batch_dice: Whether the index is computed over the batch instead of per case.
        ddp: Whether the batch is spread over processes.
        authors_code: Bit for bit the authors' code: the index of every case, background included, an empty class scores
            0 even where it is predicted right, and the cross-entropy takes the sigmoid of the probabilities, so that
            it only sees values between 0.5 and 0.731.
    """

    def __init__(
        self,
        *,
        regions: bool = False,
        ignore_label: int | None = None,
        batch_dice: bool = False,
        ddp: bool = False,
        authors_code: bool = False,
    ) -> None:
        super().__init__()
        self.regions, self.ignore_label, self.authors_code = regions, ignore_label, authors_code
        self.pooled, self.ddp = batch_dice and not authors_code, ddp
        self.weight_dice, self.weight_ce = 1.0, 1.0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss of logits ``x (B, K, *S)`` against labels ``y (B, 1, *S)`` or one-hot regions ``y (B, K, *S)``."""
        x = x.float()
        g, mask = self._target(x, y)
        if self.regions:
            log_p, log_rest = F.logsigmoid(x), F.logsigmoid(-x)
        else:
            log_p = F.log_softmax(x, 1)
            log_rest = torch.log(-torch.expm1(log_p.clamp(max=_NEARLY_CERTAIN)))
        p = log_p.exp()
        if self.authors_code:
            log_p, log_rest = F.logsigmoid(p), F.logsigmoid(-p)
        overlap = self.weight_dice and self.weight_dice * (1 - self._tversky(p, g, mask).mean())
        return overlap + (self.weight_ce and self.weight_ce * self._cross_entropy(g, log_p, log_rest, mask))

    @staticmethod
    def _cross_entropy(g: Tensor, log_p: Tensor, log_rest: Tensor, mask: Tensor) -> Tensor:
        """Mean over classes and the voxels that count."""
        entropy = -(g * log_p + (1 - g) * log_rest)
        return (entropy * mask).sum() / (mask.sum() * g.shape[1]).clamp(min=1)

    def _target(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One-hot reference ``(B, K, *S)`` and 1 where the loss counts ``(B, 1, *S)``."""
        if self.regions:
            masked = self.ignore_label is not None
            mask = 1 - y[:, -1:].to(x.dtype) if masked else torch.ones_like(x[:, :1])
            return (y[:, :-1] if masked else y).to(x.dtype), mask
        ignored = torch.zeros_like(y, dtype=torch.bool) if self.ignore_label is None else y == self.ignore_label
        labels = y.masked_fill(ignored, 0).long()
        return torch.zeros_like(x).scatter_(1, labels, 1), (~ignored).to(x.dtype)

    def _tversky(self, p: Tensor, g: Tensor, mask: Tensor) -> Tensor:
        """Index per case and class, ``(B, K)``, or per class; background only where the authors' code has it."""
        first = 0 if self.regions or self.authors_code else 1
        p, g = (p * mask)[:, first:].flatten(2), (g * mask)[:, first:].flatten(2)
        hits, predicted, present = (p * g).sum(2), p.sum(2), g.sum(2)
        if self.pooled:
            gather = AllGatherGrad.apply if self.ddp else lambda t: t
            hits, predicted, present = (gather(t).sum(0) for t in (hits, predicted, present))
        errors = FALSE_POSITIVES * (predicted - hits) + FALSE_NEGATIVES * (present - hits)
        return (hits if self.authors_code else hits + SMOOTH) / (hits + errors + SMOOTH)


def tversky_ce(labels: LabelManager, batch_dice: bool, ddp: bool, *, authors_code: bool = False) -> nn.Module:
    """``TverskyCrossEntropy`` for a dataset's labels."""
    return TverskyCrossEntropy(
        regions=labels.has_regions,
        ignore_label=labels.ignore_label if labels.has_ignore_label else None,
        batch_dice=batch_dice,
        ddp=ddp,
        authors_code=authors_code,
    )


tversky_ce_code = partial(tversky_ce, authors_code=True)
