"""MedNeXt: MONAI's network, its published counts, plans that it follows, and what is said without MONAI."""

import sys

import pytest
import torch

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.mednext import SIZES, MedNeXt, halvings
from nnunet_livseg.plans import Overrides, make_plans
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.trainers import TRAINERS
from nnunet_livseg.variants import find_variant, is_installed

ROW = find_variant("mednext")
# millions of parameters with the kernels 3 and 5: the authors' README
PRINTED = {"s": (5.6, 5.9), "b": (10.5, 11.0), "m": (17.6, 18.3), "l": (61.8, 63.0)}


def geometry(dim, *, stages=5, width=4):
    kwargs = stock_configuration(dim, features=(width,) * stages)["architecture"]["arch_kwargs"]
    conv = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dim]
    return kwargs | {"conv_op": conv, "norm_op": None, "nonlin": torch.nn.ReLU}


@pytest.mark.oracle
@pytest.mark.parametrize("size", PRINTED)
@pytest.mark.parametrize("kernel", [3, 5])
def test_presets_have_the_printed_numbers_of_parameters(size, kernel):
    pytest.importorskip("monai.networks.nets.mednext")
    stock = stock_configuration(3) | {"median_image_size_in_voxels": [500.0] * 3, "data_identifier": "x"}
    content = {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": stock}}
    plans = make_plans(content, ROW, preset=f"{size}{kernel}", name="P", overrides=Overrides())
    with torch.device("meta"):
        network = build(plans["configurations"]["3d_fullres"], classes=2, initialize=False)
    count = sum(p.numel() for p in network.parameters()) / 1e6
    assert count == pytest.approx(PRINTED[size][kernel == 5], abs=0.09)  # their number of classes is not printed


@pytest.mark.oracle
@pytest.mark.parametrize("dim", [2, 3])
def test_it_is_monais_network(dim):
    mednext = pytest.importorskip("monai.networks.nets.mednext")
    torch.manual_seed(0)
    theirs = mednext.create_mednext("B", dim, 2, 3, kernel_size=3, deep_supervision=True).train()
    ours = MedNeXt(2, 3, size="B", deep_supervision=True, **geometry(dim, width=32)).train()
    state = iter(theirs.state_dict().items())
    names = {"stem": "encoder.stem", "enc_stages": "encoder.stages", "down_blocks": "encoder.downs"}
    names |= {"bottleneck": "encoder.stages.4", "up_blocks": "decoder.ups", "dec_stages": "decoder.stages"}
    names |= {"out_0": "decoder.seg_layers.0"}
    renamed = {}
    for name, value in state:
        first, _, rest = name.partition(".")
        if first == "out_blocks":
            number, _, rest = rest.partition(".")
            renamed[f"decoder.seg_layers.{4 - int(number)}.{rest}"] = value
        else:
            renamed[f"{names[first]}.{rest}"] = value
    ours.load_state_dict(renamed)
    x = torch.randn(1, 2, *(32, 48, 16)[:dim])
    with torch.no_grad():
        for one, other in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(one, other)


def test_its_depth_is_what_every_axis_allows():
    thick = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert halvings(thick) == 3
    assert halvings([[1, 1]] + [[2, 2]] * 7) == 4
    with pytest.raises(UserError, match="MedNeXt halves every axis, but these plans keep one axis"):
        halvings([[1, 1, 1], [1, 2, 2]])


def test_without_monai_it_says_what_to_install(monkeypatch):
    """And importing our module does not need it."""
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(UserError, match=r"MONAI 1\.5 or later is not installed.*\n.*nnunet-livseg\[monai\]"):
        MedNeXt(1, 2, **geometry(2))


def test_unknown_sizes_are_refused():
    with pytest.raises(UserError, match="option size is 'XL', but must be one of S, B, M, L"):
        MedNeXt(1, 2, size="XL", **geometry(2))
    assert set(SIZES) == {size.upper() for size in PRINTED}


def test_a_row_says_what_it_needs(monkeypatch):
    monkeypatch.setattr("nnunet_livseg.variants.find_spec", lambda name: None)
    assert ROW.extra == "monai" and not is_installed(ROW)
    assert is_installed(find_variant("sfan"))
    with pytest.raises(UserError, match=r"MedNeXtTrainer needs the library monai.*\n.*nnunet-livseg\[monai\]"):
        TRAINERS["MedNeXtTrainer"]({}, "2d", 0, {})  # before anything is read or written


def test_residual_encoder_presets_are_nnunets_own_network_under_our_recipes():
    """``dpcnet-pfe`` on plans of nnUNetResEncUNetMPlans: the same parameters, the same outputs."""
    configuration = stock_configuration(2, features=(4, 6, 8))
    architecture = configuration["architecture"]
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    kwargs = architecture["arch_kwargs"]
    kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
    kwargs["n_conv_per_stage_decoder"] = [1, 1]
    ours, stock = build(configuration, find_variant("dpcnet-pfe")), build(configuration)
    ours.load_state_dict(stock.state_dict())
    x = torch.randn(1, 1, 16, 24)
    for one, other in zip(ours(x), stock(x), strict=True):
        torch.testing.assert_close(one, other)
