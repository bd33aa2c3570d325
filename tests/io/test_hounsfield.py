"""Whether values are Hounsfield units, asked of the whole histogram: a table of what people have, and every command."""

import json

import numpy as np
import pytest
from io_samples import as_image, ct_array, dicom_slices, label_array, save_slices, write

from nnunet_livseg.data.dicom import read_series
from nnunet_livseg.imaging.hounsfield import judge_hounsfield, require_hounsfield, shifted_hu

HU = ct_array()
LIVER = np.where(label_array() > 0, HU, -1024)
LOST = HU + 1024


def with_few(values, low, high=None):
    """A thousandth of the voxels set to what streaks, metal or a cut corner leave."""
    values = values.copy()
    values[0, 0, : max(1, values.size // 1500)] = low
    if high is not None:
        values[-1, -1, : max(1, values.size // 1500)] = high
    return values


def corner(values, padding):
    values = values.copy()
    values[:, :6, :6] = padding
    return values


WINDOWED = HU.clip(-160, 240)
GOOD = {
    "as it is": HU,
    "metal and streaks": with_few(HU, -1500, 30000),
    "padded": corner(HU, -3024),
    "cut to the body": HU[:, 10:26, 6:24],
    "masked to the liver": LIVER,
    "masked, without contrast, with fat": np.where(LIVER > -1024, LIVER - 70, -1024),
    "clipped to a window": WINDOWED,
    "in floating point": HU / np.float32(1.0),
    "no liver": HU.clip(-1024, -50),
    "air above and below the body": np.concatenate([np.full_like(HU, -1000), HU]),
    "12 bits wide": HU.clip(-1024, 3071),
}
LOST_INTERCEPT = {
    "lost": LOST,
    **{f"lost, padding {low}": corner(LOST, low) for low in (-2000, -1024, -1000, -3024, -32768, -1)},
    "lost, streaks and metal": with_few(LOST, -40, 30000),
    "lost, cut to the body": with_few(LOST[:, 10:26, 6:24], -30),
    "lost 1000": HU + 1000,
    "some slices": np.concatenate([HU[:5], LOST[5:7], HU[7:]]),
    "first slice": np.concatenate([LOST[:1], HU[1:]]),
}
UNIT = (WINDOWED + 160) / np.float32(400)
NORMALIZED = {
    "0 to 1": UNIT,
    "-1 to 1": 2 * UNIT - 1,
    "-0.5 to 0.5": UNIT - 0.5,
    "-1 to 1 with padding": corner(2 * UNIT - 1, -2000),
    "0 to 1 with air about it": np.where(label_array() > 0, UNIT, -1024),
    "z-scores": (HU - HU.mean()) / HU.std(),
    "z-scores with metal": with_few((HU - HU.mean()) / HU.std(), -9, 40),
    "divided by 1000": HU / np.float32(1000),
    "divided by 100": HU / np.float32(100),
    "0 to 255": (UNIT * 255).astype(np.uint8),
    "0 to 255 with padding": corner(UNIT * 255, -2000),
    "0 to 255 with metal": with_few(UNIT * 255, 0, 3000),
    "-128 to 127": np.rint(UNIT * 255 - 128).astype(np.int8),
    "-100 to 100": 200 * UNIT - 100,
    "0 to 1000": UNIT * 1000,
    "0 to 65535": (UNIT * 65535).astype(np.uint16),
    "intercept subtracted twice": HU.astype(int) - 1024,
}


@pytest.mark.parametrize("name", GOOD)
def test_hounsfield_units_pass(name):
    assert not judge_hounsfield(GOOD[name], remedy="it").problem


@pytest.mark.parametrize("name", LOST_INTERCEPT)
def test_a_lost_intercept_is_named(name):
    problem = judge_hounsfield(LOST_INTERCEPT[name], remedy="--offset -1024").problem
    assert "intercept" in problem and "--offset -1024" in problem and "\n  " in problem
    if "slice" in name:
        assert ("in 2 of 12 slices (z = 5, 6)" if name == "some slices" else "in 1 of 12 slices (z = 0)") in problem


@pytest.mark.parametrize("name", NORMALIZED)
def test_other_scales_are_named(name):
    problem = judge_hounsfield(NORMALIZED[name], remedy="--offset -1024").problem
    assert any(word in problem for word in ("normalized", "gray picture", "nothing below 0", "subtracted twice"))


def test_large_volumes_are_judged_by_a_part_of_their_voxels():
    large = np.repeat(np.repeat(LOST, 30, axis=1), 30, axis=2)
    assert "intercept" in judge_hounsfield(large, remedy="x").problem


def test_remarks_on_what_can_be_used():
    assert require_hounsfield(corner(HU, -3024), "ct", remedy="")[0].startswith("padding below -1024 HU in 1.9%")
    assert require_hounsfield(HU.clip(-100, 200), "ct", remedy="") == (
        "no value below -100 HU: the volume was clipped or masked",
    )


@pytest.mark.parametrize(
    ("values", "offset", "expected"),
    [
        (np.array([0, 65535], np.uint16), -1024, [-1024, 64511]),
        (np.array([-32768, 100], np.int16), -1024, [-33792, -924]),
        (np.array([0, 4095], np.uint16), -1024, [-1024, 3071]),
        (np.array([0, 255], np.uint8), -1000, [-1000, -745]),
        (np.array([0.25, 4000.5], np.float32), -1024, [-1023.75, 2976.5]),
        (np.array([0, 2**31], np.uint32), -1024, [-1024, 2**31 - 1024]),
        (np.array([0, 4], np.int16), -0.5, [-0.5, 3.5]),
    ],
)
def test_an_offset_never_overflows(values, offset, expected):
    import SimpleITK as sitk

    found = shifted_hu(sitk.GetImageFromArray(values[None]), offset)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found)[0], expected)


# --- every command asks


def given(tmp_path, values):
    write(as_image(values), tmp_path / "ct.nii.gz")
    write(as_image(HU), tmp_path / "good.nii.gz")
    write(as_image(values), tmp_path / "own/images/a.nii.gz")
    write(as_image(label_array()), tmp_path / "own/labels/a.nii.gz")
    raw = tmp_path / "Dataset003_X"
    write(as_image(values), raw / "imagesTr/a_0000.nii.gz")
    write(as_image(label_array()), raw / "labelsTr/a.nii.gz")
    labels = {"background": 0, "liver": 1, "tumor": 2}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(content))
    return {
        "convert": ("folder", tmp_path / "own", "--id", 3, "--out", tmp_path / "raw", "--workers", 1),
        "align": (tmp_path / "ct.nii.gz", tmp_path / "good.nii.gz", "-o", tmp_path / "aligned"),
        "check": (raw,),
    }


@pytest.mark.parametrize("values", [corner(LOST, -2000), LOST_INTERCEPT["some slices"], NORMALIZED["-1 to 1"]])
def test_commands_refuse_them(values, tmp_path, livseg):
    for command, arguments in given(tmp_path, values).items():
        status, printed = livseg(command, *arguments)
        assert status == 1, f"{command}: {printed}"
        assert "intercept" in printed or "normalized" in printed, f"{command}: {printed}"
    assert not list(tmp_path.rglob("raw/*/dataset.json")) and not (tmp_path / "aligned").exists()


# --- DICOM: the tags of some slices


def study(tmp_path, change):
    slices = dicom_slices(HU)
    for one in slices[4:6]:
        change(one)
    save_slices(slices, tmp_path / "study")
    return tmp_path / "study"


def without(*keywords):
    def change(one):
        for keyword in keywords:
            delattr(one, keyword)

    return change


TAGS = {
    "both missing": (without("RescaleSlope", "RescaleIntercept"), "2 of 12 slices have no RescaleIntercept"),
    "intercept missing": (without("RescaleIntercept"), "2 of 12 slices have no RescaleIntercept"),
    "intercept empty": (lambda one: setattr(one, "RescaleIntercept", None), "2 of 12 slices have no RescaleIntercept"),
    "intercept 0": (lambda one: setattr(one, "RescaleIntercept", 0), r"in 2 of 12 slices \(z = 4, 5\)"),
}


@pytest.mark.parametrize("name", TAGS)
def test_some_slices_without_their_scale(name, tmp_path, livseg):
    import re

    change, message = TAGS[name]
    folder = study(tmp_path, change)
    status, printed = livseg("dicom", "convert", folder, "-o", tmp_path / "out.nii.gz")
    assert status == 1 and re.search(message, printed) and "--intercept -1024" in printed, printed
    image, _ = read_series(folder, intercept=-1024)
    import SimpleITK as sitk

    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), HU)


def test_a_missing_slope_of_one_is_harmless_and_noted(tmp_path):
    _, info = read_series(study(tmp_path, without("RescaleSlope")))
    assert info.notes == ("no RescaleSlope in the header; taken as 1",)


def test_slices_with_scales_of_their_own_are_right_and_noted(tmp_path):
    import SimpleITK as sitk

    def other(one):
        one.RescaleIntercept = -2048
        one.PixelData = (np.frombuffer(one.PixelData, np.uint16) + 1024).tobytes()

    image, info = read_series(study(tmp_path, other))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), HU)
    assert info.notes == ("RescaleIntercept differs between slices: -2048, -1024",)
