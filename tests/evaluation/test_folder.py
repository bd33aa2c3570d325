"""Folders of predictions: pairing, trainings, parallel and resumed work, bad files, and what is written."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import with_floats
from nnunet_livseg.evaluation.folder_evaluation import evaluate_folder
from nnunet_livseg.evaluation.label_meaning import LabelValues
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.pairing import find_inputs
from nnunet_livseg.evaluation.summary import stratum_names, stratum_of

DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumour": 2}, "file_ending": ".nii.gz"}
LESIONS = [((3, 6), (5, 10), (5, 10)), ((6, 9), (12, 18), (12, 20))]


def write(path, labels, spacing=(0.8, 0.8, 2.5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(labels)
    if labels.ndim == 3:
        image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def study(tmp_path, draw):
    """Five cases: a good one, a shifted one, a missed tumor, a false alarm, and one without tumor on either side."""
    ref, pred = tmp_path / "labelsTr", tmp_path / "predictions"
    pairs = {
        "a_good": (LESIONS, LESIONS),
        "b_half": (LESIONS, LESIONS[:1]),
        "c_missed": (LESIONS[:1], []),
        "d_false": ([], LESIONS[:1]),
        "e_none": ([], []),
    }
    for case, (reference, predicted) in pairs.items():
        write(ref / f"{case}.nii.gz", draw.liver_scan(lesions=reference))
        write(pred / f"{case}.nii.gz", draw.liver_scan(lesions=predicted))
    (pred / "dataset.json").write_text(json.dumps(DATASET))
    return pred, ref, tmp_path / "out"


def run(study, **kw):
    return evaluate_folder(study[0], study[1], out=study[2], **({"workers": 1} | kw))


def table(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def reasons(result):
    return {problem.case: problem.reason for problem in result.problems}


def test_means_and_what_was_left_out_of_them(study):
    tumor = run(study).summary["structures"]["tumor"]
    assert (tumor["n_both_empty"], tumor["n_missed"], tumor["n_false_alarm"]) == (1, 1, 1)
    half = 2 * 75 / (75 + 75 + 144)
    assert tumor["dice_per_case"] == pytest.approx((1 + half + 0 + 0) / 4)
    assert tumor["dice_global"] == pytest.approx(2 * (219 + 75) / (219 + 219 + 219 + 75 + 75 + 75))
    assert tumor["metrics"]["assd"]["n"] == 2
    assert tumor["metrics"]["assd"]["n_infinite"] == 2
    assert tumor["metrics"]["assd"]["n_undefined"] == 1
    low, high = tumor["metrics"]["dice"]["ci95"]
    assert 0 <= low < tumor["dice_per_case"] < high <= 1


def test_lesions_are_pooled_over_cases(study):
    lesions = run(study).summary["lesions"]
    assert (lesions["n_reference"], lesions["n_predicted"]) == (5, 4)
    detection = lesions["detection"]["group_50"]
    assert (detection["found"], detection["missed"], detection["false"]) == (3, 2, 1)
    assert (detection["precision"], detection["recall"]) == (0.75, 0.6)
    assert lesions["false_per_case"]["group_50"] == 0.2


def test_lesions_by_size(study):
    found = {s["stratum"]: s for s in run(study, options=Options(diameter_edges=(10.0,))).summary["lesion_strata"]}
    assert list(found) == ["< 10 mm", ">= 10 mm"]
    small, large = found.values()
    assert (small["n"], small["found"], small["false"]) == (3, 2, 1)  # 3 x 5 x 5 voxels of 2.5 x 0.8 x 0.8 mm: 8.7 mm
    assert (large["n"], large["found"], large["recall"]) == (2, 1, 0.5)


def test_borders_of_strata():
    assert stratum_names((10.0, 20.0), "mm") == ["< 10 mm", "10-20 mm", "> 20 mm"]
    assert [stratum_of(d, (10.0, 20.0)) for d in (9.99, 10, 20, 20.01)] == [0, 1, 1, 2]
    assert stratum_names((5.0, 10.0), "px") == ["< 5 px", "5-10 px", "> 10 px"]


def test_files_that_are_written(study):
    run(study)
    rows = {row["case"]: row for row in table(study[2] / "cases.csv")}
    assert list(rows) == ["a_good", "b_half", "c_missed", "d_false", "e_none"]
    assert rows["c_missed"]["tumor_assd_mm"] == "inf"
    assert rows["e_none"]["tumor_dice"] == ""
    assert rows["e_none"]["tumor_status"] == "both_empty"
    assert float(rows["a_good"]["tumor_volume_reference_ml"]) == pytest.approx(219 * 1.6 / 1000)
    assert rows["a_good"]["liver_nsd_2mm"] == "1"
    lesions = table(study[2] / "lesions.csv")
    assert [row["kind"] for row in lesions].count("reference") == 5
    summary = json.loads((study[2] / "summary.json").read_text())
    assert summary["schema"] == "nnunet_livseg.evaluation/1"
    assert set(summary["definitions"]["metrics"]) >= set(summary["structures"]["tumor"]["metrics"])
    assert with_floats(summary)["structures"]["tumor"]["n_missed"] == 1
    text = (study[2] / "summary.md").read_text()
    assert "HD95: the larger of the two directed 95th percentiles" in text
    assert "(2 inf)" in text


@pytest.mark.parametrize("mode", ["default", "lits"])
def test_every_column_is_defined(study, tmp_path, mode):
    (tmp_path / "t.csv").write_text("case,type\na_good,HCC\n")
    run(study, options=Options(mode=mode), case_table=tmp_path / "t.csv")
    defined = {(row["file"], row["column"]) for row in table(study[2] / "columns.csv") if row["definition"]}
    for name in ("cases.csv", "lesions.csv"):
        header = (study[2] / name).read_text().splitlines()[0].split(",")
        assert {(name, column) for column in header} <= defined


def test_json_is_strict_json(study):
    run(study)
    for path in [study[2] / "summary.json", *(study[2] / "cases").iterdir()]:
        json.loads(path.read_text(), parse_constant=lambda name, path=path: pytest.fail(f"{name} in {path}"))


def test_a_table_of_cases_gives_strata(study, tmp_path):
    (tmp_path / "t.csv").write_text(
        "type;case;age\nHCC;a_good.nii.gz;1\nHCC;b_half;2\nCyst;c_missed;3\nCyst;d_false;4\n"
    )
    result = run(study, case_table=tmp_path / "t.csv")
    groups = result.summary["strata"]["type"]
    assert {name: group["n_cases"] for name, group in groups.items()} == {"(not given)": 1, "Cyst": 2, "HCC": 2}
    assert groups["Cyst"]["structures"]["tumor"]["dice_per_case"] == 0
    assert groups["HCC"]["lesions"]["detection"]["group_0"]["recall"] == 0.75
    assert table(study[2] / "cases.csv")[0]["type"] == "HCC"


def test_columns_that_the_results_have_too_stay_under_another_name(study, tmp_path):
    """Notes of a conversion's cases.csv were replaced by the evaluation's, without a word."""
    (tmp_path / "t.csv").write_text("case,notes,seconds,fold,tumor_dice,table_notes\na_good,mine,7,2,x,y\n")
    result = run(study, case_table=tmp_path / "t.csv")
    row = table(study[2] / "cases.csv")[0]
    assert [row[f"table_{name}"] for name in ("table_notes", "seconds", "tumor_dice", "notes")] == [
        "mine",
        "7",
        "x",
        "y",
    ]
    assert row["fold"] == "2" and float(row["tumor_dice"]) > 0.5 and row["notes"] != "mine"
    assert "the column seconds of the case table is called table_seconds here" in " ".join(result.notes)
    assert set(result.summary["strata"]) == {
        "table_table_notes",
        "table_seconds",
        "fold",
        "table_tumor_dice",
        "table_notes",
    }
    defined = {line["column"]: line["definition"] for line in table(study[2] / "columns.csv")}
    assert defined["fold"] == defined["table_seconds"] == "from the case table" != defined["notes"]


def test_many_numbers_are_cut_into_thirds(study, tmp_path):
    from nnunet_livseg.evaluation.summary import _column

    column = _column("age", {f"c{n}": {"age": str(n)} for n in range(30)})
    groups = [column(type("Case", (), {"case": f"c{n}"})) for n in (0, 15, 29)]
    assert [name[:3] for name in groups] == ["1. ", "2. ", "3. "]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,type\nx,HCC\n", "no row of the case table"),
        ("case,type\na_good,HCC\na_good,Cyst\n", "two rows for the case 'a_good'"),
        ("case\na_good\n", "at least two columns"),
    ],
)
def test_useless_case_tables_are_explained(study, tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        run(study, case_table=tmp_path / "t.csv")


def test_missing_extra_and_damaged_cases_are_named_and_the_rest_evaluated(study, draw):
    pred, *_ = study
    (pred / "a_good.nii.gz").unlink()
    write(pred / "z_extra.nii.gz", draw.liver_scan())
    damaged = (pred / "b_half.nii.gz").read_bytes()
    (pred / "b_half.nii.gz").write_bytes(damaged[: len(damaged) // 2])
    write(pred / "c_missed.nii.gz", draw.liver_scan(), spacing=(0.8, 0.8, 3.0))
    strange = draw.liver_scan()
    strange[3, 5, 5] = 7
    write(pred / "d_false.nii.gz", strange)
    result = run(study)
    found = reasons(result)
    assert [case.case for case in result.cases] == ["e_none"]
    assert found["a_good"] == "has a reference, but no prediction"
    assert found["z_extra"] == "has a prediction, but no reference"
    assert "truncated" in found["b_half"]
    assert "(0.8, 0.8, 3), reference (0.8, 0.8, 2.5)" in found["c_missed"]
    assert "[7]" in found["d_false"]
    assert {p["case"] for p in json.loads((study[2] / "summary.json").read_text())["problems"]} == set(found)


def test_links_to_nothing_are_named(study):
    (study[0] / "a_good.nii.gz").unlink()
    (study[0] / "a_good.nii.gz").symlink_to("moved.nii.gz")
    result = run(study)
    assert reasons(result)["a_good"].startswith("the file behind the link ") and len(result.cases) == 4
    for path in study[0].iterdir():
        path.unlink()
        path.symlink_to("moved.nii.gz")
    with pytest.raises(UserError, match=r"the file behind the link .*a_good.nii.gz is gone"):
        run(study)


def test_the_same_case_twice_is_ambiguous(study, draw):
    write(study[0] / "a_good.nrrd", draw.liver_scan())
    assert "found more than once" in reasons(run(study))["a_good"]


def test_one_damaged_file_of_one_is_an_error(study):
    for path in study[0].glob("[b-e]*.nii.gz"):
        path.unlink()
    (study[0] / "a_good.nii.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"no case could be evaluated:\n  a_good"):
        run(study)


def test_missing_and_empty_folders_are_explained(study, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no label map in"):
        run((tmp_path / "empty", *study[1:]), liver=(1,))
    with pytest.raises(UserError, match="the references do not exist"):
        run((study[0], tmp_path / "nowhere", study[2]))
    write(tmp_path / "other" / "x.nii.gz", np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(UserError, match="no prediction has the name of a reference"):
        run((study[0], tmp_path / "other", study[2]))


def test_without_a_dataset_json_the_labels_are_named_or_guessed(study):
    (study[0] / "dataset.json").unlink()
    assert run(study).inputs.guess
    assert run(study, liver=(1,), tumor=(2,)).summary["structures"]["tumor"]["n_missed"] == 1


def test_a_broken_dataset_json_is_named(study):
    (study[0] / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json is not valid JSON"):
        run(study)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS and Windows have no file names that are not UTF-8")
def test_a_case_whose_name_is_not_utf8(study):
    """Tables spell its bytes out."""
    name = os.fsdecode(b"b\xfc.nii.gz")
    for folder in study[:2]:
        (folder / "b_half.nii.gz").rename(folder / name)
    assert len(run(study).cases) == 5
    assert r"b\udcfc" in [row["case"] for row in table(study[2] / "cases.csv")]


def test_png_slices_count_in_pixels(tmp_path, draw):
    for name in ("s1", "s2"):
        write(tmp_path / "p" / f"{name}.png", draw.liver_scan(lesions=LESIONS)[4])
        write(tmp_path / "r" / f"{name}.png", draw.liver_scan(lesions=LESIONS)[4])
    evaluate_folder(tmp_path / "p", tmp_path / "r", out=tmp_path / "o", liver=(1,), tumor=(2,), workers=1)
    row = table(tmp_path / "o" / "cases.csv")[0]
    assert (row["tumor_hd_px"], row["tumor_volume_reference_px"]) == ("0", "25")


def test_pixels_and_millimeters_are_not_averaged(study, draw):
    for folder in study[:2]:
        write(folder / "slice.png", draw.liver_scan()[4])
    assert "its lengths are in px in 2D, but those of most cases are in mm in 3D" in reasons(run(study))["slice"]


def test_finished_cases_are_taken_up_again(study):
    first = run(study)
    before = {path.name: path.stat().st_mtime_ns for path in (study[2] / "cases").iterdir()}
    again = run(study)
    assert (first.n_reused, again.n_reused) == (0, 5)
    assert {path.name: path.stat().st_mtime_ns for path in (study[2] / "cases").iterdir()} == before
    assert json.dumps(again.summary) == json.dumps(first.summary)


def test_changed_files_and_options_are_evaluated_anew(study, draw):
    run(study)
    write(study[0] / "c_missed.nii.gz", draw.liver_scan(lesions=LESIONS[:1]))
    again = run(study)
    assert (again.n_reused, again.summary["structures"]["tumor"]["n_missed"]) == (4, 0)
    assert run(study, options=Options(hd95="pooled")).n_reused == 0
    (study[2] / "cases" / "e_none.json").write_text("{ cut off")
    assert run(study, options=Options(hd95="pooled")).n_reused == 4


def test_parallel_workers_find_the_same(study, tmp_path):
    alone, together = run(study), run((*study[:2], tmp_path / "parallel"), workers=2)
    assert json.dumps(together.summary) == json.dumps(alone.summary)


def test_a_killed_run_keeps_what_was_finished(study, tmp_path):
    """Killed without warning in the middle: no half file, and the next run takes up the finished cases."""
    pred, ref, out = study
    big = np.zeros((60, 160, 160), np.uint8)
    big[5:50, 20:150, 20:150] = 1
    big[np.random.default_rng(0).random(big.shape) > 0.999] = 2
    for name in ("y1", "y2", "y3", "y4"):  # slow cases at the end of the alphabet
        write(pred / f"{name}.nii.gz", big)
        write(ref / f"{name}.nii.gz", big)
    command = [
        sys.executable,
        "-m",
        "nnunet_livseg.cli",
        "evaluate",
        pred,
        ref,
        "--out",
        out,
        "--workers",
        "1",
        "--no-report",
    ]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (out / "cases" / "a_good.json").exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = sorted(path.name for path in (out / "cases").glob("[!.]*.json"))
    assert "a_good.json" in finished
    assert len(finished) < 9, "the run was over before it was killed: the test proves nothing"
    for name in finished:
        json.loads((out / "cases" / name).read_text())
    again = run(study)
    assert (again.n_reused, len(again.cases)) == (len(finished), 9)


def training(tmp_path, draw, *, raw="nnUNet_raw"):
    result = tmp_path / "results" / "Dataset003_Liver" / "DPCNetTrainer__nnUNetPlans__3d_fullres"
    labels = tmp_path / raw / "Dataset003_Liver" / ("labelsTr" if raw == "nnUNet_raw" else "gt_segmentations")
    for number in range(4):
        scan = draw.liver_scan(lesions=LESIONS)
        write(result / f"fold_{number % 2}" / "validation" / f"case_{number}.nii.gz", scan)
        write(labels / f"case_{number}.nii.gz", scan)
        (result / f"fold_{number % 2}" / "validation" / "summary.json").write_text("{}")
    (result / "dataset.json").write_text(json.dumps(DATASET))
    (result / "plans.json").write_text(json.dumps({"dataset_name": "Dataset003_Liver"}))
    return result


@pytest.mark.parametrize("raw", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_a_training_is_read_with_all_its_folds(tmp_path, draw, monkeypatch, raw):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    result = evaluate_folder(training(tmp_path, draw, raw=raw), out=tmp_path / "out", workers=1)
    assert result.inputs.folds == ["0", "1"]
    assert [(case.case, case.fold) for case in result.cases] == [
        ("case_0", "0"),
        ("case_1", "1"),
        ("case_2", "0"),
        ("case_3", "1"),
    ]
    assert set(result.summary["strata"]["fold"]) == {"0", "1"}
    one = find_inputs(training(tmp_path, draw, raw=raw) / "fold_1")
    assert [paths.case for paths in one.cases] == ["case_1", "case_3"]
    assert one.problems == []
    assert one.notes == ["2 references belong to folds that are not here"]


def test_a_case_that_a_fold_should_have_predicted_is_missing(tmp_path, draw, monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    folder = training(tmp_path, draw)
    parts = (["case_0", "case_2"], ["case_1", "case_3"])
    splits = [{"train": train, "val": val} for val, train in (parts, parts[::-1])]
    (tmp_path / "nnUNet_preprocessed" / "Dataset003_Liver").mkdir(parents=True)
    (tmp_path / "nnUNet_preprocessed" / "Dataset003_Liver" / "splits_final.json").write_text(json.dumps(splits))
    (folder / "fold_1" / "validation" / "case_3.nii.gz").unlink()
    assert reasons(find_inputs(folder)) == {"case_3": "has a reference, but no prediction"}
    assert find_inputs(folder / "fold_0").problems == []


def test_a_copy_of_a_fold_is_no_fold(tmp_path, draw, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnUNet_raw"))
    folder = training(tmp_path, draw)
    shutil.copytree(folder / "fold_0", folder / "fold_0_old")
    found = find_inputs(folder)
    assert found.folds == ["0", "1"] and found.problems == []


def test_damaged_splits_and_plans_are_named(tmp_path, draw, monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    folder = training(tmp_path, draw)
    place = tmp_path / "nnUNet_preprocessed" / "Dataset003_Liver"
    place.mkdir(parents=True)
    (place / "splits_final.json").write_text("[{")
    with pytest.raises(UserError, match=r"splits_final\.json is damaged"):
        find_inputs(folder)
    (folder / "plans.json").write_text("[")
    with pytest.raises(UserError, match=r"plans\.json is damaged"):
        find_inputs(folder)


def test_predictions_and_references_must_mean_the_same(study):
    (study[1] / "dataset.json").write_text(json.dumps(DATASET | {"labels": {"background": 0, "tumor": 1, "liver": 2}}))
    with pytest.raises(UserError, match="says that 2 is the liver and 1 the tumor, but in the references"):
        run(study)


def test_a_model_of_the_liver_is_scored_on_references_with_tumors(study):
    (study[0] / "dataset.json").write_text(json.dumps(DATASET | {"labels": {"background": 0, "liver": 1}}))
    for file in study[0].glob("*.nii.gz"):
        write(file, sitk.GetArrayFromImage(sitk.ReadImage(str(file))).clip(0, 1))
    (study[1] / "dataset.json").write_text(json.dumps(DATASET))
    assert run(study).summary["structures"].keys() == {"liver"}
    assert {row["liver_dice"] for row in table(study[2] / "cases.csv")} == {"1"}
    assert run(study, liver=(1, 2)).cases[0].structures["liver"]["dice"] == 1


def test_a_training_without_validation_says_what_to_do(tmp_path, draw, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnUNet_raw"))
    folder = training(tmp_path, draw)
    for fold in folder.glob("fold_*"):
        shutil.rmtree(fold / "validation")
    with pytest.raises(UserError, match=r"has a folder 'validation' yet.\n  nnUNetv2_train ... --val"):
        find_inputs(folder)


def test_mode_lits_knows_its_labels(study):
    (study[0] / "dataset.json").unlink()
    assert run(study, options=Options(mode="lits")).summary["structures"]["tumor"]["n_missed"] == 1


def test_resampling_is_said_in_every_output(study, draw):
    fine = draw.liver_scan(lesions=LESIONS)[:, ::2]
    write(study[0] / "a_good.nii.gz", fine, spacing=(0.8, 1.6, 2.5))
    result = run(study, options=Options(resample=True))
    assert result.problems == []
    for name in ("cases.csv", "summary.json", "summary.md"):
        assert "resampled to the reference's grid" in (study[2] / name).read_text()


def test_fold_all_is_left_out_beside_real_folds(tmp_path, draw, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnUNet_raw"))
    folder = training(tmp_path, draw)
    write(folder / "fold_all" / "validation" / "case_0.nii.gz", draw.liver_scan())
    found = find_inputs(folder)
    assert found.folds == ["0", "1"]
    assert "fold_all" in found.notes[0]
    for fold in ("fold_0", "fold_1"):
        shutil.rmtree(folder / fold)
    for place in (folder, folder / "fold_all"):
        assert "these are not the scores on new cases" in find_inputs(place).notes[0]


def test_label_values_that_the_dataset_does_not_know_are_refused(tmp_path, draw, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnUNet_raw"))
    with pytest.raises(UserError, match="has no label 7, only 0, 1, 2"):
        find_inputs(training(tmp_path, draw), values=LabelValues((7,), (8,)))


def test_a_training_whose_references_are_nowhere(tmp_path, draw, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "elsewhere"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    with pytest.raises(UserError, match="no references were given, and none were found"):
        find_inputs(training(tmp_path, draw))


def test_ct_images_are_found_beside_the_references(study):
    write(study[1].with_name("imagesTr") / "a_good_0000.nii.gz", np.zeros((12, 24, 28), np.int16))
    found = {paths.case: paths.image for paths in find_inputs(*study[:2]).cases}
    assert found["a_good"].name == "a_good_0000.nii.gz"
    assert found["b_half"] is None


def test_a_single_pair_of_files_may_have_any_names(study):
    pred, ref, out = study
    result = evaluate_folder(pred / "b_half.nii.gz", ref / "a_good.nii.gz", out=out, workers=1)
    assert result.summary["structures"]["tumor"]["dice_per_case"] == pytest.approx(2 * 75 / (75 + 219))


def test_mode_lits_counts_an_empty_pair_as_one(study):
    result = run(study, options=Options(mode="lits"))
    assert result.summary["structures"]["tumor"]["dice_per_case"] == pytest.approx((1 + 2 * 75 / 294 + 0 + 0 + 1) / 5)
    assert result.summary["lesions"]["detected_lesions"]["dice"]["n"] == 3
    burden = result.summary["burden"]
    assert burden["maximum"] == pytest.approx(144 / (8 * 18 * 22))  # reference minus prediction, signed
    assert "lesion" in (study[2] / "lesions.csv").read_text().splitlines()[0]


def test_worst_diagonal_leaves_no_infinity(study):
    result = run(study, options=Options(worst="diagonal"))
    stats = result.summary["structures"]["tumor"]["metrics"]["hd95"]
    assert (stats["n"], stats["n_infinite"]) == (4, 0)
    assert stats["max"] == pytest.approx(math.dist((0, 0, 0), (12 * 2.5, 24 * 0.8, 28 * 0.8)), rel=1e-6)
