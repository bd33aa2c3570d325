"""RRCU: two recurrent convolutions with the identity beside them, the unit of R2U-Net.

Alom et al., Recurrent residual U-Net for medical image segmentation, J. Med. Imaging 2019 (arXiv:1802.06955),
Eqs. (1)-(3): a recurrent convolution adds a kernel on the layer's input and one on its own last output.
Widely used re-implementations share one kernel for both; the printed equation has two.
Different from the paper: every step is normalized as the plans say (the paper prints no normalization).
"""

# Shape letters:  B batch, C input channels, D output channels, *S spatial sizes

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from nnunet_livseg.blocks.tensor_helpers import same_padding


class RecurrentConvolution(nn.Module):
    """``y(0) = f(W x)`` and ``y(t) = f(W x + R y(t - 1))``, Eqs. (1) and (2).

    Args:
        channels: Channels C of input and output.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        kernel_size: The plans' kernel of this level.
        norm: Makes the normalization of so many channels.
        activation: Makes f.
        steps: Number of recurrent steps t.
    """

    def __init__(
        self,
        channels: int,
        *,
        conv_op: type[nn.Module],
        kernel_size: Sequence[int],
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module],
        steps: int,
    ) -> None:
        super().__init__()
        kernel = tuple(kernel_size)
        self.forward_conv = conv_op(channels, channels, kernel, padding=same_padding(kernel))
        self.recurrent_conv = conv_op(channels, channels, kernel, padding=same_padding(kernel), bias=False)
        self.norm, self.activate, self.steps = norm(channels), activation(), steps

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, C, *S)`` to ``y(steps) (B, C, *S)``."""
        fed = self.forward_conv(x)
        y = self.activate(self.norm(fed))
        for _ in range(self.steps):
            y = self.activate(self.norm(fed + self.recurrent_conv(y)))
        return y


class RecurrentResidualUnit(nn.Module):
    """A 1x1 convolution to D channels, and two recurrent convolutions added to its result, Eq. (3).

    Args:
        channels, out_channels: Channels C and D.
        options: Of both ``RecurrentConvolution``s.
    """

    def __init__(self, channels: int, out_channels: int, *, conv_op: type[nn.Module], **options) -> None:
        super().__init__()
        self.project = conv_op(channels, out_channels, 1)
        self.recurrent = nn.Sequential(
            *(RecurrentConvolution(out_channels, conv_op=conv_op, **options) for _ in range(2))
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)`` to ``(B, D, *S)``."""
        x = self.project(x)
        return x + self.recurrent(x)
