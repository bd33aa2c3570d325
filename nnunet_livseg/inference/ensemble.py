"""Agreement of the single predictions (folds, mirrored copies, overlapping patches) in nnU-Net's sliding window.

nnU-Net averages logits over mirrored copies, overlapping patches and folds. Probabilities and votes that travel as
further output channels are averaged by the same code, so the label map stays exactly nnU-Net's.
"""

# Shape letters: B batch, K output channels of the network, *S spatial sizes

import torch
from torch import Tensor, nn


class EnsembleOutputs(nn.Module):
    """A network with two additional kinds of output channels: probabilities, and the vote for tumor.

    Args:
        network: Any network of nnU-Net, ``(B, C, *S)`` to logits ``(B, K, *S)``.
        exclusive: Labels exclude each other (softmax), else regions (sigmoid).
        tumor: Output channels that are tumor; without any there is no vote.
    """

    def __init__(self, network: nn.Module, *, exclusive: bool, tumor: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.exclusive, self.tumor = network, exclusive, tumor

    def forward(self, x: Tensor) -> Tensor:
        """Logits K, probabilities K, vote 1 or 0: ``(B, 2 K + 1, *S)``."""
        logits = self.network(x)
        probabilities = torch.softmax(logits.float(), 1) if self.exclusive else torch.sigmoid(logits.float())
        parts = [logits, probabilities.to(logits.dtype)]
        if self.tumor:
            votes = [vote(one.float(), self.tumor, exclusive=self.exclusive)[None] for one in logits]
            parts.append(torch.stack(votes).to(logits.dtype))
        return torch.cat(parts, 1)

    def load_state_dict(self, *args, **kwargs):
        """Weights of a fold go into the network itself; nnU-Net loads them so between folds."""
        return getattr(self.network, "_orig_mod", self.network).load_state_dict(*args, **kwargs)


def vote(logits: Tensor, tumor: tuple[int, ...], *, exclusive: bool) -> Tensor:
    """Whether ``logits (K, *S)`` say tumor: the largest is one of its channels, or, of regions, one is above 0."""
    if exclusive:
        return torch.isin(logits.argmax(0), torch.tensor(tumor, dtype=torch.long, device=logits.device))
    return (logits[list(tumor)] > 0).any(0)


def entropy(probabilities: Tensor, *, exclusive: bool) -> Tensor:
    """Entropy of mean probabilities ``(K, *S)`` over its largest possible value: 0 certain; ``(*S)``.

    Labels: entropy over the K labels, over log K, so 1 where all of them are equally likely (0.63 for two of three).
    Regions: the least certain region's entropy, over log 2.
    """
    p = probabilities.float().clamp(0, 1)
    if exclusive:
        p = p / p.sum(0, keepdim=True).clamp_min(1e-6)  # half precision leaves sums a little off 1
        return torch.special.entr(p).sum(0) / torch.log(torch.tensor(float(max(len(p), 2))))
    return (torch.special.entr(p) + torch.special.entr(1 - p)).amax(0) / torch.log(torch.tensor(2.0))
