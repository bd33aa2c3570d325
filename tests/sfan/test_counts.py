"""Parameters, digit for digit, in the paper's preset (one channel, two classes)."""

import pytest
import torch

from nnunet_livseg.plans import Overrides, make_plans
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.variants import find_variant


def paper_plans(name):
    """Plans of the preset ``paper`` for a stock 2d configuration of 512 x 512."""
    stock = {
        "plans_name": "nnUNetPlans",
        "configurations": {"2d": stock_configuration(2), "3d_fullres": stock_configuration(3)},
        "foreground_intensity_properties_per_channel": {"0": {"mean": 99.0, "std": 40.0}},
    }
    return make_plans(stock, find_variant(name), preset="paper", name="XPlans", overrides=Overrides())


def network(name, **options):
    configuration = paper_plans(name)["configurations"]["2d"]
    configuration["architecture"]["arch_kwargs"] |= options
    with torch.device("meta"):
        return build(configuration, find_variant(name), classes=2, initialize=False)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_whole_and_encoder():
    sfan = network("sfan")
    assert count(sfan) == 21_577_858
    assert count(sfan.encoder) == 18_842_048


def test_parts():
    sfan = network("sfan")
    assert [count(sat) for sat in sfan.sat] == [12_416, 49_408, 197_120, 787_456]
    gca = sfan.decoder.gca
    assert (count(gca.align), count(gca.attend)) == (127_296, 1_377_600)
    assert count(gca.fuse) + count(sfan.decoder.seg_layers) == 184_514


def test_comparator():
    unet = network("sfan-unet")
    assert (count(unet), count(unet.encoder)) == (31_030_658, 18_842_048)


# C': SAT as the level or as the deeper one, each with GCA as the deepest level or as its output
TOTALS = {
    32: (21_211_874, 20_188_034, 22_257_314, 21_233_474),
    64: (21_577_858, 20_630_978, 22_623_298, 21_676_418),
    128: (22_586_306, 21_946_946, 23_631_746, 22_992_386),
    256: (25_709_122, 26_299_202, 26_754_562, 27_344_642),
}


@pytest.mark.parametrize("aligned", TOTALS)
def test_other_readings(aligned):
    totals = [
        count(network("sfan", aligned_channels=aligned, sat_hidden=sat, gca_hidden=gca))
        for sat in ("level", "deeper")
        for gca in ("deepest", "output")
    ]
    assert tuple(totals) == TOTALS[aligned]


def test_ablations_lack_what_they_leave_out():
    assert count(network("sfan-without-sat")) == 21_577_858 - 1_046_400
    assert count(network("sfan-without-gca")) == 21_577_858 - 1_377_600


def test_paper_layers():
    """Max pooling, ReLU, no normalization, window -75..175 HU, one configuration."""
    plans = paper_plans("sfan")
    assert list(plans["configurations"]) == ["2d"]
    properties = plans["foreground_intensity_properties_per_channel"]["0"]
    assert (properties["percentile_00_5"], properties["percentile_99_5"]) == (-75, 175)
    kinds = {type(module).__name__ for module in network("sfan").modules()}
    assert {"MaxPool2d", "ReLU"} <= kinds
    assert not {"InstanceNorm2d", "LeakyReLU"} & kinds


def test_the_paper_validates_at_three_scales_and_the_default_at_one():
    recipe = paper_plans("sfan")["configurations"]["2d"]["livseg"]["recipe"]
    assert tuple(recipe["validation_scales"]) == (0.5, 1.0, 1.5)
    assert find_variant("sfan").recipe.validation_scales == [1.0]
