"""livseg doctor: says what is wrong, and ends by itself whatever is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_livseg.cli import main
from nnunet_livseg.core.findings import error
from nnunet_livseg.core.nnunet_folders import VARIABLES
from nnunet_livseg.diagnostics import bug_report, doctor
from nnunet_livseg.startup import VARIABLE, discovery_folder
from nnunet_livseg.variants import VARIANTS

LAST = "workers"  # the subject of the last check


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """nnU-Net's three folders, all there."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))


def test_doctor_names_what_is_wrong(capsys, monkeypatch, tmp_path):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "absent folder"))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert f"nnU-Net finds all {len(VARIANTS)}" in said
    assert f"{tmp_path / 'absent folder'} is not a folder" in said
    assert f"mkdir -p '{tmp_path / 'absent folder'}'" in said
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["trainers_found"] and report["variables"] == dict.fromkeys(VARIABLES, "writable")
    assert report["packages"]["nnunetv2"].startswith("2.8.") and report["trainer_folders"]["index_of_ours"] is not None
    assert report["extras"]["dicom"]["packages"].keys() >= {"highdicom", "pydicom"}
    assert {finding["severity"] for finding in report["findings"]} <= {"ok", "warning"}
    assert str(tmp_path) not in json.dumps(report)


def test_doctor_sees_that_nnunet_does_not_find_the_trainers(capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "/nowhere")
    monkeypatch.setenv("LIVSEG_NO_AUTOREGISTER", "1")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "nnU-Net does not find DPCNetTrainer" in said and "unset LIVSEG_NO_AUTOREGISTER" in said


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import a_package_that_is_missing", "ModuleNotFoundError: No module named 'a_package_that_is_missing'"),
        ("import sys; sys.exit('no license')", "SystemExit: no license"),
        ("raise RuntimeError('GPU only\\nsee above')", "RuntimeError: GPU only"),
        ("def broken(:", "SyntaxError: "),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["before ours", "behind ours"])
def test_a_plug_in_that_does_not_import_is_one_line(folders, capsys, monkeypatch, tmp_path, code, error, first):
    theirs = tmp_path / "theirs"
    (theirs / "nested").mkdir(parents=True)
    (theirs / "healthy.py").write_text("")
    (theirs / "nested" / "__init__.py").write_text("")
    (theirs / "nested" / "broken_one.py").write_text(code)
    order = [str(theirs), discovery_folder()]
    monkeypatch.setenv(VARIABLE, os.pathsep.join(order if first else order[::-1]))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("ERROR")]
    assert f"nnU-Net cannot import module nested.broken_one of {theirs}" in line and error in line
    assert f"remove {theirs} from {VARIABLE}" in said and LAST in said
    assert (f"nnU-Net finds all {len(VARIANTS)}" in said) is not first


def test_another_nnunet_comes_first(tmp_path):
    """A fresh process whose path begins with a folder that says 2.6.2 and has none of 2.8's modules."""
    (tmp_path / "nnunetv2").mkdir()
    (tmp_path / "nnunetv2" / "__init__.py").write_text("")
    described = tmp_path / "nnunetv2-2.6.2.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: nnunetv2\nVersion: 2.6.2\n")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    command = [sys.executable, "-m", "nnunet_livseg.cli", "doctor"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"2.6.2, but this package is made for 2.8 ({tmp_path / 'nnunetv2'})" in done.stdout
    assert "pip install 'nnunetv2>=2.8,<2.9'" in done.stdout and f"  {LAST}" in done.stdout


@pytest.mark.parametrize(("setting", "severity"), [("0", "warning"), ("two", "warning"), ("2", "ok")])
def test_a_number_of_workers_that_stops_nnunets_planner(monkeypatch, setting, severity):
    monkeypatch.setenv("nnUNet_n_proc_DA", setting)
    (found,) = doctor._workers()
    assert found.severity == severity and ("plan_and_preprocess stops" in found.message) == (severity == "warning")


def test_a_library_that_is_missing(folders, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)  # Python's own way to say that it cannot be imported
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "cannot be imported: ModuleNotFoundError" in said and "pip install simpleitk" in said.lower()
    assert LAST in said


def test_no_check_ends_the_report(folders, capsys, monkeypatch):
    names = [
        name for name in vars(doctor) if name in ("_versions", "_libraries", "_trainers", "_folder", "_gpu", "_workers")
    ]

    def fail(*args):
        raise OSError("stale file handle")

    for name in names:
        monkeypatch.setattr(doctor, name, fail)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert said.count("cannot be checked: OSError: stale file handle") == len(names) + 2  # three folders
    assert said.count("ERROR") == 6  # GPU and workers alone do not keep a training from running


# --- the bug report ---------------------------------------------------------------------------------------------------


def test_a_bug_report_names_no_person(monkeypatch, tmp_path):
    home = tmp_path / "home" / "jane.doe"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("LOGNAME", "jane.doe")
    monkeypatch.setenv("nnUNet_raw", str(home / "raw"))
    monkeypatch.setenv("nnUNet_results", "data")  # a relative path must not replace a word
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    said = f"data in {home / 'raw' / 'Dataset003'}, {home / 'x.py'}, {home}2 and {Path('/scratch/jane.doe/y')}"
    report = bug_report.bug_report([error("trainers", said)])
    (finding,) = report["findings"]
    assert finding["message"] == (
        f"data in {Path('$nnUNet_raw/Dataset003')}, {Path('~/x.py')}, {home}2 and {Path('/scratch/USER/y')}"
    )
    assert report["variables"] == {
        "nnUNet_raw": "not a folder",
        "nnUNet_preprocessed": "not set",
        "nnUNet_results": "not a folder",
    }
    assert not report["trainers_found"]


def test_a_bug_report_is_made_on_any_machine(monkeypatch, capsys, tmp_path):
    def fail(*args):
        raise OSError("not on this system")

    for name in ("processor_name", "usable_cores", "memory_gib", "_devices", "_torch_build"):
        monkeypatch.setattr(bug_report, name, fail)
    monkeypatch.setattr(bug_report.importlib.metadata, "requires", lambda name: None)
    monkeypatch.setattr(doctor, "examine", lambda: iter([error("nnunetv2", "not installed")]))
    file = tmp_path / "doctor.json"
    assert main(["doctor", "--json", str(file)]) == 1
    assert "not installed" in capsys.readouterr().out  # the text too
    report = json.loads(file.read_text())
    assert report["devices"] is None and report["memory_gib"] is None and report["packages"] == {}
    page = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text("utf-8")
    assert [key for key in report if f"`{key}`" not in page] == []
