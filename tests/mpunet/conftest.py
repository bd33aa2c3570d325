"""Geometries of plans for MPU-Net's tests, and how much memory a call takes."""

import os
import pydoc
from pathlib import Path

import pytest

from nnunet_livseg.reference_networks import stock_configuration

PAPER_WIDTHS = (32, 64, 128, 256, 512)
SIZE = (16, 24, 32)  # z y x, voxels


def geometry(dim, widths=(4, 8, 16, 32, 40), **changes):
    """Keyword arguments that plans with these widths give to a network."""
    kwargs = stock_configuration(dim, features=tuple(widths))["architecture"]["arch_kwargs"]
    kwargs |= {key: pydoc.locate(kwargs[key]) for key in ("conv_op", "norm_op", "nonlin")}
    return kwargs | changes


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def dim(request):
    """Number of spatial dimensions."""
    return request.param


@pytest.fixture
def peak_mib():
    """Function that calls another one and returns by how much it raised the process's memory, at most, in MiB."""

    def measure(call):
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = _status("VmRSS")
        call()
        return (_status("VmHWM") - before) / 1024

    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("only Linux keeps a resettable high-water mark")
    return measure


def _status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key)))
