"""A CT as people hand it over: channels that must lie on one grid, options that must mean something."""

import numpy as np
import pytest
from io_samples import as_image, rotated

from nnunet_livseg.errors import UserError
from nnunet_livseg.inference.sources import open_source

FLAT = np.full((4, 512, 512), -1000, np.int16)


@pytest.mark.parametrize(
    "other",
    [{"spacing_mm": (2, 0.709, 0.709)}, {"direction": rotated((0, 0, 0.5))}, {"origin_mm": (-17.08, -23, -110)}],
    ids=["spacing", "direction", "origin"],
)
def test_channels_whose_corners_lie_apart_are_refused(other):
    """0.009 mm per pixel and half a degree look like rounding, but add up to 6 and 3 mm at the far corner."""
    first = as_image(FLAT, spacing_mm=(2, 0.7, 0.7))
    with pytest.raises(
        UserError, match=r"channel 1 lies on another grid than channel 0 .*corners up to [\d.]+ mm apart"
    ):
        open_source((first, as_image(FLAT, **{"spacing_mm": (2, 0.7, 0.7)} | other)))


def test_channels_that_differ_by_rounding_are_one_ct():
    """A header with four decimals against one with six."""
    first = as_image(FLAT, spacing_mm=(2, 0.703125, 0.703125), direction=rotated())
    other = as_image(
        FLAT, spacing_mm=(2, 0.7031, 0.7031), direction=rotated((10, -20, 30.001)), origin_mm=(-17.01, -23, -110)
    )
    assert len(open_source((first, other)).images) == 2
