"""Axial slices one by one, as MFCNet reports them."""

import math

import numpy as np
import pytest

from nnunet_livseg.core.labels import Structures
from nnunet_livseg.evaluation.case_evaluation import evaluate_case
from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.slices import slice_scores, summarize_slices
from nnunet_livseg.evaluation.summary import summarize


@pytest.fixture
def pair():
    """Three slices with tumor: found, shifted by 2 pixels, missed; one slice with a false alarm."""
    predicted, reference = np.zeros((6, 20, 20), dtype=bool), np.zeros((6, 20, 20), dtype=bool)
    reference[1:4, 5:9, 5:9] = True
    predicted[1, 5:9, 5:9] = predicted[2, 5:9, 7:11] = predicted[5, 5:9, 5:9] = True
    return MaskPair.of(predicted, reference, (5.0, 0.7, 0.7))


def test_slices_with_reference_count_in_pixels(pair):
    found = slice_scores(pair, 6)
    assert found["dice"] == [1.0, 0.5, 0.0]
    assert found["hd"] == [0.0, 2.0, math.inf]
    assert found["specificity"] == pytest.approx([1, 1 - 8 / 384, 1])
    assert found["precision"][:2] == [1.0, 0.5]
    assert math.isnan(found["precision"][2])


def test_f1_is_of_the_mean_precision_and_recall(pair):
    found = summarize_slices([slice_scores(pair, 6)])
    assert found["n_slices"] == 3
    assert found["f1"] == pytest.approx(2 * 0.75 * 0.5 / (0.75 + 0.5))
    assert (found["hd"]["mean"], found["hd"]["n_infinite"]) == (1.0, 1)


def test_slices_come_through_a_case_and_its_summary(pair):
    labels = [np.pad(mask.astype(np.uint8) * 2, 3) for mask in (pair.predicted, pair.reference)]
    options = Options(slices=True)
    case = evaluate_case(*labels, spacing_mm=(5.0, 0.7, 0.7), options=options)
    assert case.slices["tumor"]["dice"] == [1.0, 0.5, 0.0]
    assert summarize([case], options)["slices"]["tumor"]["dice"]["mean"] == 0.5
    assert evaluate_case(*labels, spacing_mm=(5.0, 0.7, 0.7)).slices == {}


def test_ignored_pixels_count_neither_way():
    reference, predicted = np.zeros((4, 10, 10), np.uint8), np.zeros((4, 10, 10), np.uint8)
    reference[1:3, 2:5, 2:5] = 2
    predicted[1:3, 2:5, 2:6] = 2  # 3 pixels too many per slice
    reference[2, 5:, :] = 9  # half of one slice is ignored
    predicted[2, 6:8, 2:8] = 2
    structures = Structures({"tumor": (2,)}, frozenset({0, 2}), ignore=9)
    case = evaluate_case(predicted, reference, structures=structures, options=Options(slices=True))
    assert case.slices["tumor"]["specificity"] == pytest.approx([1 - 3 / 91, 1 - 3 / 41])
