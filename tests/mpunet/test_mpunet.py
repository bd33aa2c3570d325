"""MPU-Net and its U-Net: printed counts, the forward pass written out again, options, what is refused."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.mpunet import MPUNet, MultiOutputUNet, attention_level

from .conftest import PAPER_WIDTHS, SIZE, geometry

DEAD = 1_049_754


def count(network, trained_only=False):
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trained_only)


def on_meta(network_class, *args, **kwargs):
    with torch.device("meta"):
        return network_class(*args, **kwargs)


def small(dim, channels=1, classes=3, **options):
    torch.manual_seed(0)
    return MPUNet(channels, classes, **options, **geometry(dim))


def scan(dim, channels=1, batch=2):
    return torch.randn(batch, channels, *SIZE[:dim], generator=torch.Generator().manual_seed(0))


# --- counts -----------------------------------------------------------------------------------------------------------


def test_printed_parameter_counts():
    plans = geometry(3, PAPER_WIDTHS)
    authors = on_meta(MPUNet, 1, 2, elu_alpha="channels", unused_layers=True, **plans)
    assert count(authors) == 22_557_009  # Table 6
    assert count(authors, trained_only=True) == 22_557_009 - DEAD
    assert count(on_meta(MPUNet, 1, 2, **plans)) == 21_507_255
    assert count(on_meta(MultiOutputUNet, 1, 2, **plans)) == 2_326_638  # Table 6


def test_counts_of_the_parts():
    network = on_meta(MPUNet, 1, 2, **geometry(3, PAPER_WIDTHS))
    encoder, context, decoder = network.encoder, network.context, network.decoder
    stages = [*encoder.stages, context.stage]
    assert [count(part) for part in stages] == [7_408, 55_424, 221_440, 885_248, 3_539_968]
    downs = [*encoder.downs, context.reduce, context.widen]
    assert [count(part) for part in downs] == [4_192, 16_576, 65_920, 885_504, 3_540_480]
    assert sum(count(part) for part in (context.enter, context.attend, context.leave)) == 5_392_195
    assert [count(part) for part in decoder.stages] == [4_425_216, 1_549_056, 387_456, 96_960]
    assert [count(part) for part in decoder.ups] == [262_400, 65_664, 16_448]
    assert [count(part) for part in decoder.gates] == [66_435, 16_835, 4_323, 1_139]
    assert [count(part) for part in decoder.seg_layers] == [514, 258, 130, 66]


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"gate": "skip"}, 21_452_015),
        ({"gate": None}, 21_418_523),
        ({"multi_scale_block": True}, 23_438_423),
        ({"n_heads": 8}, 21_688_183),
        ({"pos_embed": [6, 32, 32]}, 21_507_255 + 256 * 6 * 32 * 32),
        ({"norm": "plans"}, 21_507_255),
    ],
)
def test_options_change_the_count(options, parameters):
    assert count(on_meta(MPUNet, 1, 2, **options, **geometry(3, PAPER_WIDTHS))) == parameters


# --- where the attention is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strides", "level"),
    [
        ([(1, 1, 1)] + [(2, 2, 2)] * 3, 3),
        ([(1, 1, 1)] + [(2, 2, 2)] * 5, 3),
        ([(1, 1)] + [(2, 2)] * 7, 3),
        ([(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)], 3),  # (4, 8, 8): 6.3
        ([(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)], 4),  # (2, 16, 16): exactly 8
        ([(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2)], 3),  # (2, 8, 8): 5.0, the coarsest there is
        ([(1, 1), (2, 2), (2, 2), (1, 2), (2, 2)], 4),  # (4, 8): 5.7 and (8, 16): 11.3 are equally near
        ([(1, 1), (2, 2), (2, 2)], 2),
    ],
)
def test_attention_is_at_the_stride_nearest_8(strides, level):
    assert attention_level(strides) == level


def test_attention_sees_4096_positions_in_a_patch_of_128():
    network = on_meta(MPUNet, 1, 3, **geometry(3, (32, 64, 128, 256, 320, 320)))
    seen = []
    network.context.attend.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    network(torch.empty(1, 1, 128, 128, 128, device="meta"))
    assert seen == [(1, 256, 16, 16, 16)]


# --- the forward pass, written out ------------------------------------------------------------------------------------


def prelu(x, slope):
    return torch.where(x > 0, x, slope.view(1, -1, *[1] * (x.ndim - 2)) * x)


def batch_norm(x, norm):
    axes = [0, *range(2, x.ndim)]
    mean, var = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, unbiased=False)
    view = (1, -1, *[1] * (x.ndim - 2))
    return (x - mean) / (var + norm.eps).sqrt() * norm.weight.view(view) + norm.bias.view(view)


def naive_maps(network, x):
    """The four (or so) softmax maps of MPU-Net in training mode without dropout."""
    dim = x.ndim - 2
    convolve, transpose = (F.conv3d, F.conv_transpose3d) if dim == 3 else (F.conv2d, F.conv_transpose2d)
    pool, mode = (F.max_pool3d, "trilinear") if dim == 3 else (F.max_pool2d, "bilinear")

    def stack(x, layers):
        for conv, bend in zip(layers[::2], layers[1::2], strict=True):
            x = prelu(convolve(x, conv.weight, conv.bias, padding=1), bend.weight)
        return x

    def shrink(x, layers, stride):
        conv = layers[1]
        y = convolve(pool(x, 3, 1, 1), conv.weight, conv.bias, stride, padding=0 if stride == 2 else 1)
        y = batch_norm(y, layers[2])
        return torch.where(y > 0, y, torch.exp(y) - 1)

    def layer(x, layers):
        return prelu(batch_norm(convolve(x, layers[0].weight, layers[0].bias, padding=1), layers[1]), layers[2].weight)

    def gate(x, g, gate):
        inner = batch_norm(gate.see[0](x), gate.see[1]) + batch_norm(gate.steer[0](g), gate.steer[1])
        return x * torch.sigmoid(batch_norm(gate.weigh[0](inner.clamp(min=0)), gate.weigh[1]))

    encoder, context, decoder = network.encoder, network.context, network.decoder
    e = [stack(x, encoder.stages[0].body) + x]
    for i in range(1, 4):
        down = shrink(e[-1], encoder.downs[i - 1], 2)
        e.append(stack(down, encoder.stages[i].body) + down)
    down = shrink(e[-1], context.reduce, 1)
    deep = shrink(stack(down, context.stage[0].body) + down, context.widen, 1)
    a = layer(deep, context.enter)
    q, k, v = (conv(a).flatten(2) for conv in (context.attend.query, context.attend.key, context.attend.value))
    weights = torch.softmax(q.transpose(1, 2) @ k, 2)
    b = layer(context.attend.gain * (v @ weights.transpose(1, 2)).reshape(a.shape) + a, context.leave)
    d = [gate(stack(e[3], decoder.stages[0]) + b, b, decoder.gates[0])]
    for i in range(1, 4):
        up = decoder.ups[i - 1]
        u = prelu(transpose(d[-1], up[0].weight, up[0].bias, 2), up[1].weight)
        d.append(gate(stack(torch.cat([u, e[3 - i]], 1), decoder.stages[i]) + u, u, decoder.gates[i]))
    maps = [head(features) for head, features in zip(decoder.seg_layers, d, strict=True)]
    return [F.interpolate(m, x.shape[2:], mode=mode, align_corners=False).softmax(1) for m in maps]


def test_forward_is_the_network_written_out(dim):
    network = small(dim, dropout=0.0, deep_supervision=True)
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    network.context.attend.gain.data.fill_(0.7)
    x = scan(dim)
    fused, *maps = (output.softmax(1) for output in network(x))
    expected = naive_maps(network, x)
    for ours, theirs in zip(maps, expected, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fused, sum(expected) / 4, rtol=1e-4, atol=1e-4)


def test_dropout_is_where_the_paper_has_it_and_rests_in_prediction():
    network = small(2, dropout=0.2)
    network(scan(2))  # running statistics
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(scan(2)), network(scan(2)))
    dropped = []
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda m, inputs, output: dropped.append(output.shape[1]))
    network(scan(2))
    assert dropped == [4, 8, 16, 32, 32, 16, 8]  # E_2 to E_5, then the decoder but for its finest level


def test_unet_is_the_network_written_out(dim):
    torch.manual_seed(0)
    network = MultiOutputUNet(1, 3, **geometry(dim), deep_supervision=True)
    x = torch.randn(2, 1, *(16, 32, 48)[:dim])
    pool, mode = (F.max_pool3d, "trilinear") if dim == 3 else (F.max_pool2d, "bilinear")
    heads = network.decoder.seg_layers

    def up(t):
        return F.interpolate(t, scale_factor=2.0, mode=mode, align_corners=False).clamp(min=0)

    t, y = [], x
    for conv in network.encoder:
        y = pool(conv(y), 2).clamp(min=0)
        t.append(y)
    s = [t[3]]
    for i, conv in enumerate(network.decoder.stages):
        s.append(up(conv(s[-1])) + t[2 - i])
    final = heads[1](up(heads[0](s[3])))
    coarse = [F.interpolate(heads[2 + i](s[i]), scale_factor=2.0 ** (4 - i), mode=mode) for i in range(3)]
    for ours, theirs in zip(network(x), [final, *coarse], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


# --- probabilities ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "activation"), [("softmax", lambda x: x.softmax(1)), ("sigmoid", torch.sigmoid)])
def test_nnunets_activation_gives_the_fused_probabilities(dim, heads, activation):
    network = small(dim, heads=heads)
    network(scan(dim))
    network.eval()
    with torch.no_grad():
        skips = network.encoder(scan(dim))
        maps = network.decoder(skips, network.context(skips[-1]))
        mean = sum(activation(m.double()) for m in maps) / 4
        torch.testing.assert_close(activation(network(scan(dim))).double(), mean, rtol=1e-5, atol=1e-6)


def test_what_is_trained():
    outputs = small(3).training_outputs()
    assert [(o.name, o.stride, o.weight) for o in outputs] == [
        ("fused", (1, 1, 1), 1.0),
        ("p1", (1, 1, 1), 0.4),
        ("p2", (1, 1, 1), 0.4),
        ("p3", (1, 1, 1), 0.4),
    ]


# --- options ----------------------------------------------------------------------------------------------------------

OPTIONS = [
    {"gate": "skip"},
    {"gate": None},
    {"multi_scale_block": True},
    {"n_heads": 4},
    {"pos_embed": [2, 3, 4]},  # is the grid of the scan, in 2D its first two entries
    {"norm": "plans"},
    {"heads": "sigmoid"},
    {"gate": "skip", "multi_scale_block": True, "n_heads": 4, "pos_embed": [3, 3, 3]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_parameter_of_every_option_learns(dim, options):
    if "pos_embed" in options:
        options = options | {"pos_embed": options["pos_embed"][:dim]}
    network = small(dim, deep_supervision=True, **options)
    network.context.attend.gain.data.fill_(0.5)
    sum(output.square().mean() for output in network(scan(dim))).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    silent = [name for name, p in network.named_parameters() if not p.grad.any() and not name.endswith("bias")]
    assert not silent


def test_skip_gates_weigh_the_skips():
    network = small(2, gate="skip")
    assert [gate.see[0].in_channels for gate in network.decoder.gates] == [16, 8, 4, 2]
    assert [gate.steer[0].in_channels for gate in network.decoder.gates] == [32, 16, 8, 4]
    for gate in network.decoder.gates:  # shut
        gate.weigh[1].weight.data.zero_()
        gate.weigh[1].bias.data.fill_(-100)
    skips = [torch.randn(1, c, 16 // 2**i, 16 // 2**i) for i, c in enumerate((2, 4, 8, 16))]
    context = torch.randn(1, 32, 2, 2)
    network.eval()
    with torch.no_grad():
        shut = network.decoder(skips, context)
        nothing = network.decoder([torch.zeros_like(skip) for skip in skips], context)
    for one, other in zip(shut, nothing, strict=True):
        torch.testing.assert_close(one, other)


def test_more_input_channels_pass_a_projection(dim):
    network = small(dim, channels=3)
    assert count(network.encoder.stages[0].shortcut) == 3 * 2 + 2
    assert network(scan(dim, channels=3)).shape == (2, 3, *SIZE[:dim])


def test_elu_alpha_is_1_or_the_authors_channels():
    def alphas(network):
        return [module.alpha for module in network.modules() if isinstance(module, nn.ELU)]

    assert alphas(small(2)) == [1.0] * 5
    assert alphas(small(2, elu_alpha="channels")) == [4.0, 8.0, 16.0, 32.0, 40.0]


def test_norm_is_batch_or_the_plans():
    def norms(network):
        return {type(m) for m in network.modules() if "Norm" in type(m).__name__}

    assert norms(small(3)) == {nn.BatchNorm3d}
    assert norms(small(3, norm="plans")) == {nn.InstanceNorm3d}
    without = MPUNet(1, 2, norm="plans", **geometry(3, norm_op=None))
    assert norms(without) == set()


def test_initial_weights_are_hes_for_prelu():
    network = MPUNet(1, 2, **geometry(3, PAPER_WIDTHS[:4]))
    network.apply(network.initialize)
    conv = network.decoder.stages[0][2]
    expected = math.sqrt(2 / (1 + 0.25**2) / (27 * 256))
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.01)
    assert not conv.bias.any()
    assert network.context.attend.gain.item() == 0


def test_unused_layers_are_frozen_and_do_not_change_the_result():
    network = small(2, unused_layers=True, dropout=0.0)
    assert not any(p.requires_grad for p in network.unused.parameters())
    for p in network.unused.parameters():
        p.data.fill_(float("nan"))
    assert network(scan(2)).isfinite().all()


@pytest.mark.parametrize("network_class", [MPUNet, MultiOutputUNet])
def test_heads_are_where_pretrained_weights_leave_them_out(network_class):
    two, three = (on_meta(network_class, 1, k, **geometry(3)).state_dict() for k in (2, 3))
    assert all(".seg_layers." in name for name in two if two[name].shape != three[name].shape)


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": "argmax"}, "option heads is 'argmax', but must be one of softmax, sigmoid"),
        ({"gate": "both"}, "option gate is 'both', but must be one of decoder, skip, None"),
        ({"norm": "group"}, "option norm is 'group', but must be one of plans, batch"),
        ({"pos_embed": [6, 32]}, r"pos_embed is \[6, 32\], but must list the 3 sizes"),
        ({"pos_embed": [6, 0, 4]}, r"pos_embed is \[6, 0, 4\], but must list"),
        ({"n_heads": 7}, "n_heads is 7, but the position attention splits 32 channels"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        small(3, **options)


def test_one_softmax_class_is_refused():
    with pytest.raises(UserError, match="one output channel and softmax heads"):
        small(3, classes=1)
    small(3, classes=1, heads="sigmoid")


@pytest.mark.parametrize("network_class", [MPUNet, MultiOutputUNet])
def test_shallow_plans_are_refused(network_class):
    with pytest.raises(UserError, match="needs at least 3 resolution stages, but these plans have 2"):
        network_class(1, 2, **geometry(3, (4, 8)))


@pytest.mark.parametrize(("network_class", "factors"), [(MPUNet, "8 x 8"), (MultiOutputUNet, "16 x 16")])
def test_sizes_that_do_not_divide_are_refused(network_class, factors):
    with pytest.raises(UserError, match=f"reduces an image by {factors}, so it cannot read 16 x 36 voxels"):
        network_class(1, 2, **geometry(2))(torch.zeros(2, 1, 16, 36))
