"""Networks as users write them: with the arguments of MONAI's and of segmentation_models_pytorch's."""

import torch
from torch import nn


class MonaiLike(nn.Module):
    """Two levels; a list for training where it is asked for."""

    def __init__(self, spatial_dims, in_channels, out_channels, width=4, deep_supervision=False):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        self.fine, self.coarse = conv(in_channels, width, 3, padding=1), conv(width, width, 3, stride=2, padding=1)
        self.head, self.coarse_head = conv(width, out_channels, 1), conv(width, out_channels, 1)
        self.deep_supervision = deep_supervision

    def forward(self, x):
        fine = self.fine(x).relu()
        coarse = self.coarse(fine).relu()
        final = self.head(fine + nn.functional.interpolate(coarse, fine.shape[2:]))
        return [final, self.coarse_head(coarse)] if self.deep_supervision and self.training else final


class SmpLike(nn.Module):
    """2D, with ``classes``, and an argument that only this network has."""

    def __init__(self, depth, in_channels=3, classes=1):
        super().__init__()
        layers = [nn.Conv2d(in_channels, 4, 3, padding=1), *(nn.Conv2d(4, 4, 3, padding=1) for _ in range(depth))]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4, classes, 1))

    def forward(self, x):
        return self.layers(x)


class Sized(nn.Module):
    """Knows the size of its images, and takes no other."""

    def __init__(self, img_size, in_chans, num_classes):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, in_chans, *img_size))
        self.head = nn.Conv3d(in_chans, num_classes, 1)

    def forward(self, x):
        return self.head(x + self.place)


class Stacked(MonaiLike):
    """All outputs in one tensor, as MONAI's DynUNet has them."""

    def forward(self, x):
        final = super().forward(x)
        final = final[0] if isinstance(final, list) else final
        return torch.stack([final, final], dim=1) if self.training else final


class Named(MonaiLike):
    """A dictionary, as torchvision's networks return it."""

    def forward(self, x):
        final = super().forward(x)
        return {"out": final[0] if isinstance(final, list) else final}


class Halved(MonaiLike):
    """Its only output is coarse."""

    def forward(self, x):
        return self.coarse_head(self.coarse(self.fine(x)))


class Text(MonaiLike):
    """No logits at all."""

    def forward(self, x):
        return "liver"


class CannotRunWithoutValues(MonaiLike):
    """Looks at values, which the device ``meta`` does not have."""

    def forward(self, x):
        return super().forward(x) if float(x.sum()) < 1e9 else x


# --- with a fault each, which livseg check-net names -----------------------------------------------------------------


class Plain(nn.Module):
    """Two layers."""

    def __init__(self, spatial_dims, in_channels, out_channels):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        self.fine, self.head = conv(in_channels, 4, 3, padding=1), conv(4, out_channels, 1)

    def forward(self, x):
        return self.head(self.fine(x).relu())


class Multiples(Plain):
    """Takes multiples of 32 alone."""

    def forward(self, x):
        if any(size % 32 for size in x.shape[2:]):
            raise ValueError("sizes must be multiples of 32")
        return super().forward(x)


class Unused(Plain):
    """A layer that forward has forgotten."""

    def __init__(self, spatial_dims, in_channels, out_channels):
        super().__init__(spatial_dims, in_channels, out_channels)
        self.forgotten = nn.Linear(3, 3)


class Overflows(Plain):
    """Values that float32 has and float16 has not."""

    def forward(self, x):
        large = self.fine(x) * 1e5
        return self.head(large / 1e5)


class Odd(Plain):
    """An output at two thirds of the size."""

    def forward(self, x):
        final = super().forward(x)
        return [final, nn.functional.interpolate(final, [2 * size // 3 for size in final.shape[2:]])]


class Keeps(Plain):
    """State in a plain attribute: no checkpoint has it."""

    mean = 0.0

    def forward(self, x):
        if self.training:
            self.mean = 3 + x.detach().mean()
        return super().forward(x - self.mean)


class Branches(Plain):
    """What is computed depends on values."""

    def forward(self, x):
        return super().forward(x if x.mean() > 0 else x + 1)


class Chance(Plain):
    """Dropout in evaluation, too."""

    def forward(self, x):
        return nn.functional.dropout(super().forward(x), training=True)


class Probabilities(Plain):
    """Softmax at the end."""

    def forward(self, x):
        return super().forward(x).softmax(1)


class Late(Plain):
    """A layer that is made when the first image comes."""

    def forward(self, x):
        if not hasattr(self, "late"):
            self.late = type(self.head)(x.shape[1], x.shape[1], 1)
        return super().forward(self.late(x))


class Infinite(Plain):
    """Not finite in float32 either."""

    def forward(self, x):
        return super().forward(x).abs().log().log()
