"""Every row of the table, small, in 2D and 3D: a new row is tested without touching a test."""

import pytest
import torch

from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.variants import VARIANTS

SIZE = (16, 32, 48)  # z y x, voxels
SHALLOW, SHALLOW_SIZE = 4, (16, 24, 32)  # as few stages and voxels as every row takes, and no map of a single voxel
ROWS = [(variant, dim) for variant in VARIANTS for dim in variant.dims]


@pytest.fixture(autouse=True)
def _narrow(narrow_networks):
    """Every network here is small."""


@pytest.fixture(params=ROWS, ids=lambda row: f"{row[0].name}-{row[1]}d")
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
