"""``livseg evaluate`` and ``livseg compare`` as a user calls them."""

import json
import shutil

import pytest
import SimpleITK as sitk

from nnunet_livseg.cli import main

LESION = ((3, 6), (5, 10), (5, 10))


@pytest.fixture
def folders(tmp_path, draw):
    for folder, lesion in (("a", LESION), ("b", ((3, 6), (5, 10), (6, 10))), ("ref", LESION)):
        (tmp_path / folder).mkdir()
        for n in range(2):
            image = sitk.GetImageFromArray(draw.liver_scan(lesions=[lesion]))
            sitk.WriteImage(image, str(tmp_path / folder / f"c{n}.nii.gz"))
    return tmp_path


def evaluate(folders, *more, out="out"):
    pair = [str(folders / "b"), str(folders / "ref"), "--out", str(folders / out)]
    return main(["evaluate", *pair, "--liver", "1", "--tumor", "2", "--workers", "1", "--quiet", *more])


def compare(folders, *more):
    paths = [str(folders / name) for name in ("a", "b", "ref")]
    settings = ["--out", str(folders / "cmp"), "--liver", "1", "--tumor", "2", "--workers", "1", "--quiet"]
    return main(["compare", *paths, *settings, *more])


def test_evaluate_writes_everything_and_returns_0(folders, capsys):
    assert evaluate(folders, "--table", "dpcnet-4", "--table", "mpunet-9") == 0
    written = {path.name for path in (folders / "out").iterdir()}
    assert written == {
        *("cases", "cases.csv", "lesions.csv", "columns.csv", "summary.json", "summary.md", "report.html"),
        *("table_dpcnet-4.md", "table_mpunet-9.md"),
    }
    printed = capsys.readouterr().out
    assert "| DSC | " in printed
    assert "DPC-Net SpaCor-first (quoted)" in printed


def test_a_left_out_case_gives_3_and_is_named(folders, capsys):
    (folders / "b" / "c1.nii.gz").unlink()
    assert evaluate(folders) == 3
    assert "skipped: b: c1: has a reference, but no prediction" in capsys.readouterr().out


def test_files_of_somebody_else_are_not_replaced(folders, capsys):
    """A report.html of another program, or the cases.csv of a conversion, was replaced without a word."""
    mine = {evaluate: folders / "out" / "cases.csv", compare: folders / "cmp" / "report.html"}
    for command, path in mine.items():
        path.parent.mkdir()
        path.write_text("mine")
        assert command(folders) == 1
        assert f"{path.parent} contains {path.name} that this command did not write" in capsys.readouterr().err
        assert [path.read_text(), list(path.parent.iterdir())] == ["mine", [path]]
        path.unlink()
        assert command(folders, "--no-report") == command(folders, "--no-report") == 0
    (folders / "out" / "summary.json").unlink()  # killed before it was written: cases/ says whose files they are
    assert evaluate(folders, "--no-report") == 0


def test_one_file_is_one_case_of_a_folder_and_equal_folders_are_noted(folders, capsys):
    """Every other reference counted as missed; a folder against itself scored 1.000 without a word."""
    rest = ["--liver", "1", "--tumor", "2", "--workers", "1", "--quiet", "--no-report", "--out"]
    one = [str(folders / "b" / "c1.nii.gz"), str(folders / "ref")]
    assert main(["evaluate", *one, *rest, str(folders / "one")]) == 0
    said = capsys.readouterr().out
    assert "c1: 1 case," in said and "skipped" not in said and "same files" not in said
    assert main(["evaluate", one[1], one[1], *rest, str(folders / "same")]) == 0
    assert "note: predictions and references are the same files" in capsys.readouterr().out


def test_labels_that_count_as_background_are_said(folders, capsys):
    pair = [str(folders / "b"), str(folders / "ref"), "--out", str(folders / "out"), "--workers", "1", "--quiet"]
    assert main(["evaluate", *pair, "--liver", "1"]) == 0
    said = "note: 2 cases, such as c0: labels of the reference that count as background: [2]"
    assert said in capsys.readouterr().out


def test_a_mask_that_was_saved_as_a_picture_is_refused(folders, capsys):
    for file in (folders / "ref").iterdir():
        labels = sitk.ReadImage(str(file))
        sitk.WriteImage(sitk.Cast(labels > 0, sitk.sitkUInt8) * 255, str(file))
    assert evaluate(folders) == 1
    assert "c0: the reference contains the labels [255], and none that was named (1, 2)" in capsys.readouterr().err


def test_nothing_to_do_gives_1_without_a_traceback(folders, capsys):
    (folders / "empty").mkdir()
    assert (
        main(["evaluate", str(folders / "empty"), str(folders / "ref"), "--out", str(folders / "o"), "--liver", "1"])
        == 1
    )
    error = capsys.readouterr().err
    assert error.startswith("livseg evaluate: there is no label map in")
    assert "Traceback" not in error


def test_a_wrong_table_is_said_before_the_work(folders, capsys):
    assert evaluate(folders, "--table", "dpcnet-44") == 1
    assert "there is no table 'dpcnet-44'" in capsys.readouterr().err
    assert not (folders / "out").exists()


def test_options_reach_the_result(folders):
    more = ["--tolerance", "1", "3", "--hd95", "pooled", "--nsd", "voxels", "--worst", "diagonal", "--resample"]
    more += ["--surface-connectivity", "26", "--lesion-connectivity", "18", "--diameter-edges", "5", "10"]
    assert evaluate(folders, *more, "--no-report") == 0
    summary = json.loads((folders / "out" / "summary.json").read_text())
    assert summary["options"] == {
        "mode": "default", "surface_connectivity": 26, "lesion_connectivity": 18, "hd95": "pooled", "nsd": "voxels",
        "tolerances": [1.0, 3.0], "worst": "diagonal", "diameter_edges": [5.0, 10.0], "resample": True,
        "slices": False,
    }  # fmt: skip
    assert {"nsd_1", "nsd_3"} <= set(summary["structures"]["tumor"]["metrics"])
    assert [s["stratum"] for s in summary["lesion_strata"]] == ["< 5 mm", "5-10 mm", "> 10 mm"]
    assert not (folders / "out" / "report.html").exists()


def test_mode_lits_is_written_in_every_output(folders):
    assert evaluate(folders, "--mode", "lits") == 0
    assert json.loads((folders / "out" / "summary.json").read_text())["definitions"]["mode"] == "lits"
    assert "mode lits" in (folders / "out" / "summary.md").read_text()
    assert "mode lits" in (folders / "out" / "report.html").read_text()


@pytest.mark.parametrize("label", ["--liver", "--tumor"])
def test_one_structure_alone_is_evaluated_and_compared(folders, label, capsys):
    pair = [
        str(folders / "b"),
        str(folders / "ref"),
        "--out",
        str(folders / "out"),
        label,
        "2",
        "--quiet",
        "--workers",
        "1",
    ]
    assert main(["evaluate", *pair]) == 0
    structures = json.loads((folders / "out" / "summary.json").read_text())["structures"]
    assert list(structures) == [label.removeprefix("--")]
    assert main(["compare", str(folders / "a"), *pair[:2], "--out", str(folders / "cmp"), *pair[4:]]) == 0
    assert (folders / "cmp" / "report.html").is_file()


def test_compare_writes_tests_and_reports(folders, capsys):
    assert compare(folders, "--table", "dpcnet-4", "--names", "one", "two") == 0
    written = {path.name for path in (folders / "cmp").iterdir()}
    assert written == {
        *("one", "two", "comparison.json", "comparison.csv", "comparison.md", "report.html", "table_dpcnet-4.md"),
    }
    assert (folders / "cmp" / "two" / "report.html").is_file()
    assert "needs 6" in capsys.readouterr().out


def test_compare_names_cases_that_only_some_have(folders, capsys):
    (folders / "a" / "c0.nii.gz").unlink()
    assert compare(folders, "--no-report") == 3
    assert "skipped: c0: not compared, a lacks it" in capsys.readouterr().out


def test_compare_reads_trainings_and_names_them_by_what_differs(folders, monkeypatch, capsys):
    """No references are given; two trainers with the same plans and configuration."""
    monkeypatch.setenv("nnUNet_raw", str(folders / "raw"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    shutil.copytree(folders / "ref", folders / "raw" / "Dataset003_Liver" / "labelsTr")
    trainings = []
    for trainer, source in (("DPCNetTrainer", "a"), ("nnUNetTrainer", "b")):
        training = folders / "results" / "Dataset003_Liver" / f"{trainer}__nnUNetPlans__3d_fullres"
        shutil.copytree(folders / source, training / "fold_0" / "validation")
        (training / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1, "tumor": 2}}')
        trainings.append(str(training))
    command = ["compare", *trainings, "--out", str(folders / "cmp"), "--workers", "1", "--quiet", "--no-report"]
    assert main(command) == 0
    assert "Comparison of DPCNetTrainer, nnUNetTrainer" in capsys.readouterr().out


def test_compare_needs_references(folders, capsys):
    assert main(["compare", str(folders / "a"), str(folders / "b"), "--out", str(folders / "cmp")]) == 1
    assert "two folders of predictions and one of references" in capsys.readouterr().err
