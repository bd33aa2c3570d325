"""`livseg check`: one broken thing at a time, and all of them are named."""

import gzip
import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.cli import main
from nnunet_livseg.data.check_dataset import ERROR, WARNING, check_dataset
from nnunet_livseg.data.phantom import write_dataset

CASE = "phantom_001"


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Path:
    """Five cases in two phases without a problem."""
    folder = tmp_path_factory.mktemp("sound") / "Dataset901_Phantom"
    options = {"size": (16, 32, 32), "tumors": (1, 2), "tumor_diameter_mm": (30.0, 45.0), "progress": False}
    return write_dataset(folder, cases=5, phases=2, **options)


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    """A copy to break."""
    return shutil.copytree(sound, tmp_path / sound.name)


def image(folder: Path, channel: int = 0) -> Path:
    return folder / "imagesTr" / f"{CASE}_{channel:04d}.nii.gz"


def label(folder: Path) -> Path:
    return folder / "labelsTr" / f"{CASE}.nii.gz"


def rewrite(path: Path, change, **header) -> None:
    """Replace the voxels of ``path`` by ``change(array)``; ``header`` sets Spacing, Origin or Direction."""
    old = sitk.ReadImage(path)
    array = change(sitk.GetArrayFromImage(old))
    if array.dtype.kind == "f":  # ITK may not write NaN
        nibabel.save(nibabel.Nifti1Image(array.T, nibabel.load(path).affine), path)
        return
    new = sitk.GetImageFromArray(array)
    for name in ("Spacing", "Origin", "Direction"):
        getattr(new, f"Set{name}")(header.get(name, getattr(old, f"Get{name}")()))
    sitk.WriteImage(new, path)


def put(value, *, count=1, dtype=None):
    """A change that writes ``value`` into the first ``count`` voxels."""

    def change(array):
        array = array.astype(dtype or array.dtype)
        array.ravel()[:count] = value
        return array

    return change


def edit(folder: Path, **keys) -> None:
    path = folder / "dataset.json"
    content = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def moved(**header):
    return lambda f: rewrite(label(f), lambda a: a, **header)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_inside(path: Path) -> None:
    """A valid gzip file whose content ends too early."""
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw[: len(raw) // 2]))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def labels(**values):
    return lambda f: edit(f, labels=values)


def stray(name: str):
    return lambda f: shutil.copy(image(f), f / name)


def swap_liver_and_far_tumor(folder: Path) -> None:
    rewrite(label(folder), put(2, count=3))


BROKEN = {
    "no json": (lambda f: (f / "dataset.json").unlink(), ERROR, "there is no dataset.json"),
    "MRI": (
        lambda f: edit(f, channel_names={"0": "MRI", "1": "CT"}),
        ERROR,
        r"^Dataset901_Phantom: channel 0 is named 'MRI', so nnU-Net would z-score each scan and lose the Hounsfield"
        r' scale\.\n  Set "channel_names": {"0": "CT", "1": "CT"} in <nnUNet_raw>/Dataset901_Phantom/dataset\.json\n'
        r"  and run nnUNetv2_plan_and_preprocess again\.$",
    ),
    "phase as channel name": (
        lambda f: edit(f, channel_names={"0": "CT", "1": "CT arterial"}),
        ERROR,
        "channel 1 is named 'CT arterial', so nnU-Net would z-score",
    ),
    "noNorm": (lambda f: edit(f, channel_names={"0": "CT", "1": "noNorm"}), WARNING, "would not normalize at all"),
    "channel gap": (lambda f: edit(f, channel_names={"0": "CT", "2": "CT"}), ERROR, "channels are numbered 0, 2"),
    "v1 labels": (lambda f: edit(f, labels={"0": "background", "1": "liver"}), ERROR, "as nnU-Net v1 did"),
    "text label": (labels(background=0, liver="1", tumor=2), ERROR, "label 'liver' has the value \"1\""),
    "no background": (labels(liver=1, tumor=2), ERROR, "no background with the value 0"),
    "label gap": (labels(background=0, liver=1, tumor=3), ERROR, "label values are 0, 1, 3; nnU-Net wants"),
    "ignore in between": (
        labels(background=0, liver=1, ignore=2, tumor=3),
        ERROR,
        "ignore label is 2; .* highest .* 3",
    ),
    "no region order": (labels(background=0, liver=[1, 2], tumor=2), ERROR, "regions_class_order is missing"),
    "region order": (
        lambda f: edit(f, labels={"background": 0, "liver": [1, 2], "tumor": 2}, regions_class_order=[1, 7]),
        ERROR,
        r"regions_class_order is \[1, 7\], but nnU-Net needs one label value for each of the 2 regions liver, tumor",
    ),
    "regions in the wrong order": (
        lambda f: edit(f, labels={"background": 0, "tumor": [2], "liver": [1, 2]}, regions_class_order=[2, 1]),
        ERROR,
        r"writes the region liver \[1, 2\] as 1 over tumor, so every voxel of the label 2 becomes 1",
    ),
    "all of the liver is tumor": (labels(background=0, liver=1, tumor=1), ERROR, "'tumor' has all values of the liver"),
    "white masks": (
        lambda f: rewrite(label(f), lambda a: (a > 0) * np.uint8(255)),
        ERROR,
        "contains the value 255 in .* which dataset.json does not declare",
    ),
    "other names": (labels(background=0, organ=1, tumor=2), WARNING, "no label is named liver .there are background"),
    "no tumor": (labels(background=0, liver=1, vessel=2), WARNING, "no label is named tumor"),
    "count": (lambda f: edit(f, numTraining=7), ERROR, "numTraining in dataset.json is 7, but there are images of 5"),
    "ending": (lambda f: edit(f, file_ending="nii.gz"), ERROR, "file_ending is 'nii.gz', which nnU-Net has no reader"),
    "other ending": (lambda f: edit(f, file_ending=".nrrd"), ERROR, "no image named CASE_0000.nrrd; .* end in .nii.gz"),
    "no images": (lambda f: shutil.rmtree(f / "imagesTr"), ERROR, "there is no folder .*imagesTr"),
    "missing channel": (lambda f: image(f, 1).unlink(), ERROR, f"{CASE}: the file of channel 1 is missing"),
    "missing first channel": (lambda f: image(f, 0).unlink(), ERROR, f"{CASE}: the file of channel 0 is missing"),
    "missing label": (lambda f: label(f).unlink(), ERROR, f"{CASE}: there is no label map"),
    "extra channel": (stray(f"imagesTr/{CASE}_0002.nii.gz"), ERROR, "is channel 2, but dataset.json declares 2"),
    "no channel number": (stray("imagesTr/extra.nii.gz"), ERROR, "extra.nii.gz in imagesTr has no channel number"),
    "hidden rest": (stray("imagesTr/.incomplete-x.nii.gz"), ERROR, "has no channel number"),
    "lonely label": (stray("labelsTr/other.nii.gz"), WARNING, "other: there is a label map but no other_0000.nii.gz"),
    "shape": (
        lambda f: rewrite(label(f), lambda a: a[:-1]),
        ERROR,
        rf"{CASE}.nii.gz and {CASE}_0000.nii.gz have different shapes, \(15, 32, 32\) and \(16, 32, 32\) voxels",
    ),
    "phases of different shape": (
        lambda f: rewrite(image(f, 1), lambda a: a[:, 1:]),
        ERROR,
        rf"{CASE}_0001.nii.gz and {CASE}_0000.nii.gz have different shapes, \(16, 31, 32\)",
    ),
    "spacing": (
        moved(Spacing=(5.0, 5.0, 5.0)),
        ERROR,
        r"differ in spacing: \(5, 5, 5\) and \(11.5.*go.* by voxel index",
    ),
    "origin": (moved(Origin=(0.0, 0.0, 9.0)), ERROR, r"differ in origin: \(0, 0, 9\) and \(-1"),
    "direction": (moved(Direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1)), ERROR, r"differ in direction: \(-1, 0, 0, 0, -1"),
    "NaN": (
        lambda f: rewrite(image(f), put(np.nan, count=4, dtype=np.float32)),
        ERROR,
        f"{CASE}_0000.nii.gz contains 4 voxels that are NaN or infinite; they would make the loss NaN, or",
    ),
    "infinite": (
        lambda f: rewrite(image(f, 1), put(np.inf, dtype=np.float32)),
        ERROR,
        "_0001.nii.gz contains 1 voxel that",
    ),
    "empty": (lambda f: rewrite(image(f), lambda a: a * 0), ERROR, "_0000.nii.gz is empty: all voxels are 0"),
    "constant": (lambda f: rewrite(image(f), lambda a: a * 0 - 1024), ERROR, "all voxels are -1024"),
    "windowed": (lambda f: rewrite(image(f), lambda a: a.clip(-100, 200)), WARNING, "no voxel below -100 .highest 200"),
    "unsigned": (
        lambda f: rewrite(image(f), lambda a: a + 1024),
        WARNING,
        "mean over the liver is 1[01].. HU, outside",
    ),
    "undeclared value": (
        lambda f: rewrite(label(f), put(7, count=5)),
        ERROR,
        rf"{CASE}.nii.gz contains the value 7 in 5 voxels, which dataset.json does not declare \(there are 0, 1, 2\)",
    ),
    "negative value": (
        lambda f: rewrite(label(f), put(-1, dtype=np.int16)),
        ERROR,
        "contains the value -1 in 1 voxel, which",
    ),
    "interpolated label": (
        lambda f: rewrite(label(f), put(0.5, count=3, dtype=np.float32)),
        ERROR,
        "contains 3 voxels with a value that is not a whole number, for example 0.5; it was probably resampled",
    ),
    "NaN label": (
        lambda f: rewrite(label(f), put(np.nan, dtype=np.float32)),
        ERROR,
        "contains 1 voxel that are NaN or infinite; as labels they have no",
    ),
    "all background": (lambda f: rewrite(label(f), lambda a: a * 0), WARNING, "is all background"),
    "far tumor": (swap_liver_and_far_tumor, WARNING, r"1 of \d tumors .3 voxels. touch no liver"),
    "truncated": (lambda f: truncate(image(f)), ERROR, f"{CASE}_0000.nii.gz: it is damaged .Compressed file ended"),
    "truncated label": (lambda f: truncate(label(f)), ERROR, f"{CASE}.nii.gz: it is damaged"),
    "cut inside": (lambda f: cut_inside(image(f)), ERROR, r"it ends after [\d,]+ of [\d,]+ bytes"),
    "flipped byte": (lambda f: flip_a_byte(image(f)), ERROR, "it is damaged"),
    "no bytes": (lambda f: image(f).write_bytes(b""), ERROR, f"{CASE}_0000.nii.gz: it is damaged"),
    "text": (lambda f: image(f).write_text("DICOM"), ERROR, f"{CASE}_0000.nii.gz: it is damaged"),
    "4D": (
        lambda f: sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(image(f))] * 2), image(f)),
        ERROR,
        "has 1 values per voxel, 4 dimensions; nnU-Net wants one gray-valued scan per file",
    ),
    "copy": (
        lambda f: shutil.copy(f / "imagesTr/phantom_000_0000.nii.gz", image(f)),
        WARNING,
        "phantom_001: the image equals that of phantom_000 voxel for voxel",
    ),
    "folder name": (lambda f: None, WARNING, "is not named DatasetNNN_Name"),
}


def test_a_sound_dataset_has_no_findings(sound):
    assert check_dataset(sound) == []


@pytest.mark.parametrize("name", BROKEN)
def test_one_broken_thing_is_named(folder, name):
    break_it, severity, message = BROKEN[name]
    break_it(folder)
    if name == "folder name":
        folder = folder.rename(folder.with_name("phantom"))
    findings = [f for f in check_dataset(folder) if re.search(message, f.message)]
    assert [f.severity for f in findings] == [severity]
    assert "\n  " in findings[0].message  # a remedy


@pytest.mark.parametrize("name", ["undeclared value", "NaN", "shape", "missing channel", "truncated", "origin", "MRI"])
def test_nothing_else_is_reported_beside_it(folder, name):
    BROKEN[name][0](folder)
    assert len(check_dataset(folder)) == 1


def test_all_problems_are_reported_at_once_in_parallel_too(folder):
    names = ["undeclared value", "NaN", "MRI", "count"]
    for name in names:
        BROKEN[name][0](folder)
    shutil.copytree(folder / "imagesTr", folder / "more")
    for path in (folder / "more").iterdir():  # enough cases for two processes
        shutil.copy(path, folder / "imagesTr" / path.name.replace("phantom", "second"))
        shutil.copy(
            folder / "labelsTr" / "phantom_000.nii.gz", folder / "labelsTr" / f"second_{path.name[8:11]}.nii.gz"
        )
    findings = check_dataset(folder, processes=1)
    assert {"label values", "NaN", "channel name", "number of cases"} <= {f.kind for f in findings}
    assert check_dataset(folder, processes=2) == findings
    severities = [f.severity for f in findings]
    assert severities == sorted(severities)  # errors first


def test_command_prints_all_and_exits_with_one(folder, tmp_path, capsys):
    for name in ("undeclared value", "NaN"):
        BROKEN[name][0](folder)
    assert main(["check", str(folder), "--json", str(tmp_path / "out.json")]) == 1
    printed = capsys.readouterr().out
    assert "error: phantom_001: phantom_001.nii.gz contains the value 7" in printed
    assert "NaN or infinite" in printed and "Dataset901_Phantom: 2 errors, 0 warnings" in printed
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["errors"], written["warnings"], len(written["findings"])) == (2, 0, 2)
    assert written["findings"][0].keys() == {"severity", "kind", "case", "message"}


def test_warnings_alone_exit_with_zero_and_are_summed_up(folder, capsys):
    for path in (folder / "imagesTr").iterdir():
        rewrite(path, lambda a: a.clip(-100, 200))
    assert main(["check", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("was windowed") == 5
    assert "warning: HU range: 5 more; --all prints them." in printed and "0 errors, 10 warnings" in printed
    assert main(["check", str(folder), "--all"]) == 0
    assert capsys.readouterr().out.count("was windowed") == 10


def test_command_finds_a_dataset_by_id(sound, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(sound.parent))
    assert main(["check", "901"]) == 0
    assert capsys.readouterr().out == "Dataset901_Phantom: no problem found\n"
    assert main(["check", "Dataset901_Fantom"]) == 1
    assert "Did you mean Dataset901_Phantom?" in capsys.readouterr().err
    assert main(["check", "901", "-np", "0"]) == 1
    assert "--workers 0: give at least 1" in capsys.readouterr().err


def test_few_cases_with_splits_of_their_own_can_be_cross_validated(sound, tmp_path):
    few = shutil.copytree(sound, tmp_path / sound.name)
    for path in (image(few), image(few, 1), label(few)):
        path.unlink()
    edit(few, numTraining=4)
    (warned,) = check_dataset(few)
    assert warned.kind == "few cases" and "nnUNetv2_train 901 3d_fullres all -tr" in warned.message
    (few / "splits_final.json").write_text("[]")
    assert not check_dataset(few)


def test_two_dimensional_pictures_are_read(tmp_path, capsys):
    folder = tmp_path / "Dataset903_Slices"
    for index in range(5):
        rng = np.random.default_rng(index)
        (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
        (folder / "labelsTr").mkdir(exist_ok=True)
        picture = rng.integers(60, 140, (20, 30)).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(picture), folder / "imagesTr" / f"s{index}_0000.png")
        sitk.WriteImage(sitk.GetImageFromArray(picture // 100), folder / "labelsTr" / f"s{index}.png")
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".png"}
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": 5}))
    assert {f.kind for f in check_dataset(folder)} == {"HU range", "no tumor label"}


def test_a_real_ct_passes(real_data, tmp_path):
    source = real_data / "ircad17"
    if not source.is_dir():
        pytest.skip("3D-IRCADb-01 patient 17 is not there")
    folder = tmp_path / "Dataset017_Ircad"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    (folder / "imagesTr" / "ircad17_0000.nii.gz").symlink_to(source / "ct.nii.gz")
    (folder / "labelsTr" / "ircad17.nii.gz").symlink_to(source / "label_liver1_tumor2.nii.gz")
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumor": 2}}
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": 1, "file_ending": ".nii.gz"}))
    assert {f.kind for f in check_dataset(folder)} == {"few cases"}
