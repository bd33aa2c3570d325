"""``livseg postprocess`` as a user calls it, on phantoms with the mistakes that networks make."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.phantom import make_case
from nnunet_livseg.data.phantom.layers import TISSUE_CODES
from nnunet_livseg.evaluation import evaluate_folder
from nnunet_livseg.postprocessing import LargestLiver, load_postprocessing
from nnunet_livseg.postprocessing.steps_file import FILE
from nnunet_livseg.postprocessing.table import gain_text


def mistaken(case, seed):
    """The truth, and false positives: the spleen's core as liver, a tumor in the left kidney, specks in the liver."""
    predicted, rng = case.label.copy(), np.random.default_rng(seed)
    spleen = np.argwhere(case.tissue == TISSUE_CODES["spleen"])
    predicted[tuple(spleen[:: len(spleen) // 40 + 1].T)] = 1
    kidney = np.argwhere(case.tissue == TISSUE_CODES["kidney cortex"])
    predicted[tuple(kidney[-30:].T)] = 2
    liver = np.argwhere(case.label == 1)
    predicted[tuple(liver[rng.choice(len(liver), 4, replace=False)].T)] = 2
    return predicted


@pytest.fixture
def phantoms(training):
    cases = [make_case(seed, (32, 56, 64), tumors=(1, 2), tumor_diameter_mm=(30, 45)) for seed in range(6)]
    return training([(mistaken(case, n), case.label) for n, case in enumerate(cases)])


def test_mistakes_go_and_scores_rise(phantoms, tmp_path, capsys):
    assert main(["postprocess", "tune", "-m", str(phantoms), "--workers", "1", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "6 validation cases of folds 0, 1" in printed
    assert "(as predicted)" in printed and "Expect less on new cases" in printed
    assert "On held-out folds, with the rules that the others choose: +0." in printed
    record = json.loads((phantoms / FILE).read_text())
    assert record["steps"][0] == {"step": "largest-liver"} and record["steps"][-1]["step"] == "smallest-lesion"
    assert record["n_cases"] == 6 and record["folds"] == ["0", "1"]
    assert "same cases" in record["caution"] and record["leave_one_fold_out"]["gain"] > 0
    before, after = record["before"], record["after"]
    assert before["lesion_f1"] < 0.6 and after["lesion_f1"] == 1.0
    assert before["false_lesions_per_case"] >= 4 and after["false_lesions_per_case"] == 0

    predictions, out = phantoms / "fold_0" / "validation", tmp_path / "out"
    arguments = ["-i", str(predictions), "-o", str(out), "-m", str(phantoms), "--workers", "1", "--quiet"]
    assert main(["postprocess", "apply", *arguments]) == 0
    assert "changed 3 of 3 label maps" in capsys.readouterr().out
    assert main(["postprocess", "apply", *arguments]) == 0
    assert "changed 3 of 3 label maps, 3 of them done before" in capsys.readouterr().out

    references = next(tmp_path.glob("raw/*/labelsTr"))
    ends = [
        evaluate_folder(folder, references, liver=(1,), tumor=(2,), out=tmp_path / name)
        for name, folder in (("e0", predictions), ("e1", out))
    ]
    for structure in ("liver", "tumor"):
        first, second = ([case.structures[structure]["dice"] for case in end.cases] for end in ends)
        assert len(first) == 3 and all(b > a for a, b in zip(first, second, strict=True)), structure


@pytest.fixture
def drawn(training):
    reference = np.zeros((4, 8, 12), np.uint8)
    reference[:, :, :6] = 1
    predicted = reference.copy()
    predicted[1, 2:4, 9] = 1
    return training([(predicted, reference)] * 4)


def fails(capsys, *arguments):
    assert main(["postprocess", *map(str, arguments)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("livseg postprocess: ") and "Traceback" not in error
    return error


def test_a_case_that_is_left_out_gives_3_and_stands_in_the_record(drawn, capsys):
    (drawn / "fold_0" / "validation" / "c0.nii.gz").write_bytes(b"nothing")
    assert main(["postprocess", "tune", "-m", str(drawn), "--workers", "1", "--quiet"]) == 3
    assert "skipped: c0: c0.nii.gz cannot be read" in capsys.readouterr().out
    assert [entry["case"] for entry in json.loads((drawn / FILE).read_text())["left_out"]] == ["c0"]
    assert load_postprocessing(drawn) == (LargestLiver(),)


def test_folds_and_volumes_can_be_chosen(drawn, capsys):
    options = ["-f", "1", "--volumes", "5", "--workers", "1", "--quiet"]
    assert main(["postprocess", "tune", "-m", str(drawn), *options]) == 0
    printed = capsys.readouterr().out
    assert "2 validation cases of fold 1" in printed and "smallest-lesion=5 " in printed
    assert "smallest-lesion=10" not in printed and "With a second fold" in printed


def test_a_gain_that_decides_is_never_printed_as_zero():
    assert gain_text(0.01234, (0.0, 0.02)) == "+0.0123 [+0.0000, +0.0200]"
    assert gain_text(2e-5, (1e-5, 3e-5)) == "+2e-05 [+1e-05, +3e-05]"
    assert gain_text(0.5, (math.nan, math.nan)) == "+0.5000"
    assert gain_text(math.nan, (math.nan, math.nan)) == "-"


def test_nothing_helps_is_an_outcome_too(training, tmp_path, capsys):
    labels = np.ones((3, 4, 5), np.uint8)
    folder = training([(labels, labels)] * 2)
    assert main(["postprocess", "tune", "-m", str(folder), "--workers", "1", "--quiet"]) == 0
    assert "kept: nothing" in capsys.readouterr().out
    assert load_postprocessing(folder) == ()
    predictions = folder / "fold_0" / "validation"
    assert (
        main(["postprocess", "apply", "-i", str(predictions), "-o", str(tmp_path / "o"), "-m", str(folder), "--quiet"])
        == 0
    )
    assert "nothing: changed 0 of 1 label maps" in capsys.readouterr().out
    copied = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "o" / "c0.nii.gz")))
    np.testing.assert_array_equal(copied, labels)


def test_labels_come_from_beside_the_predictions_or_by_hand(drawn, tmp_path, capsys):
    arguments = ["-i", drawn / "fold_0" / "validation", "-o", tmp_path / "o", "--steps", "largest-liver"]
    assert (
        main(["postprocess", "apply", *map(str, arguments), "--workers", "1", "--quiet"]) == 0
    )  # dataset.json of the training
    (drawn / "dataset.json").unlink()
    assert "Name them: --liver 1 --tumor 2" in fails(capsys, "apply", *arguments)
    arguments[3] = tmp_path / "by hand"
    assert main(["postprocess", "apply", *map(str, arguments), "--liver", "1", "--workers", "1", "--quiet"]) == 0


def test_wrong_folders_are_explained(drawn, tmp_path, capsys):
    assert "has no folder fold_X/validation" in fails(capsys, "tune", "-m", tmp_path / "nowhere")
    assert "has no folder fold_X/validation" in fails(capsys, "tune", "-m", drawn / "fold_0")
    arguments = ("-i", drawn / "fold_0" / "validation", "-o", tmp_path / "o")
    error = fails(capsys, "apply", *arguments, "-m", drawn)
    assert "postprocessing has not been tuned for this model" in error and f"tune -m {drawn}" in error
    assert "Did you mean largest-liver" in fails(capsys, "apply", *arguments, "--steps", "largest_liver")
    (tmp_path / "file").write_text("")
    error = fails(capsys, "apply", *arguments[:2], "-o", tmp_path / "file" / "o", "--steps", "largest-liver")
    assert "cannot be a folder" in error


def test_missing_references_are_explained(drawn, tmp_path, capsys):
    next(tmp_path.glob("raw/*/labelsTr")).rename(tmp_path / "elsewhere")
    assert "no references were given, and none were found" in fails(capsys, "tune", "-m", drawn)
    references = str(tmp_path / "elsewhere")
    assert main(["postprocess", "tune", "-m", str(drawn), references, "--workers", "1", "--quiet"]) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a folder that even root cannot write to")
def test_an_unwritable_model_folder_is_said_before_the_work(capsys):
    assert "no file can be made in /proc/self" in fails(capsys, "tune", "-m", Path("/proc/self"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        (
            '{"schema": "nnunet_livseg.postprocessing/9", "steps": []}',
            "has the format 'nnunet_livseg.postprocessing/9'",
        ),
        ('{"schema": "nnunet_livseg.postprocessing/1", "steps": [{"step": "x"}]}', "there is no rule 'x'"),
    ],
)
def test_a_record_that_cannot_be_understood_is_explained(tmp_path, text, message):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=message):
        load_postprocessing(tmp_path)
