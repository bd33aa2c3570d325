"""MC-FCN, MW-UNet and PA-ResSeg: counts of the authors' code, and the fusions written a second time."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.multi_phase import MCFCN, MWUNet, PAResSeg
from nnunet_livseg.plans import Overrides, make_plans
from nnunet_livseg.reference_networks import build as build_from
from nnunet_livseg.variants import find_variant

from .small import count, geometry
from .test_rows import plans

WIDTHS = (4, 6, 8, 10)
SIZE = (16, 24, 32)


def build(network, dim=2, channels=2, classes=3, *, widths=WIDTHS, **options):
    torch.manual_seed(0)
    return network(channels, classes, **options, **geometry(dim, widths)).eval()


def image(dim=2, channels=2):
    return torch.randn(1, channels, *SIZE[:dim], generator=torch.Generator().manual_seed(1))


def pyramids(network, x, phases=2):
    encoders = [network.encoder, *network.other_encoders]
    return [encoder(x[:, p : p + 1]) for p, encoder in zip(range(phases), encoders, strict=True)]


@pytest.mark.parametrize("dim", [2, 3])
def test_mc_fcn_concatenates_the_phases_before_it_classifies(dim):
    network, x = build(MCFCN, dim), image(dim)
    portal, arterial = pyramids(network, x)
    dense = [conv(phase[3]) for conv, phase in zip(network.dense, (portal, arterial), strict=True)]
    heads, mode = network.decoder.seg_layers, {2: "bilinear", 3: "trilinear"}[dim]
    eighth, sixteenth = (heads[i - 1](torch.cat((portal[i], arterial[i]), 1)) for i in (1, 2))
    coarse = heads[2](torch.cat(dense, 1))
    sixteenth = sixteenth + F.interpolate(coarse, sixteenth.shape[2:], mode=mode)
    eighth = eighth + F.interpolate(sixteenth, eighth.shape[2:], mode=mode)
    torch.testing.assert_close(network(x), F.interpolate(eighth, x.shape[2:], mode=mode))


def test_mc_fcn_scores_at_strides_8_16_and_32_however_deep_the_plans_are():
    network = build(MCFCN, widths=(4,) * 8)
    assert list(network.scored) == [3, 4, 5]
    assert len(network.encoder.stages) == 6


@pytest.mark.parametrize("dim", [2, 3])
def test_mw_unet_is_a_unet_on_weighted_sums(dim):
    """With the weights (1, 0) it is nnU-Net's U-Net on the first phase, whatever the second shows."""
    network, x = build(MWUNet, dim), image(dim)
    for fusion in network.fusions:
        fusion.weights.data = torch.tensor([1.0, 0.0])
    other = x.clone()
    other[:, 1] = 0
    torch.testing.assert_close(network(x), network(other))
    network.fusions[2].weights.data = torch.tensor([0.5, 2.0])
    sums = [portal for portal, _ in zip(*pyramids(network, x), strict=True)]
    sums[2] = 0.5 * sums[2] + 2 * pyramids(network, x)[1][2]
    y, decoder = sums[-1], network.decoder
    for up, stage, skip in zip(decoder.transpconvs, decoder.stages, sums[-2::-1], strict=True):
        y = stage(torch.cat((up(y), skip), 1))
    torch.testing.assert_close(network(x), decoder.seg_layers[-1](y))


def test_pa_resseg_joins_every_fused_level_at_full_resolution():
    network, x = build(PAResSeg), image()
    levels = zip(*pyramids(network, x), strict=True)
    maps = [
        branch(fusion(list(level))[0])
        for branch, fusion, level in zip(network.decoder.branches, network.fusions, levels, strict=True)
    ]
    assert [m.shape[1:] for m in maps] == [(16, *x.shape[2:])] * 4
    torch.testing.assert_close(network(x), network.decoder.seg_layers[0](network.decoder.join(torch.cat(maps, 1))))


def test_pa_resseg_has_the_count_of_the_authors_code():
    """csying/PA-ResSeg, nc = 64, three slices per phase; ours has no bias before a normalization in 22 places."""
    overrides = Overrides(options={"channels_per_phase": 3})
    row = find_variant("sam-urim-pa-resseg")
    content = make_plans(plans(channels=6), row, preset="paper", name="P", overrides=overrides)
    with torch.device("meta"):
        network = build_from(content["configurations"]["2d"], channels=6, classes=2, initialize=False)

    def conv(n, m, kernel=3, *, bias=True):
        return n * m * kernel**2 + m * bias + 2 * m  # with the normalization after it

    widths = (64, 128, 256, 512, 512, 512)
    encoder = conv(3, 64) + conv(64, 64)
    for n, m in pairwise(widths):
        encoder += conv(n, m) + 3 * conv(m, m) + (conv(n, m, 1, bias=False) if n != m else 0)
    fusions = sum(2 * (conv(c, c // 4, bias=False) + conv(c // 4, c // 4, bias=False)) + 2 for c in widths)
    branches = conv(32, 16)
    for level, c in enumerate(widths[1:], start=1):
        chain = [c // 2, *(16 * 2**i for i in range(level - 1, -1, -1))]
        branches += sum(conv(n, m, 4, bias=False) for n, m in pairwise(chain))
    authors = 2 * encoder + fusions + branches + conv(96, 96) + 96 * 2 + 2
    biases = 2 * 4 * (128 + 256 + 3 * 512) + 16 + 96
    assert count(network) == authors - biases


@pytest.mark.parametrize("network", [MCFCN, MWUNet, PAResSeg])
def test_both_phases_and_a_previous_stage_are_seen(network):
    built = build(network, channels=4, image_channels=2)
    assert (built.phases, built.channels.stream) == (2, 3)
    x = image(channels=4)
    assert all(
        not torch.allclose(built(x), built(torch.cat((x[:, :c], x[:, c : c + 1] + 1, x[:, c + 1 :]), 1)), atol=1e-6)
        for c in range(4)
    )
    with pytest.raises(UserError, match="is not a whole number of phases of 2 channels"):
        build(network, channels=3, channels_per_phase=2)
