"""Geometries as plans give them, small enough for a test."""

from typing import Any

import pytest
from torch import nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@pytest.fixture
def geometry():
    """Makes the keyword arguments of a network: ``geometry(dim, features=..., strides=..., kernels=...)``."""

    def make(dim: int, *, features=(4, 6, 8, 10), strides=None, kernels=None, **changes: Any) -> dict[str, Any]:
        stages = len(features)
        return {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": CONV[dim],
            "kernel_sizes": kernels or [[3] * dim] * stages,
            "strides": strides or [[1] * dim] + [[2] * dim] * (stages - 1),
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": NORM[dim],
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": nn.LeakyReLU,
            "nonlin_kwargs": {"inplace": True},
        } | changes

    return make
