"""A folder of label maps: nothing but the labels changes, and an interrupted call goes on."""

import json
import re

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import structures_from_values
from nnunet_livseg.postprocessing import LargestLiver, SmallestLesion, TumorInLiver, apply
from nnunet_livseg.postprocessing.postprocess_folder import RECORD, apply_to_folder

ONLY_LARGEST = (LargestLiver(),)
BOTH = structures_from_values((1,), (2,))
OBLIQUE = (0.8, 0.6, 0.0, 0.6, -0.8, 0.0, 0.0, 0.0, -1.0)  # turned and flipped


def scan(n=0):
    labels = np.zeros((5, 8, 12), np.uint8)
    labels[1:4, 1:7, 1:8] = 1
    labels[2, 3, 3:5], labels[2, 5, 1 + n] = 2, 2
    labels[1:3, 2:4, 10] = 1
    return labels


def image(labels, pixel=np.uint8):
    made = sitk.GetImageFromArray(labels.astype(pixel))
    if labels.ndim == 3:
        made.SetSpacing((0.7, 0.8, 5.0))
        made.SetOrigin((-31.5, 12.25, 700.0))
        made.SetDirection(OBLIQUE)
    return made


@pytest.fixture
def predictions(tmp_path):
    folder = tmp_path / "predictions"
    folder.mkdir()
    for n in range(3):
        sitk.WriteImage(image(scan(n)), str(folder / f"c{n}.nii.gz"))
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1, "tumor": 2}}')
    return folder


def run(predictions, steps=ONLY_LARGEST, out="out"):
    return apply_to_folder(predictions, predictions.parent / out, steps=steps, structures=BOTH)


@pytest.mark.parametrize("pixel", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_geometry_and_pixel_type_stay(tmp_path, pixel, ending):
    (tmp_path / "in").mkdir()
    sitk.WriteImage(image(scan(), pixel), str(tmp_path / "in" / f"a{ending}"))
    steps = (LargestLiver(), TumorInLiver(0.5), SmallestLesion(4.0))
    run(tmp_path / "in", steps)
    before, after = (sitk.ReadImage(str(tmp_path / name / f"a{ending}")) for name in ("in", "out"))
    for get in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection", "GetPixelID"):
        assert getattr(after, get)() == getattr(before, get)(), get
    expected, _ = apply(scan(), (5.0, 0.8, 0.7), BOTH, steps)
    assert (expected != scan()).any()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after), expected)


def test_pixels_are_the_unit_of_pictures(tmp_path):
    (tmp_path / "in").mkdir()
    picture = image(scan()[2])
    picture.SetSpacing((0.1, 0.1))  # PNG keeps it, but no evaluation reads it
    sitk.WriteImage(picture, str(tmp_path / "in" / "a.png"))
    run(tmp_path / "in", (SmallestLesion(2.0),))
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "a.png")))
    assert (found[3, 3:5] == 2).all() and found[5, 1] == 1


def test_finished_files_are_skipped_and_changed_or_lost_ones_are_done_again(predictions):
    out = predictions.parent / "out"
    first = run(predictions)
    assert first.n_reused == 0
    for n in range(3):
        (out / f"c{n}.nii.gz").write_bytes(b"mark")  # what is not written again keeps the mark
    sitk.WriteImage(image(scan(5)), str(predictions / "c1.nii.gz"))
    (out / "c2.nii.gz").unlink()
    second = run(predictions)
    assert second.n_reused == 1 and second.changes == first.changes
    assert (out / "c0.nii.gz").read_bytes() == b"mark"
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(out / "c1.nii.gz")))[2, 5, 6] == 2
    assert (out / "c2.nii.gz").is_file()


def test_a_damaged_file_stops_no_other_and_leaves_nothing(predictions):
    whole = (predictions / "c1.nii.gz").read_bytes()
    (predictions / "c1.nii.gz").write_bytes(whole[:-40])
    done = run(predictions)
    assert [problem.case for problem in done.problems] == ["c1.nii.gz"] and "damaged" in done.problems[0].reason
    out = predictions.parent / "out"
    assert {path.name for path in out.iterdir()} == {"c0.nii.gz", "c2.nii.gz", "dataset.json", RECORD}
    (predictions / "c1.nii.gz").write_bytes(whole)
    assert run(predictions).n_reused == 2
    assert (out / "c1.nii.gz").is_file()


def test_an_interruption_keeps_what_was_finished(predictions, monkeypatch):
    from nnunet_livseg.postprocessing import postprocess_folder

    write = postprocess_folder.write_volume

    def interrupted(image, path):
        if path.name == "c1.nii.gz":
            raise KeyboardInterrupt
        write(image, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(postprocess_folder, "write_volume", interrupted)
        run(predictions)
    assert run(predictions).n_reused == 1


def test_what_was_changed_is_written_down(predictions):
    run(predictions, (LargestLiver(), SmallestLesion(4.0)))
    record = json.loads((predictions.parent / "out" / RECORD).read_text())
    assert record["steps"] == [{"step": "largest-liver"}, {"step": "smallest-lesion", "volume_mm3": 4.0}]
    assert record["files"]["c0.nii.gz"]["changes"] == [
        "largest-liver: 1 smaller part of the liver became background (4 voxels)",
        "smallest-lesion=4: of less than 4 mm3, 1 lesion became liver (1 voxel)",
    ]


def test_results_of_other_steps_are_not_mixed(predictions):
    run(predictions)
    with pytest.raises(UserError, match=r"contains label maps after other steps than smallest-lesion=4 .*told apart"):
        run(predictions, (SmallestLesion(4.0),))


def test_results_of_other_structures_are_not_mixed(predictions):
    run(predictions)
    out = predictions.parent / "out"
    with pytest.raises(UserError, match=r"contains label maps made with other label values than liver 3 .*told apart"):
        apply_to_folder(predictions, out, steps=ONLY_LARGEST, structures=structures_from_values((3,)))


def test_a_damaged_record_is_named(predictions):
    run(predictions)
    path = predictions.parent / "out" / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": []}))
    with pytest.raises(UserError, match=r"is damaged: files is not an object.\n  Delete it to process every file"):
        run(predictions)


@pytest.mark.parametrize("files", [{"c0.nii.gz": {"changes": []}}, {"c0.nii.gz": None}])
def test_a_damaged_entry_is_as_none(predictions, files):
    first = run(predictions)
    path = predictions.parent / "out" / RECORD
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"files": files}))
    again = run(predictions)
    assert (again.n_reused, again.changes) == (0, first.changes)
    assert json.loads(path.read_text()).keys() == whole.keys()


def test_predictions_are_never_overwritten(predictions):
    with pytest.raises(UserError, match="would lie among the files of the input predictions"):
        run(predictions, out="predictions")


def test_fractions_are_no_labels(tmp_path):
    (tmp_path / "in").mkdir()
    sitk.WriteImage(image(scan() * 0.5, np.float32), str(tmp_path / "in" / "a.nii.gz"))
    (problem,) = run(tmp_path / "in").problems
    assert re.search("a.nii.gz contains the value 0.5, which is not a whole number", problem.reason)


def test_folders_without_label_maps_are_named(tmp_path):
    with pytest.raises(UserError, match="there is no label map in"):
        run(tmp_path)
    with pytest.raises(UserError, match=r"nowhere is not a folder\.\n  Give the folder of predicted label maps"):
        run(tmp_path / "nowhere")


def test_a_step_that_does_not_fit_is_said_before_the_work(predictions):
    with pytest.raises(UserError, match="tumor-in-liver needs a label for tumor"):
        apply_to_folder(
            predictions, predictions.parent / "out", steps=[TumorInLiver()], structures=structures_from_values((1,))
        )
    assert not (predictions.parent / "out").exists()
