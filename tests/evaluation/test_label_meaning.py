"""Other people's predictions: labels of any values, names and files; a guess is said, and never wrong in silence."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import Structures, in_predicted_values, with_other_references
from nnunet_livseg.evaluation.folder_evaluation import evaluate_folder
from nnunet_livseg.evaluation.label_meaning import LabelValues
from nnunet_livseg.evaluation.pairing import find_inputs

LESIONS = [((3, 6), (5, 10), (5, 10)), ((6, 9), (12, 18), (12, 20))]
DICE = 2 * 75 / (75 + 75 + 144)  # of one lesion against two


def write(folder, values, lesions, draw, *, names=("c1", "c2"), ending=".nii.gz"):
    """Label maps with the values of background, liver and tumor."""
    folder.mkdir(exist_ok=True)
    for name in names:
        array = np.array(values, np.uint8)[draw.liver_scan(lesions=lesions)]
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{name}{ending}"))
    return folder


def described(folder, **labels):
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **labels}}))
    return folder


@pytest.fixture
def folders(tmp_path, draw):
    """Makes predictions with one lesion and references with two, in any values."""

    def make(predicted=(0, 1, 2), reference=(0, 1, 2), **more):
        return write(tmp_path / "pred", predicted, LESIONS[:1], draw, **more), write(
            tmp_path / "ref", reference, LESIONS, draw, **more
        )

    return make


def evaluate(pair, tmp_path, **more):
    said = []
    result = evaluate_folder(*pair, out=tmp_path / "out", on_guess=said.append, **more)
    assert result.problems == []
    scores = {name: found["dice_per_case"] for name, found in result.summary["structures"].items()}
    return scores, "".join(said)


BOTH = {"liver": 1, "tumor": pytest.approx(DICE)}


@pytest.mark.parametrize(
    ("predicted", "reference"),
    [((0, 1, 2), (0, 1, 2)), ((0, 2, 1), (0, 1, 2)), ((0, 127, 255), (0, 2, 1)), ((0, 6, 3), (0, 2, 1))],
)
def test_the_tumor_is_the_label_inside_the_other(folders, tmp_path, predicted, reference):
    scores, said = evaluate(folders(predicted, reference), tmp_path)
    assert scores == BOTH
    for side, (_, liver, tumor) in (("predictions", predicted), ("references", reference)):
        assert f"labels of the {side}: liver {liver}, tumor {tumor} (a guess for the {side}, where" in said
    *_, line = said.splitlines()
    assert line.startswith(f"to confirm or correct these labels: --liver {predicted[1]} --tumor {predicted[2]}")
    assert ("--reference-liver" in line) == (predicted != reference)
    values = {"liver": predicted[1:2], "tumor": predicted[2:], "reference_liver": reference[1:2]}
    again = evaluate(folders(predicted, reference), tmp_path, **values, reference_tumor=reference[2:])
    assert again == (BOTH, "")


def spleen(folder):
    for path in folder.iterdir():
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        array[array == 2] = 1
        array[2:10, 3:21, 25:] = 2  # touches the liver with one of its sides
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def third(folder):
    for path in folder.iterdir():
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        array[0, 0, 0] = 3
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def ct(folder):
    for path in folder.iterdir():
        array = np.arange(12 * 24 * 28).reshape(12, 24, 28) % 100 - 3
        sitk.WriteImage(sitk.GetImageFromArray(array.astype(np.int16)), str(path))


def one_label(folder):
    for path in folder.iterdir():
        sitk.WriteImage(sitk.ReadImage(str(path)) > 0, str(path))


@pytest.mark.parametrize(
    ("change", "side", "message"),
    [
        (spleen, 0, r"of the predictions .* values \(1, 2\) do not show it.*\n.*for example: --liver 1 --tumor 2"),
        (spleen, 1, r"of the references .*\n.*for example: --reference-liver 1 --reference-tumor 2"),
        (third, 0, r"values \(1, 2, 3\) do not show it"),
        (ct, 1, r"values \(-3, -2, -1, 1, 2, 3, 4, 5 and 91 more\) .*\n.*--reference-liver 1 --reference-tumor 2"),
        (one_label, 0, r"values \(1\) .*\n  Name it: --liver 1 for the liver or --tumor 1 for the tumor"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_options_to_type(folders, tmp_path, change, side, message):
    pair = folders()
    change(pair[side])
    with pytest.raises(UserError, match=message):
        evaluate(pair, tmp_path)
    assert not (tmp_path / "out").exists()
    assert find_inputs(*pair, values=LabelValues((1,), (2,))).guess == []


def test_a_value_that_was_not_seen_before_the_guess_is_refused_later(folders, tmp_path):
    pair = folders(names=("c1", "c2", "c3", "c4"))
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(pair[1] / "c4.nii.gz")))
    array[0, 0, 0] = 3
    sitk.WriteImage(sitk.GetImageFromArray(array), str(pair[1] / "c4.nii.gz"))
    (problem,) = evaluate_folder(*pair, out=tmp_path / "out").problems
    assert problem.case == "c4" and "[3]" in problem.reason


def test_the_users_values_may_differ_between_predictions_and_references(folders, tmp_path):
    given = {"liver": (4,), "tumor": (5,), "reference_liver": (1,), "reference_tumor": (2,)}
    assert evaluate(folders((0, 4, 5)), tmp_path, **given)[0] == BOTH
    pair = folders((0, 4, 4), (0, 1, 2))
    assert evaluate(pair, tmp_path, liver=(4,), reference_liver=(1,), reference_tumor=(2,))[0] == {"liver": 1}
    pair = folders((0, 0, 9), (0, 1, 2))
    assert evaluate(pair, tmp_path, tumor=(9,), reference_liver=(1,), reference_tumor=(2,))[0] == {
        "tumor": BOTH["tumor"]
    }
    with pytest.raises(UserError, match="do not share liver or tumor: tumor by given label values, but liver by"):
        evaluate(pair, tmp_path, tumor=(9,), reference_liver=(1, 2))


def test_two_dataset_jsons_may_give_other_values(folders, tmp_path):
    predictions, references = folders((0, 1, 2), (0, 3, 1))
    described(predictions, liver=1, tumor=2)
    described(references, HCC=1, vein=2, parenchyma_of_the_liver=3, liver=[1, 3])
    scores, said = evaluate((predictions, references), tmp_path)
    assert scores == BOTH
    assert "labels of the references: liver 3, tumor 1 (" in said


@pytest.mark.parametrize("side", [0, 1])
def test_a_dataset_json_that_the_other_folder_contradicts_is_refused(folders, tmp_path, side):
    pair = folders((0, 1, 2), (0, 2, 1)) if side == 0 else folders((0, 2, 1), (0, 1, 2))
    described(pair[side], liver=1, tumor=2)
    with pytest.raises(
        UserError, match=r"but in the (predictions|references) label 1 lies inside label 2\.\n  Name them"
    ):
        evaluate(pair, tmp_path)


TABLE = "<CaretExtension><VolumeInformation><LabelTable>{}</LabelTable></VolumeInformation></CaretExtension>"


def with_names(folder, **labels):
    """As TotalSegmentator writes them."""
    table = "".join(f'<Label Key="{value}" Alpha="1"><![CDATA[{name}]]></Label>' for name, value in labels.items())
    for path in folder.glob("*.nii.gz"):
        image = nibabel.load(path)
        image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, TABLE.format(table).encode()))
        nibabel.save(image, path)


def test_names_inside_nifti_files(folders, tmp_path):
    predictions, references = folders((0, 5, 5), (0, 1, 2))
    with_names(predictions, spleen=1, liver=5)
    scores, said = evaluate((predictions, references), tmp_path)
    assert scores == {"liver": 1}
    assert "labels of the predictions: liver 5 (the names in c1.nii.gz)" in said
    with_names(references, spleen=1, kidney=2)
    with pytest.raises(UserError, match=r"the names in c1.nii.gz are spleen, kidney. None of them names a liver"):
        evaluate((predictions, references), tmp_path)


def test_names_inside_files_must_agree(folders, tmp_path):
    predictions, references = folders((0, 5, 6), (0, 1, 2))
    with_names(predictions, liver=5, tumor=6)
    (predictions / "c2.nii.gz").rename(tmp_path / "c2.nii.gz")
    (predictions / "c1.nii.gz").rename(predictions / "c0.nii.gz")
    with_names(predictions, liver=6, tumor=5)
    (predictions / "c0.nii.gz").rename(predictions / "c1.nii.gz")
    (tmp_path / "c2.nii.gz").rename(predictions / "c2.nii.gz")
    with pytest.raises(UserError, match=r"the files of the predictions disagree: '(liver|tumor)' has the values"):
        evaluate((predictions, references), tmp_path)


def test_segments_of_slicer_and_names_with_other_endings(tmp_path, draw):
    references = write(tmp_path / "ref", (0, 1, 2), LESIONS, draw, names=("liver_07_gt", "liver_12_gt"))
    predictions = tmp_path / "pred"
    predictions.mkdir()
    for number in ("07", "12"):
        image = sitk.GetImageFromArray(np.array([0, 3, 1], np.uint8)[draw.liver_scan(lesions=LESIONS[:1])])
        for index, (name, value) in enumerate((("Liver", 3), ("Metastasis", 1))):
            image.SetMetaData(f"Segment{index}_Name", name)
            image.SetMetaData(f"Segment{index}_LabelValue", str(value))
        sitk.WriteImage(image, str(predictions / f"out-{number}.seg.nrrd"))
    scores, said = evaluate((predictions, references), tmp_path)
    assert scores == BOTH
    assert "files paired by the part of their names that differs, such as out-07 and liver_07_gt.nii.gz" in said


@pytest.mark.parametrize("names", [("a_1", "a_2", "a_3"), ("a_1", "b_2"), ("a_01", "a_02")])
def test_names_that_do_not_all_fit_are_not_paired(tmp_path, draw, names):
    predictions = write(tmp_path / "pred", (0, 1, 2), [], draw, names=names)
    references = write(tmp_path / "ref", (0, 1, 2), [], draw, names=("c1", "c2"))
    with pytest.raises(UserError, match="no prediction has the name of a reference"):
        find_inputs(predictions, references)


def test_the_ignore_label_of_references_with_other_values():
    predicted = Structures({"liver": (1, 2), "tumor": (2,)}, frozenset({0, 1, 2}))
    reference = Structures({"liver": (4, 5), "tumor": (5,)}, frozenset({0, 4, 5, 7}), ignore=2)
    found = with_other_references(predicted, reference)
    labels, notes = in_predicted_values(np.array([[0, 4, 5, 7, 2]]), found)
    assert labels.tolist() == [[0, 1, 2, 0, found.ignore]] and notes == []
    assert found.ignore not in (0, 1, 2)
    with pytest.raises(UserError, match=r"the labels \[9\], but only \[0, 2, 4, 5, 7\] are known"):
        in_predicted_values(np.array([[9]]), found)


# ---- the command


def livseg(pair, tmp_path, *more):
    return main(["evaluate", *map(str, pair), "-o", str(tmp_path / "out"), "--quiet", "--workers", "1", *more])


def test_the_command_says_its_guess_everywhere(folders, tmp_path, capsys):
    pair = folders((0, 2, 1), (0, 1, 2))
    (tmp_path / "images").mkdir()
    assert livseg(pair, tmp_path) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("labels of the predictions: liver 2, tumor 1 (a guess")
    assert printed.count("to confirm or correct") == 1
    for name in ("summary.json", "summary.md", "report.html"):
        assert "to confirm or correct these labels" in (tmp_path / "out" / name).read_text()
    options = printed.splitlines()[2].split(": ")[1].split()
    assert options == ["--liver", "2", "--tumor", "1", "--reference-liver", "1", "--reference-tumor", "2"]
    assert livseg(pair, tmp_path, "--no-report", *options) == 0
    assert "guess" not in capsys.readouterr().out


def test_a_summary_of_nnunet_is_not_written_over(folders, tmp_path, capsys):
    predictions, references = folders()
    (predictions / "summary.json").write_text('{"foreground_mean": {"Dice": 0.9}}')
    before = sorted(predictions.iterdir())
    assert livseg((predictions, references), tmp_path, "-o", str(predictions)) == 1
    said = capsys.readouterr().err
    assert f"{predictions / 'summary.json'} was not written by livseg evaluate" in said
    assert f"such as {predictions / 'evaluation'}" in said
    assert sorted(predictions.iterdir()) == before
    assert livseg((predictions, references), tmp_path, "-o", str(predictions / "evaluation"), "--no-report") == 0
    assert livseg((predictions, references), tmp_path, "-o", str(predictions / "evaluation"), "--no-report") == 0


def test_compare_takes_other_values_of_the_references(folders, tmp_path, draw, capsys):
    predictions, references = folders((0, 1, 2), (0, 6, 7))
    other = write(tmp_path / "other", (0, 1, 2), LESIONS, draw)
    command = ["compare", *map(str, (predictions, other, references)), "-o", str(tmp_path / "out"), "--no-report"]
    command += ["--quiet", "--workers", "1"]
    values = ["--liver", "1", "--tumor", "2", "--reference-liver", "6", "--reference-tumor", "7"]
    assert main([*command, *values]) == 0
    assert "labels of the" not in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "pred" / "summary.json").read_text())
    assert summary["structures"]["tumor"]["dice_per_case"] == BOTH["tumor"]
