"""Small SAM + URIM networks for the tests of this folder."""

from torch import nn

from nnunet_livseg.networks.sam_urim import SAMURIM

WIDTHS = (4, 6, 8, 12, 12)
CODE_READINGS = {
    "pre_softmax_sigmoid": True,
    "aspp": True,
    "align_corners": True,
    "dropout": 1.0,
    "urim_concat_input": False,
    "lc_bias": "inside",
}


def geometry(dim, widths=WIDTHS, **changes):
    """What nnU-Net's plans give to a U-Net of these widths."""
    stages = len(widths)
    return {
        "n_stages": stages,
        "features_per_stage": list(widths),
        "conv_op": {2: nn.Conv2d, 3: nn.Conv3d}[dim],
        "kernel_sizes": [[3] * dim] * stages,
        "strides": [[1] * dim] + [[2] * dim] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dim],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    } | changes


def build(dim=2, channels=2, classes=3, *, widths=WIDTHS, changes=None, **options):
    """A network with ``options`` at a small geometry."""
    return SAMURIM(channels, classes, **options, **geometry(dim, widths, **(changes or {})))


def count(module):
    """Trained parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
