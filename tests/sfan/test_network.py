"""The whole network against the paper's figure written as one plain function, and what nnU-Net asks of a network."""

import pytest
import torch
from torch.nn import functional as F

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.sfan import SFAN, SFANUNet

MODE = {2: "bilinear", 3: "trilinear"}
THICK = {
    "features": (4, 6, 8, 10, 10),
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 1]],
    "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
}
NETWORKS = {
    "sfan": (SFAN, {}),
    "without SAT": (SFAN, {"sat": False}),
    "without GCA": (SFAN, {"gca": False}),
    "max pooling": (SFAN, {"downsampling": "max"}),
    "U-Net": (SFANUNet, {}),
}


@pytest.fixture(params=NETWORKS)
def make(request, geometry):
    cls, options = NETWORKS[request.param]

    def build(dim, *, channels=1, classes=3, thick=False, **changes):
        torch.manual_seed(0)
        network = cls(channels, classes, **geometry(dim, **(THICK if thick else {}) | changes), **options)
        network.apply(network.initialize)
        return network

    return build


def scan(dim, batch=2, channels=1):
    return torch.randn(batch, channels, *(16, 32, 48)[-dim:], generator=torch.Generator().manual_seed(0))


def plain(conv, x):
    """A convolution of the network as nothing but that."""
    convolve = F.conv3d if x.ndim == 5 else F.conv2d
    return convolve(x, conv.weight, conv.bias, padding=conv.padding)


def by_the_figure(network, x):
    """SFAN as the paper draws it, every map made; the encoder is nnU-Net's."""
    h, dim = network.encoder(x), x.ndim - 2
    ones = (1,) * dim

    def vector(attend, level):
        z = level.flatten(2).mean(2).reshape(*level.shape[:2], *ones)
        return torch.sigmoid(attend.excite(attend.squeeze(z)))

    s = [vector(network.sat[i].attend, h[i + 1]) * h[i] if len(network.sat) else h[i] for i in range(len(h) - 1)]
    gca = network.decoder.gca
    p = torch.cat(
        [
            F.interpolate(plain(align, level), size=x.shape[2:], mode=MODE[dim], align_corners=False)
            for align, level in zip(gca.align, [*s, h[-1]], strict=True)
        ],
        1,
    )
    o = p if gca.attend is None else vector(gca.attend, h[-1]) * p
    decoder = network.decoder
    return decoder.seg_layers[0](decoder.activate(decoder.norm(plain(gca.fuse, o))))


@pytest.mark.parametrize(("dim", "thick"), [(2, False), (3, False), (3, True)])
@pytest.mark.parametrize("options", [{}, {"sat": False}, {"gca": False}, {"aligned_channels": 5}])
def test_forward_is_the_figure(geometry, dim, thick, options):
    torch.manual_seed(0)
    network = SFAN(1, 3, **geometry(dim, **(THICK if thick else {})), **options)
    torch.testing.assert_close(network(scan(dim)), by_the_figure(network, scan(dim)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
def test_every_parameter_learns_without_a_normalization(make, dim):
    """Biases too; before a normalization they have no gradient."""
    network = make(dim, thick=dim == 3, norm_op=None)
    network(scan(dim)).square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_half_precision_is_close(make):
    network = make(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(scan(2))
    exact = network(scan(2))
    assert torch.isfinite(half).all()
    assert (half.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_planners_can_size_it(make):
    """Twice the area, twice the maps; the network stays as it was."""
    network = make(2)
    small, large = (network.compute_conv_feature_map_size(size) for size in ((32, 32), (64, 32)))
    assert 1.98 < large / small <= 2
    assert not any(tensor.is_meta for tensor in network.state_dict().values())


@pytest.mark.parametrize("dim", [2, 3])
def test_on_a_residual_encoder(geometry, dim):
    plans = geometry(dim)
    plans["n_blocks_per_stage"] = plans.pop("n_conv_per_stage")
    network = SFAN(1, 3, **plans)
    assert network(scan(dim)).shape == (2, 3, *scan(dim).shape[2:])
    with pytest.raises(UserError, match="a residual encoder has only strided convolutions"):
        SFAN(1, 3, **plans, downsampling="max")


@pytest.mark.parametrize("cls", [SFAN, SFANUNet])
def test_one_stage_is_refused(geometry, cls):
    with pytest.raises(UserError, match="needs at least 2 resolution stages"):
        cls(1, 3, **geometry(2, features=(4,)))


@pytest.mark.parametrize("option", ["sat_hidden", "gca_hidden", "inner_activation"])
def test_unknown_options_are_refused(geometry, option):
    with pytest.raises(UserError, match=f"SFAN's option {option} is 'wrong', but must be one of"):
        SFAN(1, 3, **geometry(2), **{option: "wrong"})


def test_weights_of_a_stock_training_fit_the_encoder(geometry):
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    stock = PlainConvUNet(1, num_classes=3, **geometry(3))
    network = SFAN(1, 3, **geometry(3))
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items() if name.startswith("encoder.")}
    found = {name: tensor.shape for name, tensor in stock.state_dict().items()}
    assert wanted.items() <= found.items()
