"""From result folders of nnU-Net to one table: means over seeds, the noise floor, tests against the baseline."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest

from nnunet_livseg.evaluation.statistics import holm, paired_tests
from nnunet_livseg.report.page import PALETTE
from nnunet_livseg.study.job_state import checkpoints_of, note_prediction
from nnunet_livseg.study.study_file import read_study
from nnunet_livseg.study.study_jobs import plan_study
from nnunet_livseg.study.study_report import write_study_report
from nnunet_livseg.study.training_logs import read_logs

from .conftest import DATASET, dataset_of, finish, write

CASES = 7  # with ties, scipy tries all 2^n signs
STUDY = """
datasets = [901]
rows = ["dpcnet", "dpcnet-unet", "sfan"]
baseline = "dpcnet-unet"
folds = [0, 1]
seeds = [0, 1]
"""
WORSE = {"dpcnet": 0, "dpcnet-unet": 3, "sfan": 4}  # voxels of each slice that a method misses


def reference(case):
    labels = np.zeros((6, 16, 16))
    labels[1:5, 2:14, 2:14] = 1
    labels[2:4, 4 : 8 + case % 3, 4:9] = 2
    return labels


@pytest.fixture
def plan(place):
    """A finished study: methods miss part of the liver, seed 1 one voxel more in every slice."""
    raw = place.folder / "nnUNet_raw" / DATASET
    for case in range(CASES):
        write(raw / "labelsTr" / f"case_{case:02d}.nii.gz", reference(case))
    dataset_of(place, CASES)
    plan = plan_study(read_study(place.study(STUDY)))
    for training in plan.trainings:
        fold, half = training.folder, int(training.fold)
        for case in range(half, CASES, 2):
            labels = reference(case)
            missed = WORSE[training.method.row] + training.seed + case % 2
            labels[:, 13, 2 : 2 + missed] = 0
            write(fold / "validation" / f"case_{case:02d}.nii.gz", labels)
        finish(training)
        shutil.copyfile(raw / "dataset.json", fold.parent / "dataset.json")
        (fold / "training_log_2026_1_1_00_00_00.txt").write_text(LOG)
    return plan


LOG = """
2026-01-01 00:00:01.0:
2026-01-01 00:00:01.0: Epoch 0
2026-01-01 00:00:02.0: train_loss -0.1
2026-01-01 00:00:02.0: val_loss -0.2
2026-01-01 00:00:02.0: Pseudo dice [np.float32(0.5), np.float32(nan)]
2026-01-01 00:00:02.0: Epoch time: 1800.0 s
2026-01-01 00:00:03.0: Epoch 1
2026-01-01 00:00:04.0: val_loss -0.3
2026-01-01 00:00:04.0: Pseudo dice [np.float32(0.7), np.float32(0.5)]
2026-01-01 00:00:04.0: Epoch time: 1800.0 s
"""


def liver_dice(method, seed, case):
    truth = reference(case) > 0
    predicted = truth.copy()
    predicted[:, 13, 2 : 2 + WORSE[method] + seed + case % 2] = 0
    return 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())


def test_the_table_is_what_its_formulas_say(plan):
    written = write_study_report(plan, latex=True)
    assert written.missing == 0
    table = list(csv.DictReader((plan.study.folder / f"scores_{DATASET}.csv").read_text().splitlines()))
    rows = {row["method"]: row for row in table if (row["structure"], row["metric"]) == ("liver", "dice")}
    values = {
        name: np.array([np.mean([liver_dice(name, seed, case) for seed in (0, 1)]) for case in range(CASES)])
        for name in WORSE
    }
    tests = {name: paired_tests(values[name], values["dpcnet-unet"]) for name in ("dpcnet", "sfan")}
    adjusted = dict(zip(tests, holm([test["p_wilcoxon"] for test in tests.values()]), strict=True))
    floor = max(abs(np.mean([liver_dice(name, 0, c) - liver_dice(name, 1, c) for c in range(CASES)])) for name in WORSE)
    for name, row in rows.items():
        assert float(row["mean"]) == pytest.approx(values[name].mean())
        if name != "dpcnet-unet":
            assert float(row["difference"]) == pytest.approx(tests[name]["difference"])
            assert float(row["p_holm"]) == pytest.approx(adjusted[name])
            assert float(row["noise_floor"]) == pytest.approx(floor)
    assert rows["dpcnet-unet"]["p_holm"] == ""
    # one voxel more is what two seeds differ by: as much as sfan from the baseline, and less than dpcnet
    assert rows["dpcnet"]["verdict"] == "significant"
    assert "**+" in written.text.splitlines()[4] and "Noise floor from seeds: the liver Dice" in written.text
    assert " 1.0 |" in written.text  # hours per fold, from the logs
    _the_page_the_figures_and_latex_show_it(plan.study.folder)


def _the_page_the_figures_and_latex_show_it(out):
    page = (out / "report.html").read_text()
    assert page.count("<svg") > 3 and "Learning curves" in page and "against dpcnet-unet" in page
    tex = (out / f"table_{DATASET}.tex").read_text()
    assert tex.startswith(r"\begin{tabular}{lr") and r"liver Dice [\%]" in tex and tex.count(r"\\") == 4
    assert r"\textbf{$+$" in tex
    curves = (out / "figures" / f"{DATASET}_learning_curves.svg").read_text()
    assert curves.startswith("<svg ") and PALETTE[1] in curves  # colors of its own: no page gives it any
    assert not [path.name for path in (out / "figures").iterdir() if "var(" in path.read_text()]


def predicted_test_cases(place, plan):
    """All predictions of two test cases; each row misses as much as in the validation cases."""
    raw = place.folder / "nnUNet_raw" / DATASET
    for case in range(2):
        write(raw / "labelsTs" / f"new_{case}.nii.gz", reference(case))
        write(raw / "imagesTs" / f"new_{case}_0000.nii.gz", reference(case))
    plan = plan_study(replace(plan.study, test=True))
    for prediction in plan.predictions.values():
        training = prediction.trainings[0]
        for case in range(2):
            labels = reference(case)
            labels[:, 13, 2 : 2 + WORSE[training.method.row] + training.seed + case % 2] = 0
            write(prediction.folder / f"new_{case}.nii.gz", labels)
        shutil.copyfile(raw / "dataset.json", prediction.folder / "dataset.json")
        note_prediction(prediction, checkpoints_of(prediction), finished=True)
    return plan


def test_test_cases_have_a_table_of_their_own(place, plan):
    write_study_report(plan)
    before = (plan.study.folder / f"scores_{DATASET}.csv").read_text()
    plan = predicted_test_cases(place, plan)
    written = write_study_report(plan, latex=True)
    assert written.missing == 0 and f"## {DATASET}, test cases" in written.text
    assert (plan.study.folder / f"scores_{DATASET}.csv").read_text() == before
    table = csv.DictReader((plan.study.folder / f"scores_{DATASET}_test.csv").read_text().splitlines())
    rows = {row["method"]: row for row in table if (row["structure"], row["metric"]) == ("liver", "dice")}
    for name, row in rows.items():
        expected = np.mean([liver_dice(name, seed, case) for seed in (0, 1) for case in range(2)])
        assert row["cases"] == "2" and float(row["mean"]) == pytest.approx(expected)
    assert set(rows) == set(WORSE)
    assert (plan.study.folder / f"table_{DATASET}_test.tex").is_file()
    assert (plan.study.folder / "report.html").read_text().count("Learning curves</") == 1


def test_test_cases_without_references_are_predicted_and_nothing_more(place, plan):
    plan = predicted_test_cases(place, plan)
    (next(iter(plan.predictions.values())).folder / "new_0.nii.gz").unlink()
    shutil.rmtree(place.folder / "nnUNet_raw" / DATASET / "labelsTs")
    written = write_study_report(plan)
    assert "has no labelsTs" in written.text and not (plan.study.folder / f"scores_{DATASET}_test.csv").exists()
    assert written.missing == 1 and "/test_folds_0_1: " in written.text


def test_what_is_missing_is_said_and_the_rest_is_shown(plan):
    for training in plan.trainings:
        if training.method.row == "dpcnet-unet" or (training.method.row, training.seed) == ("sfan", 1):
            (training.folder / "checkpoint_final.pth").unlink()
    written = write_study_report(plan)
    assert written.missing == 6 and f"- {plan.trainings[1].name}: " in written.text
    assert "The baseline dpcnet-unet has no results yet" in written.text and "| sfan | 1 |" in written.text


def test_hours_and_curves_come_from_all_logs_of_a_fold(plan):
    fold = plan.trainings[0].folder
    log = read_logs(fold)
    assert log.dice == {0: 0.5, 1: pytest.approx(0.6)} and log.loss == {0: -0.2, 1: -0.3}
    (fold / "training_log_2026_1_2_00_00_00.txt").write_text(LOG.replace("0.7", "0.9"))
    log = read_logs(fold)
    assert log.dice[1] == pytest.approx(0.7) and log.seconds == 2 * 3600
