"""Phases with a known displacement: what registration leaves of it inside the liver, in voxels."""

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import as_image, write
from scipy import ndimage

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.align import align, transforms
from nnunet_livseg.data.align.agreement import mutual_information
from nnunet_livseg.data.align.registration import displacements_mm
from nnunet_livseg.data.align.transforms import rigid, working
from nnunet_livseg.data.phantom import make_case

SHAPE, SPACING_MM = (40, 72, 88), (4.0, 3.0, 2.5)
LIVER_MM = np.array([[75.0, 100.0, 75.0], [36.0, 55.0, 60.0]])  # center and radii (z, y, x)
TUMOR_MM = np.array([[75.0, 90.0, 85.0], [14.0, 14.0, 14.0]])
VESSELS_MM = [(10, 25, -5), (-10, -30, -10), (0, 20, 30), (12, -15, -35), (-12, 10, -30), (-8, 35, 5), (5, -25, 30)]
# (center, radii, portal venous HU, arterial HU): contrast changes between the phases, and not by one factor
ORGANS = (
    ((80, 108, 110), (200, 95, 100), -80, -80),
    ((80, 108, 110), (200, 85, 90), 55, 50),
    (*LIVER_MM.tolist(), 110, 70),
    ((70, 70, 160), (25, 30, 22), 120, 160),
    ((50, 140, 60), (28, 18, 20), 180, 220),
    ((50, 140, 165), (28, 18, 20), 180, 220),
    ((80, 165, 110), (200, 14, 14), 400, 390),
    ((80, 140, 105), (200, 9, 9), 150, 320),
    (*TUMOR_MM.tolist(), 60, 120),
    *(((75 + dz, 100 + dy, 75 + dx), (20, 5, 5), 170, 75) for dz, dy, dx in VESSELS_MM),
)


def inside(points_mm: np.ndarray, center, radii) -> np.ndarray:
    return (((points_mm - center) / radii) ** 2).sum(axis=-1) < 1


def patient_points(warp=None) -> np.ndarray:
    """Where in the patient each voxel of a scan lies, ``(z, y, x, 3)`` in mm."""
    points = np.moveaxis(np.indices(SHAPE), 0, -1) * np.array(SPACING_MM)
    return warp(points) if warp else points


def scan(arterial: bool, warp=None) -> sitk.Image:
    points = patient_points(warp)
    values = np.full(SHAPE, -1000.0)
    for center, radii, venous_hu, arterial_hu in ORGANS:
        values[inside(points, center, radii)] = arterial_hu if arterial else venous_hu
    values = ndimage.gaussian_filter(values, 0.6) + np.random.default_rng(int(arterial)).normal(0, 10, SHAPE)
    return as_image(values.astype(np.int16), spacing_mm=SPACING_MM, origin_mm=(-110, -105, 30))


def mask(shape_mm=LIVER_MM, warp=None) -> sitk.Image:
    found = inside(patient_points(warp), *shape_mm).astype(np.uint8)
    return as_image(found, spacing_mm=SPACING_MM, origin_mm=(-110, -105, 30))


def label(warp=None) -> sitk.Image:
    return mask(warp=warp) + mask(TUMOR_MM, warp)


ROTATION = sitk.Euler3DTransform((110, 105, 80), 0.04, -0.05, 0.09, (0.0, 0.0, 0.0))
SHIFT_MM = np.array([9.0, -7.0, 11.0])  # z, y, x


def rigid_warp(points: np.ndarray) -> np.ndarray:
    """The arterial scan sees, at p, the patient at R(p - c) + c + shift."""
    rotation = np.reshape(ROTATION.GetMatrix(), (3, 3))[::-1, ::-1]
    center = np.array([80, 105, 110])
    return (points - center) @ rotation.T + center + SHIFT_MM


def bending_warp(points: np.ndarray) -> np.ndarray:
    """Breathing tilts and bends the liver: its lobes move by up to 14 mm in opposite directions; the spine stays."""
    weight = np.exp(-(((points - LIVER_MM[0]) / (60, 90, 90)) ** 2).sum(axis=-1, keepdims=True))
    side = np.sin((points[..., 2:] - LIVER_MM[0][2]) / 32)
    return points + weight * side * np.array((14.0, -4.0, 3.0))


def residual_voxels(transform: sitk.Transform, warp) -> np.ndarray:
    """How many voxels (longest side: 4 mm) points of the liver still miss their place by."""
    grid = mask()
    liver = sitk.GetArrayFromImage(grid) > 0
    moved = displacements_mm(transform, grid, liver, limit=400)
    start = np.argwhere(liver)[:: max(1, int(liver.sum()) // 400)] * np.array(SPACING_MM)
    landed = warp(start + moved[:, ::-1])  # the patient at the place that the transform chose in the other scan
    return np.linalg.norm((landed - start) / SPACING_MM, axis=1)


@pytest.fixture(scope="module")
def venous():
    return scan(arterial=False)


@pytest.mark.parametrize("use_mask", [False, True])
def test_rigid_displacement_is_undone_to_under_one_voxel(venous, use_mask):
    """Wrong direction of the transform; rotation about the corner; a metric that wants equal contrast."""
    assert residual_voxels(sitk.Transform(3, sitk.sitkIdentity), rigid_warp).mean() > 3
    result = align(venous, scan(True, rigid_warp), mask=mask() if use_mask else None)
    residual = residual_voxels(result.transform, rigid_warp)
    assert result.method == "rigid"
    assert residual.max() < 1.0 and residual.mean() < 0.5
    assert result.after.mutual_information > result.before.mutual_information
    assert result.after.body_dice > 0.97 > result.before.body_dice


@pytest.mark.parametrize("use_mask", [False, True])
def test_the_projects_phantom_is_aligned_to_under_half_a_voxel(use_mask):
    """A phantom with vessels, tumors of four kinds and texture, its arterial phase rotated and moved by 16 mm."""
    case = make_case(5, size=(40, 80, 80), phases=2)
    spacing_mm = case.grid.spacing_mm
    place = {"spacing_mm": spacing_mm, "origin_mm": case.grid.origin_mm[::-1]}
    portal, arterial, label = (as_image(array, **place) for array in (*case.image, case.label))
    liver = case.label > 0
    center = portal.TransformContinuousIndexToPhysicalPoint(np.argwhere(liver).mean(axis=0)[::-1].tolist())
    moved = sitk.Euler3DTransform(center, 0.05, -0.04, 0.08, (9.0, -7.0, 12.0))
    other = sitk.Resample(arterial, arterial, moved.GetInverse(), sitk.sitkLinear, -1024)
    result = align(portal, other, mask=label if use_mask else None)
    left_mm = displacements_mm(result.transform, portal, liver) - displacements_mm(moved, portal, liver)
    assert np.linalg.norm(left_mm / spacing_mm[::-1], axis=1).max() < 0.5


def rough(liver: sitk.Image, seed: int, error_mm: float) -> sitk.Image:
    """A liver as a model might predict it: its boundary moved in and out, smoothly over some 10 mm."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 3)
    distance_mm = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(liver, squaredDistance=False, useImageSpacing=True)
    )
    found = (distance_mm + noise * error_mm / noise.std() < 0).astype(np.uint8)
    return as_image(found, spacing_mm=SPACING_MM, origin_mm=(-110, -105, 30))


@pytest.fixture(scope="module")
def bent():
    return scan(True, bending_warp)


@pytest.fixture(scope="module")
def stiff_residual(venous, bent):
    """What rigid registration leaves of the bending, on average."""
    return residual_voxels(align(venous, bent, mask=mask()).transform, bending_warp).mean()


def test_bending_is_undone_to_under_one_voxel_with_both_livers(venous, bent, stiff_residual):
    result = align(venous, bent, mask=mask(), method="deformable-livers", other_mask=mask(warp=bending_warp))
    residual = residual_voxels(result.transform, bending_warp)
    assert result.method == "deformable-livers" and stiff_residual > 1.5
    assert residual.mean() < 0.8 and residual.max() < 1.4  # measured: 0.64 and 1.06
    assert result.after.liver_dice > 0.95 > result.before.liver_dice


def test_livers_drawn_wrong_by_two_millimeters_still_help(venous, bent, stiff_residual):
    """A spline that follows every error of two predicted masks leaves more than it found."""
    livers = rough(mask(), 11, 2.0), rough(mask(warp=bending_warp), 12, 2.0)
    result = align(venous, bent, mask=livers[0], method="deformable-livers", other_mask=livers[1])
    assert residual_voxels(result.transform, bending_warp).mean() < 0.8 * stiff_residual  # measured: 0.68


def test_bending_without_the_other_liver(venous, bent, stiff_residual, monkeypatch):
    """The level of 8 mm alone; the one of 4 mm takes half a minute more and changes 0.9 voxels by less than 0.1."""
    monkeypatch.setattr(transforms, "_BY_IMAGES", transforms._Spline((8.0,), 40.0, 40))
    result = align(venous, bent, mask=mask(), method="deformable")
    assert result.method == "deformable"
    assert residual_voxels(result.transform, bending_warp).mean() < 0.9 * stiff_residual  # 0.5 to 0.83


def test_the_liver_mask_makes_the_liver_fit_when_the_spine_does_not_move(venous):
    """Without it a rigid registration follows spine and body wall."""

    def lifted(points):
        return points + inside(points, LIVER_MM[0], LIVER_MM[1] + 20)[..., None] * (8.0, 0, 0)

    other = scan(True, lifted)
    with_mask, without = (align(venous, other, mask=m) for m in (mask(), None))
    assert residual_voxels(with_mask.transform, lifted).mean() < 0.5
    assert residual_voxels(without.transform, lifted).mean() > 1


def test_aligned_phases_are_not_moved(venous):
    """Registration of noise: two phases in place must stay in place."""
    result = align(venous, scan(True), mask=mask())
    assert residual_voxels(result.transform, lambda points: points).mean() < 0.2


def test_another_grid_is_resampled_with_air_outside(venous):
    other = scan(True)[10:, :, 5:30]
    result = align(venous, other, method="none")
    assert result.image.GetSize() == venous.GetSize()
    values = sitk.GetArrayFromImage(result.image)
    assert (values[:5] == -1024).all() and (values[:, :, :10] == -1024).all()
    np.testing.assert_allclose(values[6:29, 5:-5, 12:-5], sitk.GetArrayFromImage(scan(True))[6:29, 5:-5, 12:-5], atol=1)


def test_a_worse_result_is_dropped_and_said(venous, monkeypatch):
    from nnunet_livseg.data.align import registration

    far = sitk.TranslationTransform(3, (40.0, 0, 0))
    monkeypatch.setattr(registration, "rigid", lambda *arguments: far)
    result = align(venous, scan(True))
    assert result.method == "none" and result.mean_shift_mm == 0
    assert "rigid registration agreed no better than none" in result.notes[0]


def test_mutual_information_is_entropy_for_equal_and_zero_for_independent_values():
    ours = np.repeat([-100.0, 0, 100, 200], 24)
    assert mutual_information(ours, -ours) == pytest.approx(np.log(4))  # contrast may be reversed
    assert mutual_information(ours, np.tile(ours[::24], 24)) == pytest.approx(0, abs=1e-12)
    assert mutual_information(ours[:0], ours[:0]) == 0


def test_tumor_centers_meet_and_the_result_says_that_it_used_ground_truth(venous):
    def moved(points):
        return points + np.array((8.0, -6.0, 5.0))

    result = align(venous, scan(True, moved), method="tumor-center", labels=(label(), label(moved)))
    assert residual_voxels(result.transform, moved).max() < 0.2
    assert result.numbers()["uses_ground_truth"] is True
    assert "in the reference labels, which is for replication only" in result.notes[0]


def test_what_cannot_be_aligned_is_refused(venous):
    air = sitk.Image(venous.GetSize(), sitk.sitkInt16) - 1000
    air.CopyInformation(venous)
    small, both = mask()[:, :, :30], (venous, venous)
    for message, arguments, options in (
        ("method 'affine' is unknown", both, {"method": "affine"}),
        ("the primary phase shows no body", (air, venous), {}),
        ("the liver mask is empty", both, {"mask": mask() * 0}),
        ("the liver mask contains values down to -1", both, {"mask": venous}),
        (r"the liver mask has size \[88, 72, 30\], the primary phase \[88, 72, 40\]", both, {"mask": small}),
        ("the liver mask does not lie where the primary", both, {"mask": sitk.DICOMOrient(mask(), "RAS")}),
        ("liver mask of the other phase is empty", both, {"mask": mask(), "other_mask": mask() * 0}),
        ("needs the reference labels of both phases", both, {"method": "tumor-center"}),
        ("other phase's label contains no tumor", both, {"method": "tumor-center", "labels": (label(), mask())}),
    ):
        with pytest.raises(UserError, match=message):
            align(*arguments, **options)


def test_scans_far_apart_are_brought_together_or_refused(venous):
    """Phases exported with different table positions; ITK's own message speaks of samples and buffers."""
    far = sitk.Image(scan(True))
    far.SetOrigin((4000, 300, 100))
    result = align(venous, far)
    assert result.before.body_dice == 0
    assert result.after.body_dice > 0.97
    start = sitk.Euler3DTransform()
    where = as_image(np.ones(SHAPE, np.uint8), spacing_mm=SPACING_MM, origin_mm=(-110, -105, 30))
    with pytest.raises(UserError, match="the two phases overlap too little"):
        rigid(working(venous), working(far), where, start)


def test_a_table_becomes_a_two_channel_dataset(tmp_path, venous, livseg):
    for n in range(2):
        write(venous, tmp_path / f"pv{n}.nii.gz")
        write(scan(True, rigid_warp), tmp_path / f"art{n}.nii.gz")
        write(label(), tmp_path / f"label{n}.nii.gz")
    write(mask(warp=rigid_warp), tmp_path / "liver1.nii.gz")
    rows = ["case,arterial,portal,label,mask,mask_arterial"]
    rows += [f"p{n},art{n}.nii.gz,pv{n}.nii.gz,label{n}.nii.gz" for n in range(2)]
    rows[1] += ",,"
    rows[2] += ",label1.nii.gz,liver1.nii.gz"
    (tmp_path / "phases.csv").write_text("\n".join(rows))
    command = ("align", tmp_path / "phases.csv", "--id", 4, "--raw", tmp_path, "--primary", "portal", "--cv-folds", 2)
    status, printed = livseg(*command)
    assert status == 0, printed
    folder = tmp_path / "Dataset004_LiverPhases"
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "CT", "1": "CT"}
    assert dataset["livseg"] == {"phases": ["portal", "arterial"]}
    primary, other = (sitk.ReadImage(str(folder / f"imagesTr/p0_000{channel}.nii.gz")) for channel in (0, 1))
    assert primary.GetSize() == other.GetSize() and primary.GetOrigin() == other.GetOrigin()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(primary), sitk.GetArrayFromImage(venous))
    liver = inside(patient_points(), LIVER_MM[0], LIVER_MM[1] * 0.8) & ~inside(patient_points(), *TUMOR_MM * 1.3)
    assert np.median(sitk.GetArrayFromImage(other)[liver]) == pytest.approx(70, abs=3)  # arterial liver, in place
    record, with_livers = (case["phase_1"] for case in json.loads((folder / "conversion.json").read_text())["cases"])
    assert "liver_dice" not in record["after"] and with_livers["after"]["liver_dice"] > 0.95
    assert record["method"] == "rigid" and record["after"]["body_dice"] > record["before"]["body_dice"]
    assert not record["uses_ground_truth"]
    assert (folder / "alignment/p1_0001.png").stat().st_size > 10_000
    assert next(csv.DictReader((folder / "cases.csv").open()))["patient"] == "p0"
    assert livseg(*command)[0] == 0  # and again: finished cases are kept


def test_one_case(tmp_path, venous, livseg):
    images = {"pv": venous, "art": scan(True, rigid_warp), "liver": mask()}
    paths = [write(image, tmp_path / f"{name}.nii.gz") for name, image in images.items()]
    status, printed = livseg("align", *paths[:2], "-o", tmp_path / "out", "--mask", paths[2])
    assert status == 0 and "art.nii.gz: rigid, moved by" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pv_0000.nii.gz",
        "pv_0001.nii.gz",
        "pv_0001.png",
        "pv_alignment.json",
    ]
    record = json.loads((tmp_path / "out/pv_alignment.json").read_text())["phases"][0]
    assert record["after"]["mutual_information"] > record["before"]["mutual_information"]
    status, printed = livseg("align", tmp_path / "out/pv_0000.nii.gz", paths[1], "-o", tmp_path / "out")
    assert status == 1 and "or replace it" in printed


def test_livers_of_other_phases_reach_the_deformable_step_from_the_command_line(tmp_path, venous, bent, livseg):
    images = {"pv": venous, "art": bent, "liver": mask(), "art_liver": mask(warp=bending_warp)}
    pv, art, liver, art_liver = (write(image, tmp_path / f"{name}.nii.gz") for name, image in images.items())
    command = ("align", pv, art, "-o", tmp_path / "out", "--method", "deformable-livers", "--other-masks", art_liver)
    status, printed = livseg(*command)
    assert status == 1 and "--other-masks needs the liver on the primary phase" in printed
    status, printed = livseg(*command, "--mask", liver)
    assert status == 0, printed
    expected = align(venous, bent, method="deformable-livers", mask=images["liver"], other_mask=images["art_liver"])
    record = json.loads((tmp_path / "out/pv_alignment.json").read_text())["phases"][0]
    assert record["mean_shift_mm"] == pytest.approx(
        expected.numbers()["mean_shift_mm"], abs=0.2
    )  # several threads do not repeat exactly
    assert record["after"]["liver_dice"] == pytest.approx(expected.after.liver_dice, abs=0.002)
