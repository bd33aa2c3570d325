"""What every row shows: ranges and sums, formulas written a second time, and a network that is left as it was."""

import pytest
import torch
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import (
    FEATURES,
    KINDS,
    PHASES,
    POSITIONS,
    VECTOR,
    VOXELS,
    AttentionSpec,
    position_of,
    record_attention,
)
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.inference.attention_case import maps_of, rows_with_attention

from .conftest import PATCH, scan, small

POINT = (0.7, 0.2, 0.9)


def shown_by(network, key):
    return [one for one in network.attention_specs() if one.key == key]


def test_every_row_shows_maps_or_is_refused(row):
    variant, dim = row
    network = small(variant.name, dim)
    if variant not in rows_with_attention():
        attending = [m for m in network.modules() if m is not network and hasattr(m, "attention_specs")]
        assert not attending, "a block declares maps, but the network does not pass them on"
        with pytest.raises(UserError, match=r"my model: this network has no attention.*\n.*SFANTrainer"):
            maps_of(network, "my model")
        return
    shown = maps_of(network, "my model")
    logits, maps = record_attention(network, scan(dim), shown, point=POINT[:dim])
    assert logits.shape == (1, 3, *PATCH[:dim])
    assert len({(one.key, one.level) for one in shown}) == len(shown), "two maps would share a file"
    for one, found in zip(shown, maps, strict=True):
        assert found.isfinite().all(), one
        assert one.kind in KINDS and one.source and one.title
        CHECKS[one.kind](found, dim)


def is_on_a_grid(found, dim):
    assert found.ndim == 2 + dim
    assert all(full % size == 0 for full, size in zip(PATCH, found.shape[2:], strict=False))


def in_unit_range(found, dim):
    is_on_a_grid(found, dim)
    assert found.shape[1] == 1 and found.min() >= 0 and found.max() <= 1


def sums_to_one_over_phases(found, dim):
    is_on_a_grid(found, dim)
    assert found.shape[1] == 2 and found.min() >= 0
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))


def sums_to_one_over_positions(found, dim):
    in_unit_range(found, dim)
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))


def is_strength(found, dim):
    is_on_a_grid(found, dim)
    assert found.shape[1] == 1 and found.min() >= 0 and found.max() > 0


def is_vector(found, dim):
    assert found.ndim == 2 and found.min() >= 0 and found.max() <= 1


CHECKS = {
    VOXELS: in_unit_range,
    PHASES: sums_to_one_over_phases,
    POSITIONS: sums_to_one_over_positions,
    FEATURES: is_strength,
    VECTOR: is_vector,
}


def test_the_network_is_left_as_it_was(row):
    variant, dim = row
    network = small(variant.name, dim)
    if variant not in rows_with_attention():
        return
    network.decoder.deep_supervision = False
    x = scan(dim)
    with torch.no_grad():
        before = network(x)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    logits, _ = record_attention(network, x, network.attention_specs(), point=POINT[:dim])
    assert network.training and network.decoder.deep_supervision is False
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(x), before)
    torch.testing.assert_close(logits, before, rtol=1e-4, atol=1e-4)


def test_hooks_go_when_a_map_cannot_be_read():
    network = small("sfan", 2)

    def broken(call):
        raise RuntimeError("no map")

    shown = [AttentionSpec("broken", "t", "s", VECTOR, 0, network.decoder.gca.attend, broken)]
    with pytest.raises(RuntimeError, match="no map"):
        record_attention(network, scan(2), [*network.attention_specs(), *shown], point=POINT[:2])
    assert not any(module._forward_hooks for module in network.modules())


# --- formulas, written a second time ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "last"), [(2, [2, 2]), (3, [2, 2, 2]), (3, [1, 2, 2])])
def test_spacor_shows_eq_5_on_the_finer_grid(dim, last):
    strides = [[1] * dim] + [last] + [[2] * dim] * 3
    network, x = small("dpcnet", dim, strides=strides), scan(dim)
    found = record_attention(network, x, shown_by(network, "spacor_attention"), point=POINT[:dim])[1][0]
    with torch.no_grad():
        finer, here, *_ = network.pyramid(x)
        both = torch.cat([F.interpolate(here, finer.shape[2:], mode="nearest"), finer], 1)
        squeezed = both.mean(1, keepdim=True) + both.amax(1, keepdim=True)
        expected = torch.sigmoid(network.spacor[1].attend(squeezed))
    assert expected.shape[2:] == x.shape[2:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
def test_semcor_shows_eqs_8_and_9(dim):
    network, x = small("dpcnet-semcor", dim), scan(dim)
    weights = record_attention(network, x, shown_by(network, "semcor_attention"), point=POINT[:dim])[1][0]
    features = record_attention(network, x, shown_by(network, "semcor_features"), point=POINT[:dim])[1][0]
    axes = tuple(range(2, 2 + dim))
    with torch.no_grad():
        here, coarser, *_ = network.pyramid(x)
        squeezes = [f(level, axes) for f in (torch.mean, torch.amax) for level in (here, coarser)]
        expected = torch.sigmoid(network.semcor[0].mlp(torch.cat(squeezes, 1)))
        weighed = expected.view(1, -1, *[1] * dim) * network.semcor[0].g(here)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(features, weighed.abs().mean(1, keepdim=True))


@pytest.mark.parametrize("dim", [2, 3])
def test_pam_shows_one_row_of_the_whole_map(dim):
    network, x = small("mpunet", dim), scan(dim)
    found = record_attention(network, x, shown_by(network, "pam"), point=POINT[:dim])[1][0]
    pam, inputs = network.context.attend, []
    hook = pam.register_forward_hook(lambda module, args, output: inputs.append(args[0]))
    with torch.no_grad():
        network(x)
        hook.remove()
        query, key = (project(inputs[0])[0].flatten(1) for project in (pam.query, pam.key))
        whole = torch.softmax(query.T @ key, 1)  # row: the position that looks
    grid = inputs[0].shape[2:]
    voxel = tuple(int(share * size) for share, size in zip(POINT, grid, strict=False))
    index = torch.arange(whole.shape[0]).view(grid)[voxel]
    torch.testing.assert_close(found[0, 0].flatten(), whole[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
def test_mfcnet_shows_one_row_and_the_largest_weights(dim):
    network, x = small("mfcnet-energy-scaled", dim), scan(dim)
    (row,), (largest,) = (
        record_attention(network, x, shown_by(network, key)[:1], point=POINT[:dim])[1]
        for key in ("spatial_context", "channel_context")
    )
    with torch.no_grad():
        skip = network.encoder(x)[1]
        block, flat = network.context[0].extractors["spatial"], skip.flatten(2)[0]
        query, key = (torch.relu(project(skip))[0].flatten(1) for project in (block.query, block.key))
        whole = torch.softmax(query.T @ key, 1)
        similar = torch.softmax(flat @ flat.T / flat.shape[1], 1)
    index = position_of(POINT[:dim], skip.shape[2:])
    torch.testing.assert_close(row[0, 0].flatten(), whole[index], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(largest[0], torch.stack([weights.max() for weights in similar]))


@pytest.mark.parametrize("dim", [2, 3])
def test_urim_shows_eq_3(dim):
    network, x = small("sam-urim", dim), scan(dim)
    found = record_attention(network, x, shown_by(network, "confidence"), point=POINT[:dim])[1][0]
    with torch.no_grad():
        best, second = torch.softmax(network.decoder.predict(network.features(x)).double(), 1).topk(2, 1).values[0]
    torch.testing.assert_close(found[0, 0].double(), 1 - torch.exp(1 - best / second), rtol=1e-3, atol=1e-5)


def test_phase_weights_depend_on_the_phases():
    network = small("sam-urim", 2)
    x = scan(2)
    x[:, 1] = 0.0
    (found, *_), (same, *_) = (
        record_attention(network, image, shown_by(network, "sam"), point=POINT[:2])[1] for image in (x, scan(2))
    )
    assert not torch.allclose(found, same)


@pytest.mark.parametrize(
    ("point", "size", "index"), [((0.0, 0.0), (3, 4), 0), ((1.0, 1.0), (3, 4), 11), ((0.5, 0.25), (3, 4), 5)]
)
def test_position_of_a_point(point, size, index):
    assert position_of(point, size) == index
