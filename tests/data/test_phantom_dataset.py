"""The phantom as an nnU-Net raw dataset, and its command."""

import csv
import errno
import json
import multiprocessing.dummy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.check_dataset import check_dataset
from nnunet_livseg.data.phantom import LABEL_STYLES, phantom_dataset, write_dataset

TINY = {"size": (16, 32, 32), "tumor_diameter_mm": (30.0, 45.0), "tumors": (1, 2), "progress": False}
COMMAND = ["--size", "16", "32", "32", "--tumor-diameter", "30", "45"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def two_phases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "Dataset901_Phantom"
    return write_dataset(folder, cases=2, test_cases=1, phases=2, **TINY)


def test_same_arguments_give_bit_equal_files(two_phases, tmp_path):
    again = write_dataset(tmp_path / "Dataset901_Phantom", cases=2, test_cases=1, phases=2, processes=2, **TINY)
    assert files(again).keys() == files(two_phases).keys()
    different = [n for n, content in files(again).items() if content != files(two_phases)[n] and n != "phantom.json"]
    assert different == []  # the manifest lists cases in the order in which processes finished


def test_files_are_those_of_an_nnunet_dataset(two_phases):
    names = {n for n in files(two_phases) if n.endswith(".nii.gz")}
    assert names == {
        *(f"imagesTr/phantom_00{case}_000{phase}.nii.gz" for case in (0, 1) for phase in (0, 1)),
        *(f"labelsTr/phantom_00{case}.nii.gz" for case in (0, 1)),
        "imagesTs/unseen_000_0000.nii.gz",
        "imagesTs/unseen_000_0001.nii.gz",
        "labelsTs/unseen_000.nii.gz",
    }
    content = json.loads((two_phases / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT", "1": "CT"}
    assert content["numTraining"] == 2 and content["phases"] == ["portal venous", "arterial"]


def test_both_channels_get_ct_normalization_in_nnunet():
    scheme = pytest.importorskip("nnunetv2.preprocessing.normalization.map_channel_name_to_normalization")
    names = phantom_dataset._dataset_json(1, "lesions", 2)["channel_names"]
    assert [scheme.get_normalization_scheme(n).__name__ for n in names.values()] == ["CTNormalization"] * 2


@pytest.mark.parametrize(("style", "phases"), [*((style, 1) for style in LABEL_STYLES), ("lesions", 2)])
def test_nnunet_and_check_accept_the_dataset(tmp_path, monkeypatch, style, phases):
    verify = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    # threads instead of processes that import torch again
    monkeypatch.setattr(verify, "multiprocessing", SimpleNamespace(get_context=lambda _: multiprocessing.dummy))
    folder = write_dataset(tmp_path / "Dataset902_X", cases=2, phases=phases, label_style=style, **TINY)
    verify.verify_dataset_integrity(str(folder), 1)
    assert {f.kind for f in check_dataset(folder)} == {"few cases"}


def test_ignore_label_hides_slices_and_a_part_of_all_of_training_cases_only(tmp_path):
    """In a dataset of whole ignored slices alone, nnU-Net's 2D training never meets the label."""
    plain = write_dataset(tmp_path / "Dataset901_A", cases=1, test_cases=1, **TINY)
    ignore = write_dataset(tmp_path / "Dataset902_B", cases=1, test_cases=1, label_style="ignore", **TINY)
    full, sparse = (nibabel.load(f / "labelsTr/phantom_000.nii.gz").get_fdata() for f in (plain, ignore))
    hidden = np.zeros(full.shape, bool)
    hidden[:, :, 2::3] = True
    hidden[:, full.shape[1] * 3 // 4 :] = True
    assert (sparse[hidden] == 3).all() and np.array_equal(sparse[~hidden], full[~hidden])
    assert (plain / "labelsTs/unseen_000.nii.gz").read_bytes() == (ignore / "labelsTs/unseen_000.nii.gz").read_bytes()


def test_case_table_points_at_the_tumors_in_the_files(two_phases):
    rows = list(csv.DictReader((two_phases / "cases.csv").open()))
    assert {row["case"] for row in rows} == {"phantom_000", "phantom_001", "unseen_000"}
    for row in rows:
        split = "Ts" if row["case"].startswith("unseen") else "Tr"
        label = sitk.ReadImage(two_phases / f"labels{split}" / f"{row['case']}.nii.gz")
        image = sitk.ReadImage(two_phases / f"images{split}" / f"{row['case']}_0001.nii.gz")
        assert label.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        assert image.GetSpacing() == label.GetSpacing() and image.GetOrigin() == label.GetOrigin()
        index = [float(row[f"{axis}_voxel"]) for axis in "xyz"]
        point = label.TransformContinuousIndexToPhysicalPoint(index)
        assert point == pytest.approx([float(row[f"{axis}_mm"]) for axis in "xyz"], abs=0.1)
        assert label.GetPixel([round(i) for i in index]) == 2
        assert {"type", "volume_ml", "diameter_mm", "mean_hu_portal_venous", "mean_hu_arterial"} <= row.keys()


def test_more_cases_are_added_and_finished_ones_are_kept(tmp_path, monkeypatch):
    folder = write_dataset(tmp_path / "Dataset901_Phantom", cases=1, **TINY)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("phantom_000*.nii.gz")}
    made = []
    monkeypatch.setattr(phantom_dataset, "make_case", lambda seed, **k: made.append(seed) or make(seed, **k))
    from nnunet_livseg.data.phantom import make_case as make

    write_dataset(folder, cases=2, **TINY)
    assert made == [(0, 0, 1)]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 2
    with pytest.raises(UserError, match="already contains 2 training cases, more than the 1 asked for"):
        write_dataset(folder, cases=1, **TINY)


def test_an_interruption_leaves_whole_files_and_can_be_continued(tmp_path, monkeypatch):
    folder, clean = tmp_path / "a" / "Dataset901_Phantom", tmp_path / "b" / "Dataset901_Phantom"
    save, calls = nibabel.save, []

    def stop_in_the_middle(image, path):
        calls.append(path)
        if len(calls) == 3:
            Path(path).write_bytes(b"half an image")
            raise KeyboardInterrupt
        save(image, path)

    monkeypatch.setattr(nibabel, "save", stop_in_the_middle)
    assert main(["phantom", "--out", str(folder), "--cases", "2", *COMMAND]) == 130
    assert set(files(folder)) == {"phantom.json", "imagesTr/phantom_000_0000.nii.gz", "labelsTr/phantom_000.nii.gz"}
    assert main(["phantom", "--out", str(folder), "--cases", "2", *COMMAND]) == 0
    assert main(["phantom", "--out", str(clean), "--cases", "2", *COMMAND]) == 0
    assert files(folder) == files(clean)


def test_a_full_disk_is_one_message_and_no_half_file(tmp_path, monkeypatch, capsys):
    def full(image, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(nibabel, "save", full)
    assert main(["phantom", "--out", str(tmp_path / "Dataset901_Phantom"), "--cases", "1", *COMMAND]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert set(files(tmp_path)) == {"Dataset901_Phantom/phantom.json"}


def test_a_write_that_fails_is_not_silent(tmp_path):
    """ITK's NIfTI writer leaves a truncated file on a full disk and reports success; ours has to raise."""
    resource = pytest.importorskip("resource")
    assert resource
    code = (
        "import resource, signal, numpy as np\n"
        "from nnunet_livseg.imaging.nifti import write_nifti\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "array = np.random.default_rng(0).integers(0, 1000, (40, 64, 64)).astype(np.int16)\n"
        f"write_nifti({str(tmp_path / 'x.nii.gz')!r}, array, spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1 and "OSError" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "8", "8", "8"], "size is (8, 8, 8) voxels (Z, Y, X), too small"),
        ([*COMMAND, "--spacing", "5", "0", "5"], "each must be above 0"),
        ([*COMMAND, "--cases", "0"], "0 training and 0 test cases were asked for"),
        ([*COMMAND, "--seed", "-1"], "the seed is -1"),
        ([*COMMAND, "--tumor-types", "adenoma"], "there is no tumor type 'adenoma'"),
        ([*COMMAND, "-np", "0"], "0 processes were asked for"),
    ],
)
def test_bad_arguments_end_in_one_message(tmp_path, capsys, arguments, message):
    assert main(["phantom", "--out", str(tmp_path / "Dataset901_Phantom"), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "Dataset901_Phantom").exists()


def test_bad_folders_end_in_one_message(tmp_path, capsys):
    used, file = tmp_path / "Dataset905_Real", tmp_path / "file"
    (used / "imagesTr").mkdir(parents=True)
    file.write_text("")
    cases = {
        tmp_path / "phantom7": "the folder 'phantom7' is not named as nnU-Net wants it",
        used: "is not empty and was not made by this command (phantom.json is missing)",
        file / "Dataset901_Phantom": f"cannot be a folder, because {file} is a file",
        Path(
            "/proc/Dataset901_Phantom"
        ): "no file can be made in /proc/Dataset901_Phantom",  # refused by the system, for root as well
    }
    for folder, message in cases.items():
        assert main(["phantom", "--out", str(folder), "--cases", "1", *COMMAND]) == 1
        assert message in capsys.readouterr().err
    assert {p.name for p in tmp_path.rglob("*")} == {"Dataset905_Real", "imagesTr", "file"}


def test_other_arguments_in_the_same_folder_are_refused(two_phases):
    before = files(two_phases)
    with pytest.raises(UserError, match=r"phantom of other arguments: seed is 0 there and 1 now; phases is 2 .* 1 now"):
        write_dataset(two_phases, cases=2, seed=1, **TINY)
    with pytest.raises(UserError, match="no label style 'organs'; choose one of lesions, regions, ignore"):
        write_dataset(two_phases, label_style="organs", **TINY)
    assert files(two_phases) == before


def test_a_damaged_manifest_and_another_version_are_refused(tmp_path):
    folder = write_dataset(tmp_path / "Dataset901_Phantom", cases=1, **TINY)
    content = json.loads((folder / "phantom.json").read_text())
    (folder / "phantom.json").write_text(json.dumps({**content, "format": 0}))
    with pytest.raises(UserError, match="made by another version of the phantom"):
        write_dataset(folder, cases=1, **TINY)
    (folder / "phantom.json").write_text("{")
    with pytest.raises(UserError, match=r"is damaged: (.|\n)*unknown which cases are finished"):
        write_dataset(folder, cases=1, **TINY)


def test_commands_start_without_torch():
    code = (
        "import sys, contextlib, io\nfrom nnunet_livseg.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['phantom', '-h'])\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "import nnunet_livseg.data.phantom, nnunet_livseg.data.check_dataset\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
