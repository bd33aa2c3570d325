"""Kept only where it helps: cross-validations whose answer is known."""

import itertools
import json
import math

import numpy as np
import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.evaluation.statistics import paired_tests
from nnunet_livseg.postprocessing import LargestLiver, SmallestLesion, TumorInLiver
from nnunet_livseg.postprocessing.step_scores import CaseScore, gain_interval, summarize
from nnunet_livseg.postprocessing.tuning import VOLUMES_MM3, tune

SHAPE = (6, 16, 30)
PIECE = np.s_[2:4, 2:6, 24:27]  # away from the liver
LESION = np.s_[2:5, 5:9, 6:10]


def scan(*tumors, piece=0):
    """A liver with tumors, and a separate piece of value ``piece``."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:5, 2:14, 2:18] = 1
    labels[PIECE] = piece
    for where in tumors:
        labels[where] = 2
    return labels


def verdicts(tuning, step):
    return [trial.verdict for trial in tuning.trials if isinstance(trial.step, step)]


def test_a_false_piece_of_liver_in_every_case_is_removed(training):
    tuning = tune(training([(scan(LESION, piece=1), scan(LESION))] * 4))
    assert tuning.steps == (LargestLiver(),)
    trial = tuning.trials[0]
    n_piece, n_liver = 24, 4 * 12 * 16
    assert trial.before.dice == pytest.approx({"liver": 2 * n_liver / (2 * n_liver + n_piece), "tumor": 1.0})
    assert tuning.after.dice == {"liver": 1.0, "tumor": 1.0}
    assert trial.gain == pytest.approx((1 - trial.before.dice["liver"]) / 2)  # mean over two structures
    assert trial.gain_ci95 == pytest.approx((trial.gain, trial.gain))
    assert tuning.held_out.gain == pytest.approx(trial.gain)


def test_a_piece_of_liver_that_is_there_stays(training):
    tuning = tune(training([(scan(LESION, piece=1), scan(LESION, piece=1))] * 3))
    assert tuning.steps == ()
    assert verdicts(tuning, LargestLiver) == ["Dice of liver falls"]


def test_what_changes_nothing_is_not_kept(training):
    tuning = tune(training([(scan(LESION), scan(LESION))] * 3))
    assert tuning.steps == () and {trial.verdict for trial in tuning.trials} == {"no gain in mean Dice"}
    assert tuning.before == tuning.after


def test_a_tie_is_not_kept(training):
    """One case gains by what the other loses, to the last digit."""
    one, other = (scan(piece=1), scan()), (scan(piece=1), scan(piece=1))
    tuning = tune(training([one, other]))
    assert verdicts(tuning, LargestLiver) == ["no gain in mean Dice"]
    dice = [trial.after.dice["liver"] for trial in tuning.trials[:1]] + [tuning.before.dice["liver"]]
    assert dice[0] == pytest.approx(dice[1], abs=1e-12) and dice[0] < 1


def test_a_gain_for_the_liver_does_not_pay_for_a_loss_of_tumors(training):
    """A false piece in two cases; in the third it is a tumor that was rightly found."""
    pairs = [(scan(LESION, piece=1), scan(LESION))] * 2 + [(scan(LESION, piece=2), scan(LESION, piece=2))]
    tuning = tune(training(pairs))
    assert verdicts(tuning, LargestLiver) == ["Dice of tumor falls"]


def test_a_step_comes_on_top_of_those_kept_before(training):
    """A tumor outside goes with the largest liver, so tumor-in-liver brings nothing more."""
    tuning = tune(training([(scan(LESION, piece=2), scan(LESION))] * 3))
    assert tuning.steps == (LargestLiver(),)
    assert set(verdicts(tuning, TumorInLiver)) == {"no gain in mean Dice"}


def test_a_false_tumor_in_a_true_second_piece_is_not_worth_a_hole_in_the_liver(training):
    """The piece is liver (so it must stay), the tumor in it is false."""
    predicted = scan(LESION, piece=1)
    predicted[2:4, 3:5, 24:26] = 2
    tuning = tune(training([(predicted, scan(LESION, piece=1))] * 3))
    assert verdicts(tuning, LargestLiver) == ["Dice of liver falls"]
    assert verdicts(tuning, TumorInLiver)[0] == "Dice of liver falls"  # its voxels become background


def speck(*corner):
    return tuple(slice(c, c + 1) for c in corner)


SPECKS = [speck(2, 3, 4), speck(3, 11, 15), speck(2, 11, 4)]  # 8 mm3 each: voxels of 4 x 2 x 1 mm


def test_false_specks_go_by_the_mildest_volume_that_does_it(training):
    tuning = tune(training([(scan(LESION, *SPECKS), scan(LESION))] * 4))
    assert tuning.steps == (SmallestLesion(10.0),)
    assert tuning.before.false_lesions_per_case == 3 and tuning.after.false_lesions_per_case == 0
    assert tuning.before.lesion_f1 == pytest.approx(2 / 5) and tuning.after.lesion_f1 == 1.0
    known = dict(zip([trial.step for trial in tuning.trials], [trial.verdict for trial in tuning.trials], strict=True))
    assert known[SmallestLesion(100.0)] == "another number helps as much or more"
    # the lesion of 384 mm3 and three specks of 8 mm3 in each case: all quantiles are 8
    tried = [trial.step.volume_mm3 for trial in tuning.trials if isinstance(trial.step, SmallestLesion)]
    assert tried == [8.0, *VOLUMES_MM3]


def test_volumes_can_be_named(training):
    tuning = tune(training([(scan(LESION, *SPECKS), scan(LESION))] * 2), volumes_mm3=[500, 9, 9])
    assert [trial.step for trial in tuning.trials[-2:]] == [SmallestLesion(9.0), SmallestLesion(500.0)]
    assert tuning.steps == (SmallestLesion(9.0),)


def test_true_small_lesions_are_not_given_for_a_silent_tumor_free_case(training):
    """Mean Dice rises, as the false alarm's zero leaves the mean; but most lesions would be missed."""
    found = (scan(LESION, *SPECKS), scan(LESION, *SPECKS))
    tuning = tune(training([found, found, (scan(speck(3, 7, 9)), scan())]))
    assert tuning.steps == ()
    trial = next(trial for trial in tuning.trials if trial.step == SmallestLesion(10.0))
    assert trial.after.mean_dice > trial.before.mean_dice
    assert trial.verdict == "lesion F1 falls"


def test_false_alarms_in_tumor_free_cases_are_counted(training):
    pairs = [(scan(LESION), scan(LESION))] * 2 + [(scan(SPECKS[0]), scan()), (scan(), scan())]
    tuning = tune(training(pairs))
    assert tuning.steps == (SmallestLesion(10.0),)
    assert (tuning.before.tumor_free_cases, tuning.before.false_alarms, tuning.after.false_alarms) == (2, 1, 0)
    assert tuning.before.dice["tumor"] == pytest.approx(2 / 3) and tuning.after.dice["tumor"] == 1.0
    assert tuning.before.mean_dice == pytest.approx((1 + 2 / 3) / 2)  # of structures, not of all values


def test_only_tumor_free_cases_gain_nothing_that_nnunet_would_count(training):
    tuning = tune(training([(scan(), scan())] * 2))
    assert tuning.steps == () and math.isnan(tuning.before.dice["tumor"])


def test_left_out_folds_tell_when_a_gain_is_one_folds_alone(training):
    helped, harmed = (scan(piece=1), scan()), (scan(piece=1), scan(piece=1))
    more = scan(piece=1)
    more[0, :12, 21:29] = 1  # joined to the piece by no voxel
    more[4:6, :, 21:29] = 1
    tuning = tune(training([(more, scan()), harmed, (more, scan()), harmed, helped]))
    assert tuning.steps == (LargestLiver(),) and tuning.after.mean_dice > tuning.before.mean_dice
    assert tuning.held_out.steps == {"0": (), "1": (LargestLiver(),)}
    loss = 1 - tuning_dice(harmed)  # of the two harmed cases among five; the others stay as predicted
    assert tuning.held_out.gain == pytest.approx(-2 * loss / 5)


def tuning_dice(pair):
    """Dice of the liver after the smaller piece is gone."""
    reference = pair[1] > 0
    predicted = reference.copy()
    predicted[PIECE] = False
    return 2 * (predicted & reference).sum() / (predicted.sum() + reference.sum())


def test_one_fold_alone_has_no_left_out_estimate(training):
    tuning = tune(training([(scan(piece=1), scan())] * 3), folds=["0"])
    assert tuning.folds == ["0"] and tuning.n_cases == 2 and tuning.held_out is None


def test_only_liver_steps_are_tried_without_a_label_for_tumors(training):
    tuning = tune(training([(scan(piece=1), scan())] * 2, labels={"background": 0, "liver": 1}))
    assert [trial.step for trial in tuning.trials] == [LargestLiver()]
    assert tuning.steps == (LargestLiver(),) and tuning.before.tumor_free_cases is None


def test_only_the_smallest_lesion_is_tried_without_a_label_for_the_liver(training):
    pairs = [((scan(LESION, SPECKS[0]) == 2).astype(np.uint8), (scan(LESION) == 2).astype(np.uint8))] * 2
    tuning = tune(training(pairs, labels={"background": 0, "tumor": 1}))
    assert tuning.steps == (SmallestLesion(10.0),)
    assert {type(trial.step) for trial in tuning.trials} == {SmallestLesion}


def test_images_in_two_dimensions_are_tuned_too(training):
    pairs = [(scan(LESION, *SPECKS, piece=1)[2], scan(LESION)[2])] * 2
    assert tune(training(pairs, ending=".png")).steps == (LargestLiver(), SmallestLesion(10.0))


def test_dice_is_that_of_nnunets_own_evaluation(training, tmp_path):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    moved = scan(np.s_[2:5, 6:10, 6:11], SPECKS[0])
    folder = training([(moved, scan(LESION)), (scan(SPECKS[0]), scan()), (scan(), scan())], n_folds=1)
    found = []
    for path in sorted((folder / "fold_0" / "validation").iterdir()):
        reference = next((tmp_path / "raw").glob(f"*/labelsTr/{path.name}"))
        found.append(compute_metrics(str(reference), str(path), SimpleITKIO(), [(1, 2), 2])["metrics"])
    means = [float(np.nanmean([case[region]["Dice"] for case in found])) for region in ((1, 2), 2)]
    assert list(tune(folder).before.dice.values()) == pytest.approx(means)


def score(liver, tumor):
    return CaseScore({"liver": liver, "tumor": tumor}, {"found": 1, "missed": 0, "true": 1, "false": 0})


def test_interval_is_that_of_paired_differences_where_all_is_defined():
    rng = np.random.default_rng(0)
    before = [score(*row) for row in rng.random((12, 2))]
    after = [score(*row) for row in rng.random((12, 2))]
    means = [np.array([np.mean(list(s.dice.values())) for s in scores]) for scores in (after, before)]
    assert gain_interval(after, before) == pytest.approx(paired_tests(*means)["ci95"])


def test_interval_treats_undefined_cases_as_the_means_do():
    """All 27 ways to draw three cases."""
    before = [score(0.9, 0.0), score(0.8, 0.6), score(0.7, 0.5)]
    after = [score(0.9, math.nan), score(0.85, 0.7), score(0.7, 0.4)]
    gains = []
    for drawn in itertools.product(range(3), repeat=3):
        ends = [summarize([scores[i] for i in drawn]).mean_dice for scores in (after, before)]
        gains.append(ends[0] - ends[1])
    expected = np.percentile(gains, [2.5, 97.5], method="inverted_cdf")
    assert gain_interval(after, before) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(
    ("functions", "named"), [(["remove_all_but_largest_component_from_segmentation"], True), ([], False)]
)
def test_nnunets_own_postprocessing_is_named_with_the_order(training, functions, named):
    folder = training([(scan(), scan())] * 2)
    own = folder / "crossval_results_folds_0_1" / "postprocessing.json"
    own.parent.mkdir()
    own.write_text(json.dumps({"postprocessing_fns": functions}))
    notes = " ".join(tune(folder).notes)
    assert ("use one of them. If you use both, apply nnU-Net's first" in notes) == named


@pytest.mark.parametrize("content", ['{"postprocessing_fns": ', "[]"])
def test_a_damaged_postprocessing_of_nnunet_is_named_and_costs_nothing(training, content):
    folder = training([(scan(), scan())] * 2)
    own = folder / "crossval_results_folds_0_1" / "postprocessing.json"
    own.parent.mkdir()
    own.write_text(content)
    [note] = [note for note in tune(folder).notes if str(own) in note]
    assert "is damaged" in note and note.endswith("nnUNetv2_determine_postprocessing writes it again.")


def test_references_are_taken_from_the_preprocessed_data_too(training, tmp_path):
    folder = training([(scan(piece=1), scan())] * 2)
    (tmp_path / "preprocessed").mkdir()
    (tmp_path / "raw" / "Dataset901_Drawn").rename(tmp_path / "preprocessed" / "Dataset901_Drawn")
    labels = tmp_path / "preprocessed" / "Dataset901_Drawn" / "labelsTr"
    labels.rename(labels.with_name("gt_segmentations"))
    assert tune(folder).steps == (LargestLiver(),)


def test_cases_that_cannot_be_used_are_left_out_and_named(training, tmp_path):
    folder = training([(scan(piece=1), scan())] * 3 + [(scan()[:, :, :20], scan())])
    (tmp_path / "raw" / "Dataset901_Drawn" / "labelsTr" / "c0.nii.gz").unlink()
    tuning = tune(folder)
    assert tuning.n_cases == 2 and tuning.steps == (LargestLiver(),)
    reasons = {problem.case: problem.reason for problem in tuning.left_out}
    assert reasons["c0"] == "has a prediction, but no reference"
    assert reasons["c3"].startswith("prediction and reference are on different grids: shape")


def test_no_usable_case_is_an_error(training):
    folder = training([(scan()[:, :, :20], scan())] * 2)
    with pytest.raises(UserError, match="c0 cannot be scored: prediction and reference are on different grids"):
        tune(folder)


def test_fold_all_is_refused(training):
    folder = training([(scan(), scan())] * 2, n_folds=1)
    (folder / "fold_0").rename(folder / "fold_all")
    with pytest.raises(UserError, match="fold_all was trained on the cases that it predicts"):
        tune(folder)


def test_a_fold_that_is_not_there_is_named(training):
    folder = training([(scan(), scan())] * 2)
    with pytest.raises(UserError, match="has no validation cases of fold 4; it has those of fold 0, 1"):
        tune(folder, folds=["0", "4"])


def test_labels_without_liver_and_tumor_are_refused(training):
    folder = training([(scan(), scan())] * 2, labels={"background": 0, "spleen": 1, "kidney": 2})
    with pytest.raises(UserError, match="names neither liver nor tumor, only spleen, kidney"):
        tune(folder)


def test_a_plain_folder_is_no_training(tmp_path):
    with pytest.raises(UserError, match="has no folder fold_X/validation, so there are no predictions to tune on"):
        tune(tmp_path)
