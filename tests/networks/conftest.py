"""Every row of the table, small, in 2D and 3D: a new row is tested without touching a test."""

import inspect
from dataclasses import replace
from pydoc import locate

import pytest
import torch

from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.variants import VARIANTS, is_installed

# of networks whose size is not the plans': what their options make small
TINY = {"width": 8, "layers": [1, 1, 1, 1]}


def tiny(variant):
    """The row with a network that is small whatever the plans say."""
    known = inspect.signature(locate(variant.network)).parameters
    return replace(variant, options={**variant.options, **{k: v for k, v in TINY.items() if k in known}})


SIZE = (16, 32, 48)  # z y x, voxels
SHALLOW, SHALLOW_SIZE = 4, (16, 24, 32)  # as few stages and voxels as every row takes, and no map of a single voxel
ROWS = [(tiny(variant), dim) for variant in VARIANTS if is_installed(variant) for dim in variant.dims]


def marked(rows):
    """Parameters of a test; rows that need another library run with the tests against other people's programs."""
    return [
        pytest.param(row, id=f"{row[0].name}-{row[1]}d", marks=[pytest.mark.oracle] if row[0].extra else [])
        for row in rows
    ]


@pytest.fixture(autouse=True)
def _narrow(narrow_networks):
    """Every network here is small."""


@pytest.fixture(params=marked(ROWS))
def row(request):
    """A variant and a number of dimensions that it exists in."""
    return request.param


@pytest.fixture
def variant(row):
    return row[0]


@pytest.fixture
def dim(row):
    return row[1]


@pytest.fixture
def configuration(dim):
    return small_configuration(dim)


def small_configuration(dim, stages=5, size=SIZE, *, convolutions=2):
    widths = (4, 6, 8, 10, 12, 12, 12, 12)[:stages]
    configuration = stock_configuration(dim, patch=size[:dim], features=widths)
    kwargs = configuration["architecture"]["arch_kwargs"]
    for name in ("n_conv_per_stage", "n_conv_per_stage_decoder"):
        kwargs[name] = [convolutions] * len(kwargs[name])
    return configuration


@pytest.fixture
def network(configuration, variant, scan):
    torch.manual_seed(0)
    return build(configuration, variant, channels=scan.shape[1])


@pytest.fixture
def scan(dim, variant):
    """Unequal sizes: a swapped axis cannot pass; batch 2: a reshape cannot mix cases."""
    return random_scan(SIZE[:dim])


@pytest.fixture
def shallow_network(dim, variant):
    """For what is slow (float64, tracing) and the same in every stage."""
    torch.manual_seed(0)
    return build(small_configuration(dim, SHALLOW, SHALLOW_SIZE), variant, channels=2)


@pytest.fixture
def shallow_scan(dim, variant):
    return random_scan(SHALLOW_SIZE[:dim])


def random_scan(size):
    return torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))
