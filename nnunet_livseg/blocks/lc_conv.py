"""LC-Conv: a convolution to which sure positions contribute more than unsure ones.

Zhang et al., Spatial Aggregation and Uncertain Region Inpainting, MICCAI 2021, section 2.2, Eq. (4):
``x' = W^T (X * M) / sum(M) + b``, the sum over the window.
Readings (docs/papers/sam_urim.md): the bias is added after the division, as printed (authors' code: before it,
``bias="inside"``); the padding counts as 0 in the sum; where the whole window is unsure (sum 0), the quotient is 0, as
in partial convolutions.
Under autocast the convolution runs in half precision on ``X * M`` scaled to at most 1 per case, so that neither large
activations overflow nor small confidences vanish; everything else is float32.
"""

# Shape letters:  B batch, C input channels, D output channels, *S spatial sizes

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.precision import widened
from nnunet_livseg.blocks.tensor_helpers import same_padding

LEAST = 1e-6  # sum of confidences in a window; below, the window says nothing
BIASES = ("outside", "inside")


class LocalConfidenceConv(nn.Module):
    """Convolution of masked features, divided by the mask's sum in each window.

    Args:
        channels: Channels C of the input.
        out_channels: Channels D of the output.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        kernel_size: Odd size of the window, one entry per axis.
        bias: Whether the bias is ``"outside"`` of the division (Eq. 4) or ``"inside"`` (authors' code).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        conv_op: type[nn.Module],
        kernel_size: Sequence[int],
        bias: str = "outside",
    ) -> None:
        super().__init__()
        self.kernel_size = tuple(kernel_size)
        self.bias_position = bias
        self.conv = conv_op(channels, out_channels, self.kernel_size, padding=same_padding(kernel_size), bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels, *[1] * len(self.kernel_size)))
        self._average = F.avg_pool3d if conv_op is nn.Conv3d else F.avg_pool2d

    def window_sum(self, confidence: Tensor) -> Tensor:
        """Sum of ``confidence (B, 1, *S)`` in every window; ``(B, 1, *S)``."""
        mean = self._average(confidence, self.kernel_size, 1, same_padding(self.kernel_size))  # padding counts as 0
        return mean * math.prod(self.kernel_size)

    def forward(self, x: Tensor, confidence: Tensor) -> Tensor:
        """Convolve ``x (B, C, *S)`` masked by ``confidence (B, 1, *S)`` in [0, 1]; returns ``(B, D, *S)``, float32."""
        confidence = widened(confidence)
        total = self.window_sum(confidence)
        masked = widened(x) * confidence
        axes = tuple(range(1, masked.ndim))
        scale = masked.detach().abs().amax(axes, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        summed = widened(self.conv(masked / scale)) * scale
        if self.bias_position == "inside":
            summed = summed + self.bias
        mean = torch.where(total > LEAST, summed / total.clamp(min=LEAST), torch.zeros_like(summed))
        return mean + self.bias if self.bias_position == "outside" else mean
