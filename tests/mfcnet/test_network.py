"""MFCNet as a whole: counts, wiring, plans of every depth, what nnU-Net asks of a network."""

import json

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch.nn import functional as F

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.mfcnet import MFCNet
from nnunet_livseg.reference_networks import stock_configuration

BACKBONE = {"spatial_context": False, "channel_context": False}
NARROW = {"width": 16}
ANISOTROPIC = {
    "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
    "kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
}


def _build(dim, channels=1, classes=3, *, stages=6, initialize=True, **changes):
    architecture = stock_configuration(dim, features=(8,) * stages)["architecture"]
    return get_network_from_plans(
        "nnunet_livseg.networks.mfcnet.MFCNet",
        {**architecture["arch_kwargs"], **changes},
        architecture["_kw_requires_import"],
        channels,
        classes,
        allow_init=initialize,
        deep_supervision=False,
    )


def _on_meta(*arguments, **changes):
    with torch.device("meta"):
        return _build(*arguments, initialize=False, **changes)


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _scan(*sizes, channels=1, batch=2):
    return torch.randn(batch, channels, *sizes, generator=torch.Generator().manual_seed(0))


def _leave_zero_gains(network):
    """Gradients vanish there, and the context has no part in the result."""
    for block in network.context:
        for parameter in block.parameters():
            parameter.data.add_(0.1)


# --- counts and wiring ------------------------------------------------------------------------------------------------


def test_parameters_of_the_paper():
    """Three channels, one class: the backbone of CE-Net, and 0.37 % more for the context blocks, as printed."""
    network, backbone = _on_meta(2, 3, 1), _on_meta(2, 3, 1, **BACKBONE)
    assert _count(backbone) == 29_003_093
    assert [_count(block) for block in network.context] == [5_202, 20_642, 82_242]
    assert _count(network) - _count(backbone) == 108_086
    assert f"{100 * 108_086 / _count(backbone):.2f}" == "0.37"
    assert [_count(block) for block in backbone.decoder.blocks] == [250_899, 62_208, 15_744, 4_640]
    assert [_count(backbone.encoder), _count(backbone.dac), _count(backbone.rmp)] == [21_284_672, 7_342_080, 513]
    assert _count(backbone.decoder.head) + _count(backbone.decoder.seg_layers) == 32_800 + 9_248 + 289


def test_single_extractors_and_single_scales_add_their_part():
    backbone = _count(_on_meta(2, **BACKBONE))
    assert _count(_on_meta(2, spatial_context=False)) - backbone == 3
    assert _count(_on_meta(2, channel_context=False)) - backbone == 108_086 - 3
    assert _count(_on_meta(2, context_skips=[3])) - backbone == 82_242


def _by_the_papers_table(network, x):
    """Forward pass written from the table of the architecture; norms in evaluation mode."""
    state = network.state_dict()

    def norm(name, t):
        running = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(t, *running, state[f"{name}.weight"], state[f"{name}.bias"])

    e = network.encoder
    t = F.max_pool2d(norm("encoder.bn1", F.conv2d(x, state["encoder.conv1.weight"], None, 2, 3)).relu(), 3, 2, 1)
    levels = []
    for layer in (e.layer1, e.layer2, e.layer3, e.layer4):
        t = layer(t)
        levels.append(t)
    t = network.rmp(network.dac(levels[3]))
    for i, level in enumerate((2, 1, 0, None)):
        block, arguments = f"decoder.blocks.{i}", {"stride": 2, "padding": 1, "output_padding": 1}
        weights = [(state[f"{block}.{j}.weight"], state[f"{block}.{j}.bias"]) for j in (0, 3, 6)]
        t = norm(f"{block}.1", F.conv2d(t, *weights[0])).relu()
        t = norm(f"{block}.4", F.conv_transpose2d(t, *weights[1], **arguments)).relu()
        t = norm(f"{block}.7", F.conv2d(t, *weights[2])).relu()
        if level is not None:
            t = t + network.context[level](levels[level])
    head, last = "decoder.head", "decoder.seg_layers.0"
    t = F.conv_transpose2d(t, state[f"{head}.0.weight"], state[f"{head}.0.bias"], 2, 1).relu()
    t = F.conv2d(t, state[f"{head}.2.weight"], state[f"{head}.2.bias"], 1, 1).relu()
    return F.conv2d(t, state[f"{last}.weight"], state[f"{last}.bias"], 1, 1)


def test_forward_is_the_table_of_the_architecture():
    torch.manual_seed(0)
    network = _build(2).eval()
    _leave_zero_gains(network)
    x = _scan(64, 96)
    with torch.no_grad():
        torch.testing.assert_close(network(x), _by_the_papers_table(network, x), rtol=1e-4, atol=1e-4)


def test_context_starts_by_doubling_the_skips():
    torch.manual_seed(0)
    network = _build(2, **NARROW).eval()
    backbone = _build(2, **NARROW, **BACKBONE).eval()
    backbone.load_state_dict(network.state_dict(), strict=False)
    backbone.context = nn.ModuleList([_Double()] * 3)
    with torch.no_grad():
        torch.testing.assert_close(network(_scan(32, 64)), backbone(_scan(32, 64)))


class _Double(nn.Module):
    def forward(self, x):
        return 2 * x


# --- geometry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", range(4, 9))
def test_two_dimensional_plans_of_every_depth(stages):
    network = _on_meta(2, stages=stages)
    total = [2 ** min(stages - 1, 5)] * 2
    assert _total_stride(network) == total
    patch = (3 * 2 ** (stages - 1), 2 * 2 ** (stages - 1))  # a patch that such plans allow
    assert network(torch.empty(2, 1, *patch, device="meta")).shape == (2, 3, *patch)


@pytest.mark.parametrize(("stages", "patch"), [(3, (20, 24, 32)), (4, (40, 24, 32)), (5, (48, 32, 64)), (7, (64,) * 3)])
def test_three_dimensional_plans(stages, patch):
    network = _on_meta(3, 2, stages=stages)
    assert network(torch.empty(1, 2, *patch, device="meta")).shape == (1, 3, *patch)


def test_anisotropic_plans():
    network = _build(3, **NARROW, **ANISOTROPIC).eval()
    assert _total_stride(network) == [4, 32, 32]
    encoder = network.encoder
    assert encoder.strides == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]
    assert encoder.conv1.kernel_size == (1, 7, 7)
    assert encoder.layer1[0].conv1.kernel_size == (3, 3, 3)
    with torch.no_grad():
        assert network(_scan(8, 64, 96, batch=1)).shape == (1, 3, 8, 64, 96)


def _total_stride(network):
    return torch.tensor(network.encoder.strides).prod(0).tolist()


def test_the_largest_skip_stays_at_stride_4_in_shallow_plans():
    """Poolings are dealt out from the front, so that the number of voxels related to each other stays bounded."""
    assert _on_meta(3, stages=5).encoder.strides == [(2, 2, 2)] * 4 + [(1, 1, 1)]


@pytest.mark.parametrize("dim", [2, 3])
def test_takes_sizes_that_are_no_multiple_of_its_strides(dim):
    network = _build(dim, **NARROW).eval()
    with torch.no_grad():
        assert network(_scan(*(35, 50, 41)[:dim], batch=1)).shape[2:] == (35, 50, 41)[:dim]


# --- what nnU-Net asks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3])
def test_every_parameter_learns(dim):
    torch.manual_seed(0)
    network = _build(dim, 2, channel_energy="scaled", norm="plans", **NARROW)
    network.decoder.deep_supervision = True
    (output,) = network(_scan(*(64, 96, 64)[:dim], channels=2, batch=1))
    output.square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]  # DDP stops at unused parameters
    _leave_zero_gains(network)
    (output,) = network(_scan(*(64, 96, 64)[:dim], channels=2, batch=1))
    output.square().mean().backward()
    biases = (".0.bias", ".3.bias", ".6.bias")  # a norm follows and removes them, in CE-Net as well
    before_norm = {name for name, _ in network.named_parameters() if "blocks" in name and name.endswith(biases)}
    silent = {name for name, p in network.named_parameters() if not p.grad.any()}
    assert silent <= before_norm


@pytest.mark.parametrize("dim", [2, 3])
def test_cases_of_a_batch_do_not_mix(dim):
    torch.manual_seed(0)
    network = _build(dim, norm="plans", **NARROW)
    _leave_zero_gains(network)
    x = _scan(*(64, 96, 64)[:dim])
    with torch.no_grad():
        torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=1e-3, atol=1e-3)


def test_compiles_as_one_graph():
    torch.manual_seed(0)
    network = _build(2, **NARROW).eval()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(_scan(32, 64)), network(_scan(32, 64)), rtol=1e-4, atol=1e-4)


def test_declares_one_output_and_its_size_in_memory():
    network = _on_meta(3)
    assert [(o.name, o.stride, o.weight) for o in network.training_outputs()] == [("final", (1, 1, 1), 1.0)]
    network.decoder.deep_supervision = True
    assert [tuple(y.shape) for y in network(torch.empty(1, 1, 32, 64, 32, device="meta"))] == [(1, 3, 32, 64, 32)]
    small = network.compute_conv_feature_map_size((64, 64, 64))
    assert network.compute_conv_feature_map_size((64, 64, 128)) == pytest.approx(2 * small, rel=1e-3)


def test_refuses_what_it_cannot_do():
    with pytest.raises(UserError, match="MFCNet needs at least 3 resolution stages"):
        _build(2, stages=2)
    with pytest.raises(UserError, match="channel energy is 'cosine'"):
        _build(2, channel_energy="cosine")
    with pytest.raises(UserError, match=r"context_skips is \[0, 3\], but its skip connections are 1, 2 and 3"):
        _build(2, context_skips=[0, 3])
    with pytest.raises(UserError, match="option norm is 'layer', but must be one of plans, batch"):
        _build(2, norm="layer")
    with pytest.raises(UserError, match=r"norm is 'plans', .*these plans have no normalization"):
        _build(2, norm="plans", norm_op=None)


def test_weights_are_loaded_after_nnunets_initialization_and_not_before(tmp_path):
    """Prediction builds the network, too, and must not need the file."""
    torch.manual_seed(0)
    donor = _build(2, 3, **NARROW)
    torch.save(donor.encoder.state_dict(), tmp_path / "resnet34.pth")
    network = _build(2, 1, weights=str(tmp_path / "resnet34.pth"), **NARROW)
    assert not torch.equal(network.encoder.layer4[0].conv1.weight, donor.encoder.layer4[0].conv1.weight)
    assert "3 input channels adapted to 1" in network.load_pretrained()
    torch.testing.assert_close(network.encoder.layer4[0].conv1.weight, donor.encoder.layer4[0].conv1.weight)
    assert _build(2, weights="/absent.pth", **NARROW)(_scan(32, 32)).shape == (2, 3, 32, 32)
    with pytest.raises(UserError, match=r"file of encoder weights not found: /absent\.pth"):
        _build(2, weights="/absent.pth", **NARROW).load_pretrained()
    assert _build(2, **NARROW).load_pretrained() is None


def test_options_are_json():
    options = {"channel_energy": "scaled", "context_skips": [2, 3], "norm": "plans", "weights": "imagenet"}
    assert isinstance(_on_meta(2, **json.loads(json.dumps(options))), MFCNet)
