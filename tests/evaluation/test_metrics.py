"""Numbers of the metrics: drawings with known answers, brute force, properties, the policy on empty masks."""

import math

import numpy as np
import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.metrics import metric_table, structure_scores
from nnunet_livseg.evaluation.options import Options

SPACING_MM = (5.0, 0.8, 0.8)
BLOBS = [(0, 1, (2.5, 0.8, 0.8)), (2, 3, (1.0, 1.0, 1.0)), (4, 5, (0.7, 1.9, 3.1)), (6, 6, (5.0, 0.7, 0.7))]


def scores(predicted, reference, spacing=SPACING_MM, **options):
    return structure_scores(MaskPair.of(predicted, reference, spacing), Options(**options))


def test_two_slices_too_many_are_ten_millimeters(draw):
    reference, predicted = draw.box((4, 8), (5, 25), (5, 35)), draw.box((4, 10), (5, 25), (5, 35))
    found = scores(predicted, reference)
    assert found["hd"] == pytest.approx(10.0)
    assert found["hd95"] == pytest.approx(10.0)
    assert found["dice"] == pytest.approx(2 * 4 / (4 + 6))
    assert found["rvd"] == pytest.approx(0.5)
    assert found["volume_reference"] == pytest.approx(4 * 20 * 30 * 5 * 0.8 * 0.8 / 1000)


def test_one_voxel_lesions_three_pixels_apart(draw):
    found = scores(draw.box((3, 4), (3, 4), (3, 4)), draw.box((3, 4), (3, 4), (6, 7)))
    assert found["dice"] == 0
    assert found["rvd"] == 0
    assert [found[name] for name in ("assd", "rmsd", "hd95", "hd")] == pytest.approx([2.4] * 4)
    assert found["mcc"] == pytest.approx(-1 / (20 * 30 * 40 - 1))


def test_tolerance_met_exactly_is_within_it(draw):
    apart = draw.box((3, 4), (3, 4), (3, 4)), draw.box((3, 4), (3, 4), (6, 7))  # 3 * 0.8 > 2.4 in floating point
    assert scores(*apart, tolerances=(2.4,), nsd="voxels")["nsd_2.4"] == 1
    assert scores(*apart, tolerances=(2.3,), nsd="voxels")["nsd_2.3"] == 0


@pytest.mark.parametrize(("seed_a", "seed_b", "spacing"), BLOBS)
@pytest.mark.parametrize("neighbors", [6, 18, 26])
def test_blobs_against_brute_force(draw, brute, seed_a, seed_b, spacing, neighbors):
    shape = (6, 9, 11)
    a, b = draw.blob(seed_a, shape=shape, level=0.3), draw.blob(seed_b, shape=shape, level=0.1)
    found = scores(a, b, spacing, surface_connectivity=neighbors, nsd="voxels", tolerances=(1.0, 3.3))
    expected = brute.distances(a, b, spacing, neighbors)
    for name in ("assd", "rmsd", "hd95", "hd"):
        assert found[name] == pytest.approx(expected[name], rel=1e-9), name
    for tolerance in (1.0, 3.3):
        assert found[f"nsd_{tolerance:g}"] == pytest.approx(expected["nsd_voxels"](tolerance), rel=1e-9)
    for name, value in brute.overlap(a, b).items():
        assert found[name] == pytest.approx(value, rel=1e-9), name
    assert found["f1"] == found["dice"]
    pooled = scores(a, b, spacing, surface_connectivity=neighbors, hd95="pooled")["hd95"]
    assert pooled == pytest.approx(expected["hd95_pooled"], rel=1e-9)


def test_two_dimensions_against_brute_force(draw, brute):
    a, b = draw.blob(7, shape=(19, 23)), draw.blob(8, shape=(19, 23))
    found, expected = scores(a, b, (1.5, 0.5)), brute.distances(a, b, (1.5, 0.5))
    for name in ("assd", "rmsd", "hd95", "hd"):
        assert found[name] == pytest.approx(expected[name], rel=1e-9), name


def test_surface_dice_weighs_by_area(draw):
    """A 1-voxel shift of a long box: within 1 mm everything, within 0.5 mm only the four unmoved faces' area."""
    a, b = draw.box((4, 8), (4, 8), (4, 34)), draw.box((4, 8), (4, 8), (5, 35))
    found = scores(a, b, (1.0, 1.0, 1.0), tolerances=(0.5, 1.0))
    assert found["nsd_1"] == 1
    # per mask: 5 x 5 corner points of each end face move, 25 of 31 x 5 x 5 - 29 x 3 x 3; areas differ, so bounds only
    assert 0.85 < found["nsd_0.5"] < 0.95


@pytest.mark.parametrize(("seed_a", "seed_b", "spacing"), BLOBS[:2])
def test_symmetry(draw, seed_a, seed_b, spacing):
    a, b = draw.blob(seed_a), draw.blob(seed_b)
    forth, back = scores(a, b, spacing), scores(b, a, spacing)
    for name in ("dice", "jaccard", "assd", "rmsd", "hd95", "hd", "mcc", "accuracy", "nsd_2"):
        assert forth[name] == pytest.approx(back[name], rel=1e-12), name
    assert forth["precision"] == back["recall"]
    assert forth["specificity"] == back["npv"]


def test_distances_scale_with_the_spacing(draw):
    a, b = draw.blob(0), draw.blob(1)
    one = scores(a, b, (2.5, 0.8, 0.8), tolerances=(2.0,))
    three = scores(a, b, (7.5, 2.4, 2.4), tolerances=(6.0,))
    for name in ("assd", "rmsd", "hd95", "hd"):
        assert three[name] == pytest.approx(3 * one[name], rel=1e-12), name
    assert three["nsd_6"] == pytest.approx(one["nsd_2"], rel=1e-12)
    assert three["dice"] == one["dice"]


def test_translation_changes_nothing(draw):
    a, b = np.pad(draw.blob(0), 9), np.pad(draw.blob(1), 9)
    here = scores(a, b)
    there = scores(np.roll(a, (5, -7, 8), (0, 1, 2)), np.roll(b, (5, -7, 8), (0, 1, 2)))
    for name, value in here.items():
        assert there[name] == pytest.approx(value, rel=1e-12), name


def test_axes_may_be_exchanged(draw):
    a, b = draw.blob(0), draw.blob(1)
    here, there = scores(a, b, (2.5, 0.8, 1.1)), scores(a.transpose(2, 0, 1), b.transpose(2, 0, 1), (1.1, 2.5, 0.8))
    for name, value in here.items():
        assert there[name] == pytest.approx(value, rel=1e-9), name


def test_identity(draw):
    a = draw.blob(3)
    found = scores(a, a)
    perfect = ("dice", "jaccard", "accuracy", "precision", "recall", "specificity", "npv", "f1", "mcc", "nsd_2")
    assert [found[name] for name in perfect] == pytest.approx([1] * len(perfect))
    assert [found[name] for name in ("voe", "rvd", "assd", "rmsd", "hd95", "hd")] == [0] * 6


@pytest.mark.parametrize("mode", ["default", "lits"])
def test_nothing_in_either_mask_is_no_score(draw, mode):
    empty = np.zeros((5, 6, 7), dtype=bool)
    found = scores(empty, empty, mode=mode)
    assert {name for name, value in found.items() if not math.isnan(value)} == {"volume_predicted", "volume_reference"}


def test_missed_and_false_alarm(draw):
    something, nothing = draw.box((3, 5), (3, 5), (3, 5)), np.zeros((20, 30, 40), dtype=bool)
    missed, false_alarm = scores(nothing, something), scores(something, nothing)
    for found in (missed, false_alarm):
        assert found["dice"] == found["jaccard"] == found["nsd_2"] == found["mcc"] == 0
        assert [found[name] for name in ("assd", "rmsd", "hd95", "hd")] == [math.inf] * 4
    assert missed["rvd"] == -1
    assert missed["recall"] == 0
    assert math.isnan(missed["precision"])
    assert false_alarm["rvd"] == math.inf
    assert false_alarm["precision"] == 0
    assert math.isnan(false_alarm["recall"])


def test_worst_distance_may_be_the_diagonal(draw):
    something, nothing = draw.box((3, 5), (3, 5), (3, 5)), np.zeros((20, 30, 40), dtype=bool)
    diagonal = math.dist((0, 0, 0), (20 * 5.0, 30 * 0.8, 40 * 0.8))
    assert scores(nothing, something, worst="diagonal")["hd95"] == pytest.approx(diagonal)


def test_mcc_of_large_counts_does_not_overflow():
    from nnunet_livseg.evaluation.overlap import Confusion, overlap_scores

    half = 10**11
    assert overlap_scores(Confusion(half, 0, 0, half))["mcc"] == pytest.approx(1.0)


def test_a_mask_at_the_border_has_a_surface_there():
    """Everything predicted in an image of 4 slices: the outermost voxels are surface, as in MedPy and MONAI."""
    full, core = np.ones((4, 5, 6), dtype=bool), np.zeros((4, 5, 6), dtype=bool)
    core[1:3, 1:4, 1:5] = True
    assert scores(full, core, (1.0, 1.0, 1.0))["hd"] == pytest.approx(math.sqrt(3))


def test_every_metric_says_what_it_is():
    for mode in ("default", "lits"):
        for name, row in metric_table(Options(mode=mode)).items():
            assert row.name == name
            assert len(row.definition) > 10
            assert "{" not in row.definition
            assert row.better in ("higher", "lower", "zero", "")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"mode": "kits"}, "mode is 'kits', but must be one of 'default', 'lits'"),
        ({"surface_connectivity": 4}, "surface_connectivity is 4"),
        ({"hd95": "min"}, "hd95 is 'min'"),
        ({"tolerances": (-1,)}, "must not be negative, but are"),
        ({"diameter_edges": (20, 10)}, "must increase, but are"),
        ({"mode": "lits", "surface_connectivity": 6}, "2017 scorer"),
    ],
)
def test_wrong_options_are_explained(choice, message):
    with pytest.raises(UserError, match=message):
        Options(**choice)


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((5, 6, 8), (1, 1, 1), "the grids differ"),
        ((5, 6, 7), (1, 1), "one positive"),
        ((5, 6, 7), (1, 0, 1), "one positive"),
    ],
)
def test_masks_that_do_not_fit_are_refused(shape, spacing, message):
    with pytest.raises(ValueError, match=message):
        MaskPair.of(np.ones((5, 6, 7), dtype=bool), np.ones(shape, dtype=bool), spacing)
