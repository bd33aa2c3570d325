"""Networks at a reference geometry, to count and compare them without a dataset.

The geometry is the one that nnU-Net plans for LiTS (Task03 of the Medical Segmentation Decathlon): 3d_fullres with a
patch of 128^3 and 2d with 512^2, three classes, one channel (as many as a multi-phase network has phases).
"""

from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunet_livseg.plans import STOCK_UNETS, training_setup
from nnunet_livseg.variants import Variant

PATCH = {2: (512, 512), 3: (128, 128, 128)}
_WIDTHS = {2: (32, 64, 128, 256, 512, 512, 512, 512), 3: (32, 64, 128, 256, 320, 320)}


def stock_configuration(
    dim: int = 3, *, patch: tuple[int, ...] | None = None, features: tuple[int, ...] | None = None
) -> dict[str, Any]:
    """A configuration as nnU-Net plans it (plain U-Net), as far as building networks needs it."""
    features = tuple(features or _WIDTHS[dim])
    stages = len(features)
    return {
        "patch_size": list(patch or PATCH[dim]),
        "batch_size": 2,
        "spacing": [1.0] * dim,
        "architecture": {
            "network_class_name": STOCK_UNETS[0],
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(features),
                "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                "kernel_sizes": [[3] * dim] * stages,
                "strides": [[1] * dim] + [[2] * dim] * (stages - 1),
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }


def channels_of(variant: Variant | None) -> int:
    """Channels at the reference geometry: one, or one per phase that the variant needs."""
    return 1 if variant is None else max(1, variant.phases)


def build(
    configuration: dict[str, Any],
    variant: Variant | None = None,
    *,
    channels: int = 1,
    classes: int = 3,
    deep_supervision: bool = True,
    initialize: bool = True,
) -> nn.Module:
    """The variant's network for a configuration, or the network that the configuration itself names."""
    architecture = (
        configuration["architecture"] if variant is None else training_setup(variant, configuration).architecture
    )
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        channels,
        classes,
        allow_init=initialize,
        deep_supervision=deep_supervision,
    )


def build_on_meta(
    configuration: dict[str, Any], variant: Variant | None = None, *, channels: int = 1, classes: int = 3
) -> nn.Module:
    """The network on the device meta, where it has shapes and no values.

    Some networks of users need values while they are built: those are built on the CPU and moved.
    """
    try:
        with torch.device("meta"):
            return build(configuration, variant, channels=channels, classes=classes, initialize=False)
    except Exception:  # a stranger's network may raise anything; what is really wrong is raised again
        return build(configuration, variant, channels=channels, classes=classes, initialize=False).to("meta")


def count_parameters(variant: Variant | None, dim: int | None = None) -> int:
    """Trained parameters at the reference geometry (3D where there is one); ``None``: of nnU-Net's own network."""
    dim = dim or (3 if variant is None else max(variant.dims))
    network = build_on_meta(stock_configuration(dim), variant, channels=channels_of(variant))
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
