"""One pair of files: geometry, orientation, labels, and what is refused in which words."""

import gzip
import math

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import Structures, structures_from_labels
from nnunet_livseg.evaluation.case_evaluation import evaluate_case
from nnunet_livseg.evaluation.options import Options

LESION = ((4, 7), (6, 12), (6, 12))
OBLIQUE = (0.96, -0.28, 0.0, 0.28, 0.96, 0.0, 0.0, 0.0, 1.0)


def write(path, labels, *, spacing=(0.8, 0.9, 2.5), origin=(3.0, -7.0, 11.0), direction=None, dtype=np.uint8):
    """``spacing``, ``origin`` and ``direction`` in SimpleITK's order (x, y, z)."""
    image = sitk.GetImageFromArray(labels.astype(dtype))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def reference(draw):
    return draw.liver_scan(lesions=[LESION])


@pytest.fixture
def predicted(draw):
    return draw.liver_scan(
        lesions=[((4, 7), (6, 12), (7, 12)), ((8, 9), (16, 18), (16, 18))], liver=((2, 10), (3, 21), (4, 25))
    )


@pytest.fixture
def files(tmp_path, predicted, reference):
    return write(tmp_path / "p.nii.gz", predicted), write(tmp_path / "r.nii.gz", reference)


def test_files_and_arrays_agree(files, predicted, reference):
    of_files = evaluate_case(*files)
    of_arrays = evaluate_case(predicted, reference, spacing_mm=(2.5, 0.9, 0.8), case="p")
    for name, scores in of_files.structures.items():
        assert scores == pytest.approx(of_arrays.structures[name], rel=1e-6, nan_ok=True)
    assert of_files.unit == of_arrays.unit == "mm"
    assert of_files.case == of_arrays.case == "p"


def test_the_liver_includes_its_tumor(predicted, reference):
    found = evaluate_case(predicted, reference, spacing_mm=(2.5, 0.9, 0.8))
    assert found.counts["liver"] == {
        "both": 8 * 18 * 21,
        "predicted": 8 * 18 * 21,
        "reference": 8 * 18 * 22,
        "image": 8064,
    }
    assert found.structures["tumor"]["dice"] == pytest.approx(2 * 90 / (94 + 108))
    assert found.burden["burden_reference"] == pytest.approx(108 / (8 * 18 * 22))
    assert found.burden["burden_difference"] == pytest.approx(94 / 3024 - 108 / 3168)
    assert found.structures["tumor"]["volume_reference"] == pytest.approx(108 * 2.5 * 0.9 * 0.8 / 1000)


def test_lesion_rows_know_place_size_and_match(files):
    found, false_alarm = evaluate_case(*files).lesions
    assert (found["kind"], found["found"], found["found_50"]) == ("reference", 1, 1)
    assert found["iou"] == pytest.approx(90 / 108)
    assert found["dice"] == pytest.approx(2 * 90 / (90 + 108))
    assert (found["center_x"], found["center_y"], found["center_z"]) == pytest.approx(
        (3 + 8.5 * 0.8, -7 + 8.5 * 0.9, 11 + 5 * 2.5), rel=1e-5
    )
    assert found["diameter"] == pytest.approx(math.hypot(3 * 2.5, 5 * 0.9, 5 * 0.8))  # top face to bottom face
    assert (false_alarm["kind"], false_alarm["volume"]) == ("false_alarm", pytest.approx(4 * 1.8 / 1000))


def test_a_missed_lesion_and_a_fragment(draw):
    reference = draw.liver_scan(lesions=[((3, 8), (4, 20), (5, 6)), ((3, 4), (4, 5), (20, 21))])
    predicted = draw.liver_scan(lesions=[((3, 8), (4, 10), (5, 6)), ((3, 8), (12, 20), (5, 6))])
    rows = evaluate_case(predicted, reference, spacing_mm=(1, 1, 1)).lesions
    assert [row["kind"] for row in rows] == ["reference", "reference", "fragment"]
    missed = next(row for row in rows if row["kind"] == "reference" and not row["found"])
    assert (missed["dice"], missed["assd"], missed["diameter"]) == (0, math.inf, 1.0)


@pytest.mark.parametrize("target", ["RAS", "LPI", "PIR", "ASL"])
def test_another_orientation_of_the_same_grid_changes_nothing(tmp_path, files, target):
    turned = sitk.DICOMOrient(sitk.ReadImage(str(files[0])), target)
    sitk.WriteImage(turned, str(tmp_path / "turned.nii.gz"))
    expected, found = evaluate_case(*files), evaluate_case(tmp_path / "turned.nii.gz", files[1])
    for name, scores in found.structures.items():
        assert scores == pytest.approx(expected.structures[name], rel=1e-6, nan_ok=True)
    assert found.lesions[0]["center_x"] == pytest.approx(expected.lesions[0]["center_x"], rel=1e-5)


def test_oblique_grids_count_in_their_own_axes(tmp_path, files, predicted, reference):
    oblique = [
        write(tmp_path / f"o{n}.nii.gz", labels, direction=OBLIQUE) for n, labels in enumerate((predicted, reference))
    ]
    expected, found = evaluate_case(*files), evaluate_case(*oblique)
    for name, scores in found.structures.items():
        assert scores == pytest.approx(expected.structures[name], rel=1e-5, nan_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": (3.0, -7.0, 12.0)}, r"origin \(x, y, z\): prediction \(3, -7, 12\), reference \(3, -7, 11\)"),
        ({"spacing": (0.8, 0.9, 2.4)}, r"spacing .*prediction \(0.8, 0.9, 2.4\), reference \(0.8, 0.9, 2.5\)"),
        ({"direction": OBLIQUE}, r"direction .*prediction \(0.96, -0.28.*reference \(1, 0"),
        ({"cut": True}, r"shape \(z, y, x\): prediction \(11, 24, 28\), reference \(12, 24, 28\)"),
    ],
)
def test_another_grid_is_refused_with_both_values(tmp_path, files, predicted, change, message):
    labels = predicted[:-1] if change.pop("cut", False) else predicted
    other = write(tmp_path / "other.nii.gz", labels, **change)
    with pytest.raises(UserError, match=message) as caught:
        evaluate_case(other, files[1])
    assert "--resample" in str(caught.value)


def test_rounding_of_headers_is_no_other_grid(tmp_path, files, predicted):
    near = write(tmp_path / "near.nii.gz", predicted, origin=(3.0001, -7.0001, 11.0), spacing=(0.80001, 0.9, 2.5))
    assert evaluate_case(near, files[1]).structures["liver"]["dice"] > 0.9


def test_resampling_brings_a_prediction_back(tmp_path, files, reference):
    """The reference twice as fine in plane, resampled: exactly the reference again."""
    fine = np.repeat(np.repeat(reference, 3, axis=1), 3, axis=2)
    origin = (3.0 - 0.8 / 3, -7.0 - 0.9 / 3, 11.0)  # voxel centers move with the finer grid
    path = write(tmp_path / "fine.nii.gz", fine, spacing=(0.8 / 3, 0.3, 2.5), origin=origin)
    found = evaluate_case(path, files[1], options=Options(resample=True))
    assert found.structures["tumor"]["dice"] == 1
    assert found.notes == ["prediction resampled to the reference's grid (nearest neighbor)"]


def test_two_dimensional_png_counts_in_pixels(tmp_path, predicted, reference):
    for name, labels in (("p.png", predicted[5]), ("r.png", reference[5])):
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / name))
    found = evaluate_case(tmp_path / "p.png", tmp_path / "r.png")
    assert (found.unit, found.ndim) == ("px", 2)
    assert found.structures["tumor"]["hd"] == 1
    assert found.structures["tumor"]["volume_reference"] == 36
    assert found.lesions[0]["diameter"] == pytest.approx(math.hypot(6, 5))


def test_float_labels_without_fractions_are_read_and_noted(tmp_path, files, predicted):
    path = write(tmp_path / "f.nii.gz", predicted, dtype=np.float32)
    found = evaluate_case(path, files[1])
    assert found.structures["tumor"] == evaluate_case(*files).structures["tumor"]
    assert found.notes == ["f.nii.gz stores its labels as float32"]
    assert found.counts == evaluate_case(*files).counts


def test_probabilities_are_refused(tmp_path, files, predicted):
    path = write(tmp_path / "prob.nii.gz", predicted * 0.37, dtype=np.float32)
    with pytest.raises(UserError, match=r"prob.nii.gz contains the value 0.37, which is not a whole .* probabilities"):
        evaluate_case(path, files[1])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
def test_what_is_no_number_of_a_label_is_refused(tmp_path, files, predicted, value):
    """In NRRD: ITK reads what is not finite in a NIfTI file as 0, so there it cannot be seen."""
    labels = predicted.astype(np.float32)
    labels[3, 4, 5] = value
    with pytest.raises(UserError, match=r"n.nrrd contains the value (nan|inf|1e\+12)"):
        evaluate_case(write(tmp_path / "n.nrrd", labels, dtype=np.float32), files[1])


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".png"])
def test_truncated_files_are_refused(tmp_path, files, reference, ending):
    """ITK itself reads half a NIfTI file without complaint and invents the rest."""
    noise = np.random.default_rng(0).integers(0, 3, (40, 24, 28)).astype(np.uint8)
    path = tmp_path / f"cut{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(noise[5] if ending == ".png" else noise), str(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"cut{ending} cannot be read: it is damaged"):
        evaluate_case(path, files[1])


def test_a_damaged_checksum_is_noticed(files):
    content = bytearray(files[0].read_bytes())
    content[-6] ^= 0xFF
    files[0].write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"p.nii.gz cannot be read"):
        evaluate_case(*files)


def test_no_image_at_all_is_refused(tmp_path, files):
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"not an image"))
    with pytest.raises(UserError, match=r"text.nii.gz cannot be read"):
        evaluate_case(tmp_path / "text.nii.gz", files[1])


def test_color_images_are_refused(tmp_path, reference):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((24, 28, 3), np.uint8), isVector=True), str(tmp_path / "rgb.png"))
    sitk.WriteImage(sitk.GetImageFromArray(reference[5]), str(tmp_path / "r.png"))
    with pytest.raises(UserError, match=r"rgb.png has 3 channels"):
        evaluate_case(tmp_path / "rgb.png", tmp_path / "r.png")


def test_labels_that_the_dataset_does_not_know_are_refused(predicted, reference):
    known = structures_from_labels({"background": 0, "liver": 1})
    with pytest.raises(
        UserError, match=r"the prediction contains the labels \[2\], but dataset.json only knows \[0, 1\]"
    ):
        evaluate_case(predicted, reference, structures=known)


def test_labels_that_nobody_asked_for_are_noted(predicted, reference):
    found = evaluate_case(predicted, reference, structures={"liver": (1,)})
    assert found.notes == [
        "labels of the prediction that count as background: [2]",
        "labels of the reference that count as background: [2]",
    ]


def test_ignored_voxels_count_neither_way(predicted, reference):
    ignored = reference.copy()
    ignored[predicted != reference] = 9  # everything that is wrong is to be ignored
    structures = Structures({"liver": (1, 2), "tumor": (2,)}, frozenset({0, 1, 2}), ignore=9)
    found = evaluate_case(predicted, ignored, structures=structures)
    assert found.structures["tumor"]["dice"] == found.structures["liver"]["dice"] == 1
    assert found.counts["liver"]["image"] == int((predicted == reference).sum())


def test_nothing_in_the_reference_nor_predicted(draw):
    scan = draw.liver_scan()
    found = evaluate_case(scan, scan, spacing_mm=(1, 1, 1))
    assert found.status("tumor") == "both_empty"
    assert math.isnan(found.structures["tumor"]["dice"])
    assert found.lesions == []
    assert found.detection["group_0"] == {"found": 0, "missed": 0, "true": 0, "false": 0}


def test_wrong_arrays_are_refused(predicted):
    with pytest.raises(UserError, match="this array is float64"):
        evaluate_case(predicted.astype(float), predicted)
    with pytest.raises(UserError, match="the shapes differ"):
        evaluate_case(predicted[1:], predicted)


def test_mode_lits_averages_merged_lesions(predicted, reference):
    found = evaluate_case(predicted, reference, spacing_mm=(2.5, 0.9, 0.8), options=Options(mode="lits"))
    (row,) = found.lesions
    assert (row["kind"], row["dice"]) == ("merged", pytest.approx(2 * 90 / (90 + 108)))
    assert row["rvd"] == pytest.approx((108 - 90) / 90)
    assert found.detection["lits_50"] == {"found": 1, "missed": 0, "true": 1, "false": 1}


def test_a_real_liver_in_other_orientations(real_data, tmp_path):
    """TotalSegmentator's liver is stored RAS-like; LPS and PIR copies of it are the same liver."""
    path = real_data / "totalsegmentator_ct" / "example_ct_sm_liver.nii.gz"
    image = sitk.ReadImage(str(path))
    shifted = sitk.GetImageFromArray(np.roll(sitk.GetArrayFromImage(image), 1, axis=2))
    shifted.CopyInformation(image)
    expected = None
    for target in ("RAS", "LPS", "PIR"):
        sitk.WriteImage(sitk.DICOMOrient(shifted, target), str(tmp_path / f"{target}.nii.gz"))
        found = evaluate_case(tmp_path / f"{target}.nii.gz", path, structures={"liver": (1,)}).structures["liver"]
        expected = expected or found
        assert found == pytest.approx(expected, rel=1e-6)
    assert found["hd"] == pytest.approx(3.0)
    assert 0.9 < found["dice"] < 1


def test_a_real_tumor_patient_against_itself(real_data):
    path = real_data / "ircad17" / "label_liver1_tumor2.nii.gz"
    found = evaluate_case(path, path)
    assert found.counts["tumor"]["reference"] == 185_990
    assert found.structures["tumor"]["dice"] == 1
    volumes = sorted((row["volume"] for row in found.lesions), reverse=True)
    assert volumes == pytest.approx([86, 79], abs=0.8)
    assert all(row["found_50"] for row in found.lesions)
