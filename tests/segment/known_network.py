"""A network whose answer everybody can work out: thresholds on Hounsfield units. Plans name it like any other."""

from torch import nn


class Thresholds(nn.Module):
    """Logits that are straight lines in the first channel's HU, one per output: ``slope * HU + offset``."""

    def __init__(self, input_channels, num_classes, *, conv_op, deep_supervision=False, **_):
        super().__init__()
        self.lines = conv_op(input_channels, num_classes, kernel_size=1)

    def forward(self, x):
        return self.lines(x)
