"""Decoder of SAM + URIM: bring all levels to the finest one's size, concatenate, convolve, predict.

Zhang et al., MICCAI 2021, section 2; widths, dropout and ASPP from the authors' code (docs/papers/sam_urim.md).
"""

# Shape letters:  B batch, K classes, C_i channels and *S_i sizes of level i (0 is the finest fused one), F features

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.aspp import AtrousSpatialPyramidPooling
from nnunet_livseg.blocks.tensor_helpers import kernel_like, same_padding

Norm = Callable[[int], nn.Module]


class PyramidDecoder(nn.Module):
    """From levels to features, and from features to initial logits.

    Args:
        channels: Channels C_i of the levels, finest first.
        num_classes: Channels K of the logits.
        width: Features F, of every level and of their fusion.
        streams: Number of feature maps that the prediction reads side by side (decision-level fusion).
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        norm, pooled_norm: Make the normalization of so many channels; ``pooled_norm`` of maps with one position.
        kernel_sizes: The plans' kernels of the levels; axes with kernel 1 are not mixed.
        aspp: Whether the coarsest level passes ASPP first (authors' code).
        dropout: Scales the authors' probabilities (0.5 of ASPP and features, 0.1 before the head); 0 is none.
        align_corners: As in ``torch.nn.functional.interpolate``.
        deep_supervision: nnU-Net's switch; read by the network, not here.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        width: int,
        streams: int,
        conv_op: type[nn.Module],
        norm: Norm,
        pooled_norm: Norm,
        kernel_sizes: Sequence[Sequence[int]],
        aspp: bool,
        dropout: float,
        align_corners: bool,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.resize_options = {
            "mode": "trilinear" if conv_op is nn.Conv3d else "bilinear",
            "align_corners": align_corners,
        }
        kernel = kernel_like(3, kernel_sizes[0])

        def convolve(inputs: int) -> nn.Sequential:
            conv = conv_op(inputs, width, kernel, padding=same_padding(kernel), bias=False)
            return nn.Sequential(conv, norm(width), nn.ReLU())

        *inputs, coarsest = channels
        self.aspp = nn.Identity()
        if aspp:
            self.aspp = AtrousSpatialPyramidPooling(
                coarsest,
                width,
                conv_op=conv_op,
                norm=norm,
                pooled_norm=pooled_norm,
                kernel_size=kernel_sizes[-1],
                dropout=0.5 * dropout,
            )
            coarsest = width
        self.levels = nn.ModuleList(convolve(c) for c in (*inputs, coarsest))
        self.fuse = nn.Sequential(convolve(len(channels) * width), nn.Dropout(0.5 * dropout))
        self.refine = nn.Sequential(convolve(streams * width), nn.Dropout(0.1 * dropout))
        self.seg_layers = nn.ModuleList([conv_op(width, num_classes, 1)])

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Features ``(B, F, *S_0)`` of ``levels``, maps ``(B, C_i, *S_i)``, finest first."""
        size = levels[0].shape[2:]
        levels = [*levels[:-1], self.aspp(levels[-1])]
        maps = [conv(self.resize(level, size)) for conv, level in zip(self.levels, levels, strict=True)]
        return self.fuse(torch.cat(maps, 1))

    def predict(self, features: Tensor) -> Tensor:
        """Initial logits ``(B, K, *S_0)`` of ``features (B, streams * F, *S_0)``."""
        return self.seg_layers[0](self.refine(features))

    def resize(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """``x (B, C, *s)`` at another size, linearly interpolated."""
        return x if x.shape[2:] == tuple(size) else F.interpolate(x, tuple(size), **self.resize_options)
