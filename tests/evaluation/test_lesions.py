"""Lesion by lesion: what is one lesion, how long it is, who found whom."""

import math

import numpy as np
import pytest

from nnunet_livseg.evaluation.lesions import LesionPair, detection_counts, detection_scores
from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.imaging.diameters import axial_diameter_mm, longest_diameter_mm

ONE = (1.0, 1.0, 1.0)


def lesions(predicted, reference, neighbors=6):
    return LesionPair(MaskPair.of(predicted, reference, ONE), neighbors)


def test_corners_connect_only_with_26_neighbors(draw):
    diagonal = draw.box((2, 4), (2, 4), (2, 4)) | draw.box((4, 6), (4, 6), (4, 6))
    edge = draw.box((2, 4), (2, 4), (2, 4)) | draw.box((4, 6), (4, 6), (2, 4))
    assert [lesions(diagonal, diagonal, n).n_reference for n in (6, 18, 26)] == [2, 2, 1]
    assert [lesions(edge, edge, n).n_reference for n in (6, 18, 26)] == [2, 1, 1]


def test_iou_of_exactly_one_half_is_not_found(draw):
    found = detection_counts(lesions(draw.box((4, 8), (4, 8), (4, 6)), draw.box((4, 8), (4, 8), (4, 8))))
    assert found["group_0"] == found["matched_0"] == {"found": 1, "missed": 0, "true": 1, "false": 0}
    assert found["group_50"] == found["matched_50"] == {"found": 0, "missed": 1, "true": 0, "false": 1}


def test_a_good_merge_finds_both_in_the_corrected_count(draw):
    """Where the 2017 scorer counts one hit and one miss."""
    reference = draw.box((2, 6), (2, 6), (2, 10)) | draw.box((2, 6), (2, 6), (11, 20))
    found = detection_counts(lesions(draw.box((2, 6), (2, 6), (2, 20)), reference))
    assert found["group_50"] == {"found": 2, "missed": 0, "true": 1, "false": 0}
    assert found["matched_0"] == {"found": 1, "missed": 1, "true": 1, "false": 0}


def test_pieces_of_one_lesion_are_matched_once(draw):
    predicted = draw.box((2, 6), (2, 6), (2, 10)) | draw.box((2, 6), (2, 6), (11, 20))
    pair = lesions(predicted, draw.box((2, 6), (2, 6), (2, 20)))
    assert pair.matches == {1: 2}  # the larger piece
    assert detection_counts(pair)["matched_0"] == {"found": 1, "missed": 0, "true": 1, "false": 1}
    assert detection_counts(pair)["group_0"] == {"found": 1, "missed": 0, "true": 2, "false": 0}


def test_matching_is_the_best_sum_not_the_first_come(draw):
    """A greedy choice would take the long piece for the first reference (0.41) and find only one lesion."""
    reference, predicted = np.zeros((5, 5, 30), dtype=bool), np.zeros((5, 5, 30), dtype=bool)
    reference[2, 2, 0:10] = reference[2, 2, 11:21] = True
    predicted[2, 2, 0:2] = predicted[2, 2, 3:17] = True
    pair = lesions(predicted, reference)
    assert pair.iou(1, 2) == pytest.approx(7 / 17)
    assert pair.matches == {1: 1, 2: 2}  # 2/10 + 6/18 is more than 7/17


def test_groups_close_over_chains(draw):
    """r1-p1-r2-p2: one group, whatever the order of the numbers."""
    reference, predicted = np.zeros((5, 5, 30), dtype=bool), np.zeros((5, 5, 30), dtype=bool)
    reference[2, 2, 0:6] = reference[2, 2, 8:16] = True
    predicted[2, 2, 4:10] = predicted[2, 2, 14:20] = True
    (group,) = lesions(predicted, reference).groups
    assert (group.reference, group.predicted) == ((1, 2), (1, 2))
    assert group.iou == pytest.approx(6 / 20)


def test_false_alarms_and_misses_are_counted(draw):
    found = detection_counts(lesions(draw.box((2, 4), (2, 4), (2, 4)), draw.box((9, 12), (9, 12), (9, 12))))
    assert found["group_0"] == {"found": 0, "missed": 1, "true": 0, "false": 1}
    assert detection_scores(found["group_0"]) == {"precision": 0, "recall": 0, "f1": 0}


def test_detection_scores_are_undefined_only_without_lesions():
    nothing = detection_scores({"found": 0, "missed": 0, "true": 0, "false": 0})
    assert all(math.isnan(value) for value in nothing.values())
    scores = detection_scores({"found": 3, "missed": 1, "true": 2, "false": 2})
    assert (scores["precision"], scores["recall"], scores["f1"]) == (0.5, 0.75, pytest.approx(0.6))


@pytest.mark.parametrize("seed", range(3))
def test_longest_diameter_against_all_pairs(draw, brute, seed):
    mask, spacing = draw.blob(seed, shape=(6, 7, 8), level=0.8), (2.5, 0.8, 1.1)
    assert longest_diameter_mm(mask, spacing) == pytest.approx(brute.longest_diameter(mask, spacing), rel=1e-9)


def test_diameters_of_a_rod_and_a_plate(draw):
    rod = draw.box((3, 4), (3, 4), (5, 35))
    assert longest_diameter_mm(rod, (5.0, 0.8, 0.8)) == pytest.approx(30 * 0.8)
    standing = draw.box((3, 11), (3, 4), (5, 6))
    assert longest_diameter_mm(standing, (5.0, 0.8, 0.8)) == pytest.approx(40.0)
    assert axial_diameter_mm(standing, (5.0, 0.8, 0.8)) == pytest.approx(0.8)
    plate = draw.box((3, 4), (3, 6), (5, 9))
    assert axial_diameter_mm(plate, (5.0, 1.0, 1.0)) == pytest.approx(math.hypot(4, 2))  # face to face across


def test_diameters_in_two_dimensions_and_of_nothing(draw):
    assert longest_diameter_mm(np.zeros((4, 4, 4), dtype=bool), ONE) == 0
    assert axial_diameter_mm(np.zeros((4, 4, 4), dtype=bool), ONE) == 0
    square = np.ones((3, 3), dtype=bool)
    assert axial_diameter_mm(square, (2.0, 1.0)) == pytest.approx(math.hypot(6, 2))  # top face to bottom face


def test_the_axial_diameter_is_the_largest_of_all_slices(draw, brute):
    mask, spacing = draw.blob(5, shape=(6, 9, 10), level=0.5), (2.5, 0.8, 1.1)
    expected = max(brute.longest_diameter(plane, spacing[1:]) for plane in mask if plane.any())
    assert axial_diameter_mm(mask, spacing) == pytest.approx(expected, rel=1e-9)
