"""The networks of MFCNet's Table 1: counts of their sources, and their special parts written a second time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_livseg.blocks.axis_attention import AxisAttention
from nnunet_livseg.blocks.recurrent_residual import RecurrentConvolution, RecurrentResidualUnit
from nnunet_livseg.blocks.squeeze_excitation import SqueezeExcitation
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.atrous import DANet
from nnunet_livseg.networks.unet_relatives import CSNet, NestedUNet
from nnunet_livseg.plans import Overrides, make_plans
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.rows.mfcnet import ROWS

ROW = {row.name: row for row in ROWS}
CONVS = {2: nn.Conv2d, 3: nn.Conv3d}
CONV = {2: F.conv2d, 3: F.conv3d}
SIZE = (4, 5, 6)


def paper(name, *, channels=1, classes=1):
    """A row with the paper's preset, built through plans as a user builds it, without values."""
    stock = stock_configuration(2) | {"median_image_size_in_voxels": [512.0, 512.0], "data_identifier": "x"}
    stock |= {"spacing": [0.7676, 0.7676]}
    content = {"plans_name": "nnUNetPlans", "configurations": {"2d": stock}}
    plans = make_plans(content, ROW[name], preset="paper", name="P", overrides=Overrides())
    with torch.device("meta"):
        return build(plans["configurations"]["2d"], channels=channels, classes=classes, initialize=False)


def geometry(dim, widths=(4, 6, 8), **changes):
    kwargs = stock_configuration(dim, features=widths)["architecture"]["arch_kwargs"]
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dim]
    return kwargs | {"conv_op": CONVS[dim], "norm_op": norm, "nonlin": nn.LeakyReLU} | changes


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mfcnet-unet", 31_030_593),  # the architecture of Ronneberger's Fig. 1, which prints no count
        ("mfcnet-csnet", 8_400_163),  # the authors' code, less its 1x1 convolution that is never called (524,800)
        ("mfcnet-senet", 29_002_515 + 5_534),
    ],
)
def test_counts_of_the_architectures(name, parameters):
    assert count(paper(name)) == parameters


def test_nested_unet_has_the_printed_number_of_parameters():
    """UNet++ (DLMIA 2018), Table 3: 9.04M, with deep supervision and without."""
    network = paper("mfcnet-nested-unet")
    assert f"{count(network) / 1e6:.2f}" == "9.04"
    heads = count(network.decoder.seg_layers)
    assert f"{(count(network) - heads * 3 / 4) / 1e6:.2f}" == "9.04"


def test_danet_head_is_the_authors():
    """DANet's code on 2048 channels: two branches of two 3x3 convolutions, q and k of 64 channels, three heads."""
    head = paper("mfcnet-danet", classes=2).decoder
    convs = 2 * (2048 * 512 * 9 + 512 * 512 * 9 + 2 * 2 * 512)
    attention = 2 * (512 * 64 + 64) + 512 * 512 + 512 + 2
    assert count(head) == convs + attention + 3 * (512 * 2 + 2)


# --- special parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3])
def test_a_recurrent_convolution_is_its_equation(dim):
    options = {"conv_op": CONVS[dim], "kernel_size": [3] * dim, "norm": lambda c: nn.Identity()}
    torch.manual_seed(0)
    block = RecurrentConvolution(3, **options, activation=nn.ReLU, steps=2)
    x, w, b = torch.randn(2, 3, *SIZE[:dim]), block.forward_conv.weight, block.forward_conv.bias
    y = 0
    for _ in range(3):  # Eq. (1) with y(-1) = 0
        recurrent = CONV[dim](y, block.recurrent_conv.weight, padding=1) if torch.is_tensor(y) else 0
        y = (CONV[dim](x, w, b, padding=1) + recurrent).clamp(min=0)
    torch.testing.assert_close(block(x), y)
    unit = RecurrentResidualUnit(2, 3, **options, activation=nn.ReLU, steps=1)
    z = CONV[dim](x[:, :2], unit.project.weight, unit.project.bias)
    torch.testing.assert_close(unit(x[:, :2]), z + unit.recurrent[1](unit.recurrent[0](z)))


@pytest.mark.parametrize("dim", [2, 3])
def test_squeeze_excitation_weighs_channels_by_their_means(dim):
    torch.manual_seed(0)
    block = SqueezeExcitation(8, conv_op=CONVS[dim], reduction=4)
    x = torch.randn(2, 8, *SIZE[:dim])
    means = torch.stack([torch.stack([channel.mean() for channel in case]) for case in x])
    layers = [(conv.weight.flatten(1), conv.bias) for conv in (block.squeeze, block.excite)]
    weights = torch.sigmoid(F.linear(F.linear(means, *layers[0]).relu(), *layers[1]))
    torch.testing.assert_close(block(x), torch.einsum("bc,bc...->bc...", weights, x))


@pytest.mark.parametrize("dim", [2, 3])
def test_axis_attention_is_its_map(dim):
    """With the N x N maps of the authors' code, in float64; in 3D their product."""
    torch.manual_seed(0)
    block = AxisAttention(8, conv_op=CONVS[dim], norm=lambda c: nn.Identity(), reduction=2).double()
    block.gamma.data.fill_(0.7)
    x = torch.randn(2, 8, *SIZE[:dim], dtype=torch.float64)
    q, k = (part(x).flatten(2) for part in (block.query, block.key))
    energies = torch.einsum("bdn,bdm->bnm", q, k)
    if dim == 3:
        energies = energies @ torch.einsum("bdn,bdm->bnm", block.third(x).flatten(2), k)
    gathered = torch.einsum("bnm,bcm->bcn", energies.softmax(2), block.value(x).flatten(2))
    torch.testing.assert_close(block(x), x + 0.7 * gathered.view_as(x))
    assert [k.kernel_size for k in (block.query[0], block.key[0])] == {
        2: [(1, 3), (3, 1)],
        3: [(1, 1, 3), (1, 3, 1)],
    }[dim]


def test_csnet_adds_both_attentions_to_its_bottleneck():
    torch.manual_seed(0)
    network = CSNet(1, 2, **geometry(2)).eval()
    network.spatial.gamma.data.fill_(0.5)
    x = torch.randn(1, 1, 16, 24)
    *skips, deepest = network.encoder(x)
    attended = deepest + network.spatial(deepest) + network.channel(deepest)
    torch.testing.assert_close(network(x), network.decoder([*skips, attended]))
    assert not torch.allclose(attended, 3 * deepest)  # what the gains' start gives


@pytest.mark.parametrize("dim", [2, 3])
def test_nested_unet_nodes_read_what_figure_1_says(dim):
    torch.manual_seed(0)
    network = NestedUNet(1, 2, deep_supervision=True, **geometry(dim, (4, 6, 8))).eval()
    up, node = network.decoder.ups, network.decoder.nodes
    x00, x10, x20 = network.encoder(torch.randn(1, 1, *(8, 16, 12)[:dim]))
    x01 = node["0_1"](torch.cat((x00, up["0_1"](x10)), 1))
    x11 = node["1_1"](torch.cat((x10, up["1_1"](x20)), 1))
    x02 = node["0_2"](torch.cat((x00, x01, up["0_2"](x11)), 1))
    network.encoder.forward = lambda x: [x00, x10, x20]
    fused, first, second = network(None)
    heads = network.decoder.seg_layers
    torch.testing.assert_close(first, heads[0](x01))
    torch.testing.assert_close(second, heads[1](x02))
    torch.testing.assert_close(fused.softmax(1), (first.softmax(1) + second.softmax(1)) / 2)
    assert [(o.name, o.weight) for o in network.training_outputs()] == [("final", 0.0), ("node1", 0.5), ("node2", 0.5)]


def test_nested_unet_without_supervision_has_one_output():
    network = NestedUNet(1, 2, supervised=False, deep_supervision=True, **geometry(2))
    assert [y.shape for y in network(torch.zeros(1, 1, 16, 16))] == [(1, 2, 16, 16)]
    assert [o.weight for o in network.training_outputs()] == [1.0]
    with pytest.raises(UserError, match="option heads is 'argmax', but must be one of"):
        NestedUNet(1, 2, heads="argmax", **geometry(2))


def test_danet_sums_its_attentions_on_an_eighth_of_the_resolution():
    torch.manual_seed(0)
    network = DANet(1, 2, layers=[1, 1, 1, 1], deep_supervision=True, **geometry(2, (4, 4, 4, 4, 4, 4))).eval()
    x = torch.randn(1, 1, 64, 96)
    last = network.encoder(x)[-1]
    assert last.shape[2:] == (8, 12)
    head = network.decoder
    sums = head.position(last) + head.channel(last)
    expected = F.interpolate(head.seg_layers[0](sums), (64, 96), mode="bilinear")
    outputs = network(x)
    torch.testing.assert_close(outputs[0], expected)
    assert len(outputs) == len(network.training_outputs()) == 3


def test_the_position_attention_of_danet_stays_at_4096_positions():
    for dim, size in ((2, (512, 512)), (3, (128, 128, 128))):
        widths = {2: (4,) * 8, 3: (4,) * 6}[dim]
        with torch.device("meta"):
            network = DANet(1, 2, layers=[1, 1, 1, 1], **geometry(dim, widths))
            assert network.encoder(torch.empty(1, 1, *size))[-1].shape[2:].numel() == 4096
