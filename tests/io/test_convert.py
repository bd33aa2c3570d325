"""Sources into nnU-Net raw datasets: what arrives, what is refused, what a second run does."""

import csv
import json
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import as_image, ct_array, dicom_slices, label_array, save_slices, write

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.convert import SOURCES, ConversionOptions, convert
from nnunet_livseg.data.convert.conversion import SplitOptions
from nnunet_livseg.imaging.images import WriteError

FLIP_XY = np.diag([-1.0, -1.0, 1.0])


def lits(folder, count=4):
    for n in range(count):
        write(ct_array(), folder / f"volume-{n}.nii")
        write(label_array(), folder / f"segmentation-{n}.nii")
    return folder


def run(kind, source, out, **settings):
    return convert(SOURCES[kind](source), out, settings=ConversionOptions(**settings), division=SplitOptions(folds=2))


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def notes(conversion, case):
    return "; ".join(next(record for record in conversion.records if record["case"] == case)["notes"])


def test_lits_is_linked_and_complete(tmp_path):
    source = lits(tmp_path / "source", 4)
    write(ct_array(), source / "test" / "test-volume-7.nii")
    done = run("lits", source, tmp_path / "Dataset003_LiTS")
    folder = done.folder
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "CT"} and dataset["labels"] == {"background": 0, "liver": 1, "tumor": 2}
    assert dataset["numTraining"] == 4 and dataset["file_ending"] == ".nii"
    assert sorted(path.name for path in folder.glob("imagesTr/*")) == [f"lits_{n:03d}_0000.nii" for n in range(4)]
    assert [path.name for path in folder.glob("imagesTs/*")] == ["litstest_007_0000.nii"]
    assert (folder / "imagesTr/lits_002_0000.nii").readlink() == source.resolve() / "volume-2.nii"
    np.testing.assert_array_equal(read(folder / "labelsTr/lits_002.nii"), label_array())
    rows = list(csv.DictReader((folder / "cases.csv").open()))
    voxel_ml = 2.5 * 0.8 * 0.7 / 1000
    assert float(rows[0]["tumor_ml"]) == pytest.approx((label_array() == 2).sum() * voxel_ml, abs=1e-3)
    assert float(rows[0]["liver_ml"]) == pytest.approx((label_array() > 0).sum() * voxel_ml, abs=1e-3)
    assert [rows[0][name] for name in ("slices", "rows", "columns", "spacing_z_mm")] == ["12", "40", "48", "2.5"]
    assert [row["part"] for row in rows] == ["train"] * 4 + ["test"]


def test_copies_do_not_depend_on_the_source(tmp_path):
    source = lits(tmp_path / "source", 2)
    folder = run("lits", source, tmp_path / "Dataset003_LiTS", link=False).folder
    shutil.rmtree(source)
    np.testing.assert_array_equal(read(folder / "imagesTr/lits_001_0000.nii.gz"), ct_array())


@pytest.mark.parametrize(("patients", "folds"), [(1, 0), (3, 3), (6, 5)])
def test_without_a_wish_there_are_as_many_folds_as_patients_allow(tmp_path, patients, folds):
    source, folder = lits(tmp_path / "source", patients), tmp_path / "Dataset003_LiTS"
    done = convert(SOURCES["lits"](source), folder)
    splits = folder / "splits_final.json"
    assert len(json.loads(splits.read_text()) if splits.exists() else []) == folds
    assert len(done.records) == patients
    for asked in (0, 1):  # a wish is a wish
        with pytest.raises(UserError, match=f"--cv-folds {asked}: cross-validation needs at least 2"):
            convert(SOURCES["lits"](source), folder, division=SplitOptions(folds=asked))


def test_second_run_keeps_finished_cases_and_redoes_changed_ones(tmp_path):
    source = lits(tmp_path / "source", 3)
    folder = tmp_path / "Dataset003_LiTS"
    run("lits", source, folder)
    assert run("lits", source, folder).kept == 3
    changed = label_array()
    changed[changed == 2] = 1
    write(changed, source / "segmentation-1.nii")
    done = run("lits", source, folder)
    assert done.kept == 2
    assert next(r for r in done.records if r["case"] == "lits_001")["tumor_ml"] == 0
    assert run("lits", source, folder, link=False).kept == 0  # other settings, other files
    assert not list(folder.glob("imagesTr/*.nii"))  # and the links of the first run are gone


def test_a_stopped_conversion_goes_on_and_shows_no_dataset_json(tmp_path, monkeypatch):
    from nnunet_livseg.data.convert import conversion

    source, folder = lits(tmp_path / "source", 3), tmp_path / "Dataset003_LiTS"
    convert_case = conversion.convert_case

    def stops_at_the_last(case, target, settings):
        if case.identifier == "lits_002":
            raise KeyboardInterrupt
        return convert_case(case, target, settings)

    monkeypatch.setattr(conversion, "convert_case", stops_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        run("lits", source, folder)
    assert not (folder / "dataset.json").exists()
    monkeypatch.undo()
    assert run("lits", source, folder).kept == 2


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    """Cleaning up an unknown dataset would delete its cases."""
    stranger = write(ct_array(), tmp_path / "out/imagesTr/liver_0_0000.nii.gz")
    with pytest.raises(UserError, match="not empty and was not made by this command"):
        run("lits", lits(tmp_path / "source", 2), tmp_path / "out")
    assert stranger.exists()


def test_workers_give_the_same_records(tmp_path):
    source = lits(tmp_path / "source", 3)
    alone = convert(SOURCES["lits"](source), tmp_path / "a", division=SplitOptions(folds=2))
    together = convert(SOURCES["lits"](source), tmp_path / "b", division=SplitOptions(folds=2), workers=2)
    assert alone.records == together.records


# --- geometry: what LiTS and others get wrong


def test_label_with_rounded_header_takes_the_images(tmp_path):
    source = lits(tmp_path / "source", 2)
    write(as_image(label_array(), spacing_mm=(2.5, 0.8003, 0.7)), source / "segmentation-0.nii")
    done = run("lits", source, tmp_path / "out")
    assert "label header differed by rounding" in notes(done, "lits_000")
    label = sitk.ReadImage(str(tmp_path / "out/labelsTr/lits_000.nii"))
    assert label.GetSpacing() == pytest.approx((0.7, 0.8, 2.5), abs=1e-6)


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "PIR"])
def test_label_stored_in_another_axis_order_is_turned(tmp_path, orientation):
    """Copying the array would put the liver on the wrong side."""
    source = lits(tmp_path / "source", 2)
    write(sitk.DICOMOrient(as_image(label_array()), orientation), source / "segmentation-0.nii")
    done = run("lits", source, tmp_path / "out")
    assert "label reoriented to the image's axes" in notes(done, "lits_000")
    np.testing.assert_array_equal(read(tmp_path / "out/labelsTr/lits_000.nii"), label_array())


def test_wrong_image_header_is_proven_by_content_and_named(tmp_path):
    """LiTS volumes whose header is mirrored while the arrays correspond."""
    source = lits(tmp_path / "source", 2)
    write(as_image(ct_array(), direction=FLIP_XY), source / "volume-0.nii")
    done = run("lits", source, tmp_path / "out")
    assert "the arrays correspond, so the image's header was used" in notes(done, "lits_000")
    np.testing.assert_array_equal(read(tmp_path / "out/labelsTr/lits_000.nii"), label_array())


def test_mirrored_header_is_noticed_by_anatomy(tmp_path):
    """A report that says `right lobe` would be wrong."""
    big, label = ct_array((12, 160, 192)), label_array((12, 160, 192))
    for n, direction in enumerate((np.eye(3), FLIP_XY)):
        write(as_image(big, spacing_mm=(2.5, 2, 2), direction=direction), tmp_path / f"source/volume-{n}.nii")
        write(as_image(label, spacing_mm=(2.5, 2, 2), direction=direction), tmp_path / f"source/segmentation-{n}.nii")
    done = run("lits", tmp_path / "source", tmp_path / "out")
    assert notes(done, "lits_000") == ""
    assert "left and right are mirrored" in notes(done, "lits_001")
    assert "front and back are mirrored" in notes(done, "lits_001")


def test_negative_voxel_size_is_mended(tmp_path):
    """ITK turns the axis of a negative size around, nibabel does not: the readers would disagree on the patient."""
    source = lits(tmp_path / "source", 2)
    for name in ("volume-0.nii", "segmentation-0.nii"):
        raw = bytearray((source / name).read_bytes())
        raw[88:92] = np.float32(-2.5).tobytes()
        (source / name).write_bytes(raw)
    assert sitk.ReadImage(str(source / "volume-0.nii")).GetDirection()[8] == -1  # what would be believed otherwise
    done = run("lits", source, tmp_path / "out")
    assert "negative voxel size [0.7, 0.8, -2.5] mm" in notes(done, "lits_000")
    image = sitk.ReadImage(str(tmp_path / "out/imagesTr/lits_000_0000.nii"))
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert image.GetSpacing() == pytest.approx((0.7, 0.8, 2.5))
    np.testing.assert_allclose(image.GetOrigin(), (-17, -23, -110), atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), ct_array())


def test_slightly_skewed_axes_are_squared_and_sheared_ones_refused(tmp_path):
    """ITK refuses both: `only supports orthonormal direction cosines`."""
    source = lits(tmp_path / "source", 2)
    affine = np.diag([-0.7, -0.8, 2.5, 1])
    affine[:3, 3] = (17, 23, -110)
    for skew, outcome in ((0.002, "nearest right-angled axes used"), (0.3, "sheared by")):
        affine[1, 2] = skew * 2.5
        for kind, array in (("volume", ct_array()), ("segmentation", label_array())):
            skewed = nibabel.Nifti1Image(array.T, None)
            skewed.header.set_sform(affine, 1)
            nibabel.save(skewed, source / f"{kind}-0.nii")
        if skew < 0.1:
            assert outcome in notes(run("lits", source, tmp_path / "out"), "lits_000")
        else:
            with pytest.raises(UserError, match=r"the axes are sheared by \d+\.\d degrees"):
                run("lits", source, tmp_path / "out")


def test_grids_that_nothing_ties_together_are_refused(tmp_path):
    source = lits(tmp_path / "source", 2)
    write(label_array((12, 40, 40)), source / "segmentation-0.nii")
    with pytest.raises(UserError, match=r"on different grids(.|\n)*size \[48, 40, 12\](.|\n)*size \[40, 40, 12\]"):
        run("lits", source, tmp_path / "out")
    # same size, other header, and the label does not lie on the liver: no proof either
    write(as_image(np.roll(label_array(), 20, axis=2), direction=FLIP_XY), source / "segmentation-0.nii")
    with pytest.raises(UserError, match="nothing shows how their voxels correspond"):
        run("lits", source, tmp_path / "out")


# --- labels and intensities


def test_unknown_label_values_are_refused_until_mapped(tmp_path):
    source = lits(tmp_path / "source", 2)
    label = label_array()
    label[0, 0, :5] = 3
    write(label, source / "segmentation-1.nii")
    with pytest.raises(UserError, match=r"other than 0 background, 1 liver, 2 tumor: 3 \(5 voxels\)(.|\n)*--map 3=1"):
        run("lits", source, tmp_path / "out")
    done = run("lits", source, tmp_path / "out", label_map={3: 0})
    assert "label 3 became 0 (5 voxels)" in notes(done, "lits_001")
    np.testing.assert_array_equal(read(tmp_path / "out/labelsTr/lits_001.nii"), label_array())


MEANINGS = {  # labels of an own folder's dataset.json, and what its values 1, 2, 3 become; None: refused
    "swapped": ({"tumor": 1, "liver": 2}, (2, 1, None)),
    "two kinds of tumor": ({"liver": 1, "hcc": 2, "metastasis": 3}, (1, 2, 2)),
    "regions": ({"liver_and_tumor": [1, 2], "tumor": 2}, (1, 2, None)),
    "another organ first": ({"spleen": 1, "liver": 2, "tumor": 3}, (None, 1, 2)),
    "ignore": ({"liver": 1, "ignore": 2}, (1, None, None)),
}


@pytest.mark.parametrize(("labels", "become"), MEANINGS.values(), ids=MEANINGS)
def test_a_folder_with_a_dataset_json_is_converted_by_its_names(tmp_path, labels, become):
    def converted(source, out, **settings):
        convert(SOURCES["folder"](source), out, settings=ConversionOptions(**settings), division=SplitOptions())

    for value, ours in enumerate(become, start=1):
        source = tmp_path / f"source{value}"
        write(as_image(ct_array()), source / "images" / "a.nii.gz")
        write(label_array().clip(0, 1) * np.uint8(value), source / "labels" / "a.nii.gz")
        content = {"labels": {"background": 0, **labels}, "regions_class_order": [1, 2]}
        (source / "dataset.json").write_text(json.dumps(content))
        if ours is None:
            with pytest.raises(UserError, match=rf"background, 1 liver, 2 tumor: {value} (.|\n)*--map {value}=1"):
                converted(source, tmp_path / f"out{value}")
            converted(source, tmp_path / f"out{value}", label_map={value: 0})
        else:
            converted(source, tmp_path / f"out{value}")
            expected = label_array().clip(0, 1) * ours
            np.testing.assert_array_equal(read(tmp_path / f"out{value}" / "labelsTr" / "a.nii.gz"), expected)


def test_rounded_float_labels_pass_and_interpolated_ones_do_not(tmp_path):
    source = lits(tmp_path / "source", 2)
    write(label_array() * np.float32(0.9999), source / "segmentation-0.nii")
    done = run("lits", source, tmp_path / "out")
    np.testing.assert_array_equal(read(tmp_path / "out/labelsTr/lits_000.nii"), label_array())
    assert "rounded to whole numbers" in notes(done, "lits_000")
    write(label_array() * np.float32(0.5), source / "segmentation-0.nii")
    with pytest.raises(UserError, match=r"contains the value 0\.5, which is not a whole number"):
        run("lits", source, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ct: (ct.astype(int) + 1024).astype(np.uint16), "nothing below 0, so air is not at -1000 HU"),
        (lambda ct: np.clip(ct, 0, 255).astype(np.uint8), "windowed gray picture, not Hounsfield"),
        (lambda ct: np.zeros_like(ct), "all voxels have the value 0"),
        (lambda ct: np.where(ct > 500, np.nan, ct).astype(np.float32), "voxels are NaN or infinite"),
    ],
    ids=["unsigned", "gray", "constant", "nan"],
)
def test_what_is_not_hounsfield_is_refused(tmp_path, change, message):
    source = lits(tmp_path / "source", 2)
    write(change(ct_array()), source / "volume-0.nii")
    with pytest.raises(UserError, match=f"1 of 2 cases cannot be used(.|\n)*lits_000(.|\n)*{message}"):
        run("lits", source, tmp_path / "out")
    assert not (tmp_path / "out/dataset.json").exists()


def test_lost_intercept_is_added_on_request(tmp_path):
    source = lits(tmp_path / "source", 2)
    for n in range(2):
        write((ct_array().astype(int) + 1024).astype(np.uint16), source / f"volume-{n}.nii")
    done = run("lits", source, tmp_path / "out", offset_hu=-1024.0)
    np.testing.assert_array_equal(read(tmp_path / "out/imagesTr/lits_000_0000.nii"), ct_array())
    assert "-1024 added to every voxel" in notes(done, "lits_000")


def test_padding_and_clipping_are_remarked(tmp_path):
    source = lits(tmp_path / "source", 2)
    padded = ct_array()
    padded[:, 0] = -3024
    write(padded, source / "volume-0.nii")
    write(np.clip(ct_array(), -150, 250), source / "volume-1.nii")
    done = run("lits", source, tmp_path / "out")
    assert "padding below -1024 HU in 2.5% of the voxels (lowest -3024)" in notes(done, "lits_000")
    assert "no value below -150 HU: the volume was clipped" in notes(done, "lits_001")


@pytest.mark.parametrize("name", ["volume-0.nii", "segmentation-0.nii"])
@pytest.mark.parametrize("packed", [False, True])
def test_truncated_files_are_refused(tmp_path, name, packed):
    """ITK reads them without a word and leaves noise in the missing slices."""
    source = lits(tmp_path / "source", 2)
    if packed:
        image = sitk.ReadImage(str(source / name))
        (source / name).unlink()
        name += ".gz"
        write(image, source / name)
    path = source / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sitk.ReadImage(str(path))  # no error: the reason for the check
    with pytest.raises(UserError, match=f"{name}: it (ends after|is damaged)"):
        run("lits", source, tmp_path / "out")


def test_full_disk_stops_the_conversion_and_leaves_nothing_half_written(tmp_path):
    """ITK's NIfTI writer does not notice a full disk; a label cut in half would train as background."""
    resource = pytest.importorskip("resource", reason="file size limits exist on POSIX only")
    source = lits(tmp_path / "source", 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, limits[1]))
        with pytest.raises(WriteError, match="could not be written completely"):
            run("lits", source, tmp_path / "out", link=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["conversion.json"]
    assert run("lits", source, tmp_path / "out", link=False).kept == 0


# --- other sources


def msd(folder, count=2):
    entries = []
    for n in range(count):
        write(ct_array(), folder / f"imagesTr/liver_{n}.nii.gz")
        write(label_array(), folder / f"labelsTr/liver_{n}.nii.gz")
        entries.append({"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"})
    write(ct_array(), folder / "imagesTs/liver_9.nii.gz")
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": entries,
        "test": ["./imagesTs/liver_9.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return content


def test_msd(tmp_path):
    msd(tmp_path / "Task03_Liver")
    done = run("msd", tmp_path / "Task03_Liver", tmp_path / "out")
    assert [record["case"] for record in done.records] == ["liver_0", "liver_1", "liver_9"]
    assert (tmp_path / "out/labelsTr/liver_1.nii.gz").is_symlink()
    assert (tmp_path / "out/imagesTs/liver_9_0000.nii.gz").exists()


def test_msd_labels_follow_its_dataset_json(tmp_path):
    """Another release numbers cancer 1 and liver 2: taken as they are, classes would be swapped."""
    content = msd(tmp_path / "src")
    content["labels"] = {"0": "background", "2": "liver", "1": "cancer"}
    (tmp_path / "src/dataset.json").write_text(json.dumps(content))
    run("msd", tmp_path / "src", tmp_path / "out")
    expected = np.array([0, 2, 1])[label_array()]
    np.testing.assert_array_equal(read(tmp_path / "out/labelsTr/liver_0.nii.gz"), expected)


def test_table_gives_patients_and_parts(tmp_path):
    for n in range(4):
        write(ct_array(), tmp_path / f"src/ct {n}.nrrd")
        write(label_array(), tmp_path / f"src/seg{n}.nii.gz")
    lines = ["image,label,patient,part", *(f"ct {n}.nrrd,seg{n}.nii.gz,p{n // 2},train" for n in range(4))]
    (tmp_path / "src/table.csv").write_text(
        "\n".join([*lines, "ct 0.nrrd,,p9,test"]).replace("ct 0.nrrd,,", "ct 3.nrrd,,")
    )
    with pytest.raises(UserError, match="case ct_3 is there twice"):
        run("folder", tmp_path / "src/table.csv", tmp_path / "out")
    (tmp_path / "src/table.csv").write_text("\n".join(lines))
    done = run("folder", tmp_path / "src/table.csv", tmp_path / "out")
    assert [record["image"]["how"] for record in done.records] == ["written"] * 4  # .nrrd in a .nii.gz dataset
    np.testing.assert_array_equal(read(tmp_path / "out/imagesTr/ct_2_0000.nii.gz"), ct_array())
    for split in json.loads((tmp_path / "out/splits_final.json").read_text()):
        assert {name[:4] for name in split["val"]} in ({"ct_0", "ct_1"}, {"ct_2", "ct_3"})


def test_next_steps_of_a_conversion_can_be_run(tmp_path, livseg, monkeypatch):
    """Commands that nnU-Net would not find the dataset by, or that it would stop at."""
    for n in range(2):
        write(ct_array(), tmp_path / f"ct{n}.nii.gz")
        write(label_array(), tmp_path / f"seg{n}.nii.gz")
    table, raw = tmp_path / "table.csv", tmp_path / "my raw"
    raw.mkdir()
    table.write_text("image,label\nct0.nii.gz,seg0.nii.gz\n")
    monkeypatch.setenv("nnUNet_raw", str(raw))
    status, said = livseg("convert", "folder", table, "--id", 3)
    assert status == 0 and "1 case, 0 of them" in said and "Train with fold all" in said and "export" not in said
    monkeypatch.delenv("nnUNet_raw")
    table.write_text("image,label,patient\nct0.nii.gz,seg0.nii.gz,a\nct1.nii.gz,seg1.nii.gz,b\n")
    status, said = livseg("convert", "folder", table, "--id", 3, "-o", raw)
    assert status == 0 and f"export nnUNet_raw='{raw}'" in said and "2 cases" in said and "fold all" not in said
    table.write_text("image,label\nct0.nii.gz,\n")
    status, said = livseg("convert", "folder", table, "--id", 4, "-o", raw)
    assert status == 1 and "no case is left to train on" in said and not (raw / "Dataset004_Liver").exists()


def ircadb(folder, *, zipped=False, tumors=("livertumor01", "livertumor2")):
    """A patient as IRCAD lays it out; slices of the masks are 0 and 255."""
    label = label_array()
    half = np.arange(48) < 13
    save_slices(dicom_slices(ct_array(), signed=True, intercept=0), folder / "PATIENT_DICOM")
    masks = {"liver": label > 0, "livercyst": label < 0, "rightkidney": label == 0}
    masks |= {name: (label == 2) & (half if n else ~half) for n, name in enumerate(tumors)}
    for name, mask in masks.items():
        save_slices(dicom_slices(mask * 255, intercept=0), folder / "MASKS_DICOM" / name)
    if zipped:
        for name in ("PATIENT_DICOM", "MASKS_DICOM"):
            shutil.make_archive(str(folder / name), "zip", folder, name)
            shutil.rmtree(folder / name)


@pytest.mark.parametrize("zipped", [False, True])
def test_ircadb_merges_all_liver_tumors(tmp_path, zipped):
    """Only the first tumor folder taken; masks stacked in another order than the CT."""
    for n in (1, 2):
        ircadb(tmp_path / f"src/3Dircadb1.{n}", zipped=zipped)
    done = run("ircadb", tmp_path / "src", tmp_path / "out")
    np.testing.assert_array_equal(read(tmp_path / "out/labelsTr/ircadb_01.nii.gz"), label_array())
    np.testing.assert_array_equal(read(tmp_path / "out/imagesTr/ircadb_01_0000.nii.gz"), ct_array())
    assert "masks merged: liver, livertumor01, livertumor2; label: mask livercyst not merged" in notes(
        done, "ircadb_02"
    )


def test_ircadb_patients_may_be_zips(tmp_path):
    for n in (3, 4):
        ircadb(tmp_path / f"unpacked/3Dircadb1.{n}", zipped=True)
        (tmp_path / "src").mkdir(exist_ok=True)
        shutil.make_archive(str(tmp_path / f"src/3Dircadb1.{n}"), "zip", tmp_path / "unpacked", f"3Dircadb1.{n}")
    run("ircadb", tmp_path / "src", tmp_path / "out")
    np.testing.assert_array_equal(read(tmp_path / "out/labelsTr/ircadb_04.nii.gz"), label_array())
