"""The 2017 LiTS scorer: its own values on box phantoms, and each of its oddities."""

import json
import math
from pathlib import Path

import pytest

from nnunet_livseg.evaluation.case_evaluation import evaluate_case
from nnunet_livseg.evaluation.lesions import LesionPair
from nnunet_livseg.evaluation.lits_scorer import (
    burden_difference,
    lits_detected,
    lits_detection,
    lits_scores,
)
from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.options import Options

GOLDEN = json.loads(Path(__file__).with_name("lits_scorer.json").read_text())["cases"]
OURS = {"msd": "hd"}  # the scorer's name for the maximum


def pairs(predicted, reference, spacing):
    return tuple(
        MaskPair.of(p, r, spacing) for p, r in ((predicted > 0, reference > 0), (predicted == 2, reference == 2))
    )


@pytest.fixture(params=GOLDEN, ids=lambda case: case["name"])
def golden(request, draw):
    case, spec = request.param, request.param["spec"]
    reference = draw.liver_scan(case["shape"], liver=spec["liver_ref_box"], lesions=spec["lesion_ref_boxes"])
    predicted = draw.liver_scan(case["shape"], liver=spec["liver_pred_box"], lesions=spec["lesion_pred_boxes"])
    return case, *pairs(predicted, reference, case["spacing"])


def test_golden_detection(golden):
    case, _, tumor = golden
    lesions = LesionPair(tumor)
    assert (lesions.n_reference, lesions.n_predicted) == (case["n_ref"], case["n_pred"])
    assert [lits_detected(lesions, t) for t in (0, 0.5)] == [case["num_detected_0"], case["num_detected_0.5"]]


def test_golden_scores(golden):
    case, liver, tumor = golden
    for name, (value,) in case["liver_scores"].items():
        assert lits_scores(liver)[OURS.get(name, name)] == pytest.approx(value, rel=1e-9), name
    assert lits_scores(liver)["dice"] == pytest.approx(case["liver_dice_case"], rel=1e-9)
    assert lits_scores(tumor)["dice"] == pytest.approx(case["lesion_dice_case"], rel=1e-9)
    assert burden_difference(tumor, liver) == pytest.approx(case["tumor_burden_diff"], rel=1e-9)


def test_golden_values_through_evaluate_case(golden, draw):
    case, *_ = golden
    spec = case["spec"]
    reference = draw.liver_scan(case["shape"], liver=spec["liver_ref_box"], lesions=spec["lesion_ref_boxes"])
    predicted = draw.liver_scan(case["shape"], liver=spec["liver_pred_box"], lesions=spec["lesion_pred_boxes"])
    found = evaluate_case(predicted, reference, spacing_mm=tuple(case["spacing"]), options=Options(mode="lits"))
    for name, (value,) in case["liver_scores"].items():
        assert found.structures["liver"][OURS.get(name, name)] == pytest.approx(value, rel=1e-9), name
    assert found.structures["tumor"]["dice"] == pytest.approx(case["lesion_dice_case"], rel=1e-9)
    assert found.detection["lits_0"]["found"] == case["num_detected_0"]
    assert found.detection["lits_50"]["found"] == case["num_detected_0.5"]
    assert -found.burden["burden_difference"] == pytest.approx(case["tumor_burden_diff"], rel=1e-9)
    for name, values in (case["lesion_scores_detected"] or {}).items():
        assert [row[OURS.get(name, name)] for row in found.lesions] == pytest.approx(values, rel=1e-9, abs=1e-12)


def test_one_prediction_over_two_references_below_the_threshold_is_minus_one(draw):
    reference = draw.box((2, 4), (2, 4), (2, 4)) | draw.box((2, 4), (2, 4), (36, 38))
    lesions = LesionPair(MaskPair.of(draw.box((2, 4), (2, 4), (2, 38)), reference, (1, 1, 1)))
    assert lits_detected(lesions, 0.5) == -1
    assert lits_detection(lesions)["lits_50"] == {"found": -1, "missed": 3, "true": -1, "false": 2}


def test_a_good_merge_is_one_hit_and_one_miss(draw):
    reference = draw.box((2, 6), (2, 6), (2, 10)) | draw.box((2, 6), (2, 6), (11, 20))
    lesions = LesionPair(MaskPair.of(draw.box((2, 6), (2, 6), (2, 20)), reference, (1, 1, 1)))
    assert lits_detection(lesions)["lits_50"] == {"found": 1, "missed": 1, "true": 1, "false": 0}


def test_no_lesion_in_the_reference_does_not_crash(draw):
    predicted = draw.liver_scan(lesions=[((4, 6), (5, 8), (5, 8))])
    liver, tumor = pairs(predicted, draw.liver_scan(), (2.5, 0.8, 0.8))
    assert lits_scores(tumor)["dice"] == 0
    assert lits_detection(LesionPair(tumor))["lits_0"] == {"found": 0, "missed": 0, "true": 0, "false": 1}
    assert burden_difference(tumor, liver) < 0


def test_both_empty_is_one(draw):
    _, tumor = pairs(draw.liver_scan(), draw.liver_scan(), (2.5, 0.8, 0.8))
    assert lits_scores(tumor)["dice"] == 1
    assert math.isnan(lits_scores(tumor)["assd"])


def test_volume_difference_has_its_arguments_swapped(draw):
    twice, once = draw.box((0, 4), (0, 4), (0, 4)), draw.box((0, 2), (0, 4), (0, 4))
    assert lits_scores(MaskPair.of(twice, once, (1, 1, 1)))["rvd"] == -0.5
    assert lits_scores(MaskPair.of(once, twice, (1, 1, 1)))["rvd"] == 1.0
