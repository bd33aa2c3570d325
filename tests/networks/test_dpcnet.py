"""DPC-Net's counts and its relation to nnU-Net's own network."""

import pytest
import torch

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.dpcnet import DPCNet
from nnunet_livseg.networks.footprint import conv_feature_map_size
from nnunet_livseg.plans import Overrides, make_plans
from nnunet_livseg.reference_networks import build, count_parameters, stock_configuration
from nnunet_livseg.variants import find_variant

from .conftest import small_configuration


def table4(name):
    """A row's network with the preset of the count tests, built through plans as a user builds it."""
    stock = {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": stock_configuration(3)}}
    stock["configurations"]["3d_fullres"] |= {"median_image_size_in_voxels": [100, 200, 200], "data_identifier": "x"}
    plans = make_plans(stock, find_variant(name), preset="table4", name="T", overrides=Overrides())
    with torch.device("meta"):
        return build(plans["configurations"]["3d_fullres"], initialize=False)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


BASELINE = 22_581_283


def test_table4_baseline_has_the_printed_number_of_parameters():
    assert count(table4("dpcnet-unet")) == BASELINE


def test_table4_modules_have_the_counts_of_our_reading():
    network = table4("dpcnet-plain")
    assert count(network.spacor.modules_per_level) == 427_844
    assert count(network.semcor.modules_per_level) == 87_640


@pytest.mark.parametrize(("name", "printed"), [("dpcnet-ag", 1.02e6), ("dpcnet-daf", 0.68e6)])
def test_table4_comparators_add_what_is_printed(name, printed):
    assert count(table4(name)) - BASELINE == pytest.approx(printed, abs=0.01e6)


def test_daf_is_normalized_and_trained_as_its_authors_do():
    """DAF3D's code: GroupNorm(32, ...) everywhere; its Train.py weighs the Dice of the refined outputs otherwise."""
    network = table4("dpcnet-daf")
    norms = [module for module in network.daf.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert len(norms) == 33 and {norm.num_groups for norm in norms} == {32}
    shares = {
        o.name: (o.weight, o.weight if o.overlap_weight is None else o.overlap_weight)
        for o in network.training_outputs()
    }
    assert shares == {
        "final": (1.0, 1.0),
        "signal0": (0.4, 0.4),
        "signal1": (0.5, 0.5),
        "signal2": (0.7, 0.7),
        "signal3": (0.8, 0.8),
        "refined0": (0.4, 0.4),
        "refined1": (0.5, 0.7),
        "refined2": (0.7, 0.8),
        "refined3": (0.8, 1.0),
    }


def test_without_modules_it_is_nnunets_own_network(dim=3):
    """Same parameters by name and shape, same outputs: a stock training fills all of it."""
    configuration = small_configuration(dim)
    ours, stock = build(configuration, find_variant("dpcnet-pfe")), build(configuration)
    ours.load_state_dict(stock.state_dict())
    x = torch.randn(1, 1, 32, 48, 64)
    with torch.no_grad():
        for a, b in zip(ours(x), stock(x), strict=True):
            torch.testing.assert_close(a, b)
    assert count_parameters(find_variant("dpcnet-pfe")) == count_parameters(None)


def test_only_modules_and_heads_are_new():
    configuration = small_configuration(3)
    ours, stock = build(configuration, find_variant("dpcnet")), build(configuration)
    missing = set(stock.state_dict()) - set(ours.state_dict())
    new = set(ours.state_dict()) - set(stock.state_dict())
    assert not missing
    assert {name.split(".")[0] for name in new} == {"spacor", "semcor"}


def test_residual_encoder_plans_work():
    configuration = small_configuration(3)
    architecture = configuration["architecture"]
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    architecture["arch_kwargs"]["n_blocks_per_stage"] = architecture["arch_kwargs"].pop("n_conv_per_stage")
    ours, stock = build(configuration, find_variant("dpcnet")), build(configuration)
    assert not set(stock.state_dict()) - set(ours.state_dict())
    assert ours(torch.randn(1, 1, 32, 32, 32))[0].shape == (1, 3, 32, 32, 32)


def test_estimate_of_nnunets_own_network_is_nnunets_own():
    stock = build(small_configuration(3))
    assert conv_feature_map_size(stock, (32, 48, 64), 1) == stock.compute_conv_feature_map_size((32, 48, 64))


def test_estimate_is_near_what_a_training_step_keeps():
    """1.06 times the stock network; 1.44 with SpaCor's hidden maps, which never exist as a whole."""
    configuration = stock_configuration(3)
    with torch.device("meta"):
        ours, stock = (build(configuration, row, initialize=False) for row in (find_variant("dpcnet"), None))
    estimates = [network.compute_conv_feature_map_size((128, 128, 128)) for network in (ours, stock)]
    assert 1 < estimates[0] / estimates[1] < 1.1


def test_too_shallow_plans_are_refused():
    with pytest.raises(UserError, match="needs at least 3 resolution stages, but these plans have 2"):
        build(small_configuration(3, stages=2), find_variant("dpcnet"))


@pytest.mark.parametrize("option", ["order", "final", "supervision"])
def test_unknown_options_are_refused(option):
    configuration = small_configuration(2)
    configuration["architecture"]["arch_kwargs"][option] = "nonsense"
    configuration["architecture"]["network_class_name"] = find_variant("dpcnet").network
    with pytest.raises(UserError, match=f"option {option} is 'nonsense', but must be one of"):
        build(configuration)


def saved_bytes(network, x):
    """Bytes that one training step keeps for its backward pass, without the parameters."""
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(x)
    return sum(kept.values())


def test_keeps_at_most_a_fifth_more_than_the_stock_network():
    configuration = stock_configuration(3)
    with torch.device("meta"):  # sizes without numbers
        x = torch.randn(1, 1, 64, 64, 64)
        ours, stock = (build(configuration, row, initialize=False) for row in (find_variant("dpcnet"), None))
    assert 0 < saved_bytes(ours, x) <= 1.2 * saved_bytes(stock, x)


def test_is_a_module_of_its_own_name():
    assert DPCNet.__module__ == "nnunet_livseg.networks.dpcnet"  # plans name it: moving it breaks them
