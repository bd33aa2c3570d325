"""DAF: deep attentive features, refine every level by attention on the fusion of all.

Wang et al., Deep Attentive Features for Prostate Segmentation in 3D Transrectal Ultrasound, IEEE TMI 2019.
Comparator "DAF" of DPC-Net's Table 4. Reading (docs/papers/dpcnet.md): the head of the published network at half width
(64 and 32 channels) on the four finest pyramid levels; 0.68M parameters, as Table 4 prints.
Group normalization has the authors' 32 groups everywhere.
Different from the authors' code: dilations follow the axes that the plans pool, so that thick slices are not skipped.
"""

# Shape letters:  B batch, N levels, W wide channels, M narrow channels, *S sizes of the working grid

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import VOXELS, AttentionSpec

GROUPS = 32  # of every normalization in the authors' code, whatever the width


def _conv(conv_op: type[nn.Module], inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [conv_op(inputs, outputs, kernel, padding=kernel // 2), nn.GroupNorm(GROUPS, outputs), nn.PReLU()]


def _refinement(conv_op: type[nn.Module], inputs: int, width: int, *, sigmoid: bool = False) -> nn.Sequential:
    """1x1 and two 3x3 convolutions to ``width`` channels; attention maps end in a sigmoid."""
    layers = [
        *_conv(conv_op, inputs, width, 1),
        *_conv(conv_op, width, width, 3),
        *_conv(conv_op, width, width, 3),
    ]
    return nn.Sequential(*layers[:-2], nn.Sigmoid()) if sigmoid else nn.Sequential(*layers)


class DeepAttentiveFeatures(nn.Module):
    """Fuse pyramid levels, weight each by attention on the fusion, refine and merge them.

    Args:
        level_channels: Channels of the N pyramid levels, finest first.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        wide: Channels W of the levels after reduction, a multiple of ``GROUPS``.
        narrow: Channels M of fusion, attention and result, likewise.
        dilation_axes: One entry per axis: whether the dilated convolutions dilate along it.
    """

    RATES = (1, 6, 12, 18)

    def __init__(
        self,
        level_channels: list[int],
        *,
        conv_op: type[nn.Module],
        wide: int = 64,
        narrow: int = 32,
        dilation_axes: tuple[bool, ...] = (False, True, True),
    ) -> None:
        super().__init__()
        levels = len(level_channels)
        self.reduce = nn.ModuleList(nn.Sequential(*_conv(conv_op, c, wide, 1)) for c in level_channels)
        self.fuse = _refinement(conv_op, levels * wide, narrow)
        self.attend = nn.ModuleList(_refinement(conv_op, wide + narrow, narrow, sigmoid=True) for _ in range(levels))
        self.refine = nn.ModuleList(_refinement(conv_op, wide + narrow, narrow) for _ in range(levels))
        self.merge = nn.Sequential(*_conv(conv_op, levels * narrow, narrow, 1))
        self.dilated = nn.ModuleList(self._dilated(conv_op, narrow, rate, dilation_axes) for rate in self.RATES)
        self.out = nn.Sequential(conv_op(len(self.RATES) * narrow, narrow, 1), nn.GroupNorm(GROUPS, narrow))
        self._average = F.avg_pool3d if conv_op is nn.Conv3d else F.avg_pool2d
        self._mode = "trilinear" if conv_op is nn.Conv3d else "bilinear"

    @staticmethod
    def _dilated(conv_op: type[nn.Module], width: int, rate: int, axes: tuple[bool, ...]) -> nn.Sequential:
        dilation = tuple(rate if along else 1 for along in axes)
        return nn.Sequential(conv_op(width, width, 3, padding=dilation, dilation=dilation), nn.GroupNorm(GROUPS, width))

    def forward(self, pyramid: list[Tensor], grid: tuple[int, ...]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Refine ``pyramid`` (finest first) on the working grid of sizes ``grid`` (*S).

        Returns the merged map ``(B, M, *S)``, the reduced levels ``N x (B, W, *S)`` and the refined levels
        ``N x (B, M, *S)``; the published network predicts from each of them.
        """
        levels = self._top_down(pyramid, grid)
        fusion = self.fuse(torch.cat(levels, 1))
        refined = [
            refine(torch.cat([level, attend(torch.cat([level, fusion], 1)) * fusion], 1))
            for level, attend, refine in zip(levels, self.attend, self.refine, strict=True)
        ]
        merged = self.merge(torch.cat(refined, 1))
        return self.out(torch.cat([dilated(merged) for dilated in self.dilated], 1)), levels, refined

    def attention_specs(self) -> list[AttentionSpec]:
        """The attention of each level, mean over its channels; see ``blocks.attention_spec``."""
        title, source = "DAF: attention (mean of channels)", "Wang et al. 2019 (DAF of DPC-Net, Table 4)"
        return [
            AttentionSpec("daf", title, source, VOXELS, level, attend, lambda call: call.output.mean(1, keepdim=True))
            for level, attend in enumerate(self.attend)
        ]

    def _top_down(self, pyramid: list[Tensor], grid: tuple[int, ...]) -> list[Tensor]:
        """Reduce every level, add the coarser ones to it, and bring all to the working grid."""
        reduced = [reduce(self._down(level, grid)) for reduce, level in zip(self.reduce, pyramid, strict=True)]
        for i in range(len(reduced) - 2, -1, -1):
            reduced[i] = reduced[i] + self._resize(reduced[i + 1], reduced[i].shape[2:])
        return [self._resize(level, grid) for level in reduced]

    def _down(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Average a level that is finer than the working grid; reduction commutes with it but for its activation."""
        factor = tuple(max(1, size // goal) for size, goal in zip(x.shape[2:], grid, strict=True))
        return self._average(x, factor, factor)

    def _resize(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        return F.interpolate(x, size=size, mode=self._mode, align_corners=False)
