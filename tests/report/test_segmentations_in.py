"""DICOM SEG, RT structure sets and ``.seg.nrrd`` as label maps: by their names, on the right voxels, or refused."""

import shutil
import tarfile

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_samples import array, blobs, frames, result, series
from io_samples import ct_array, dicom_slices, rotated, save_slices
from pydicom import uid
from scipy import ndimage

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import structures_from_values
from nnunet_livseg.data.segment_files import open_segments, read_label_pair, read_labels
from nnunet_livseg.evaluation import evaluate_case, evaluate_folder
from nnunet_livseg.imaging.grid import ImageGrid
from nnunet_livseg.imaging.lattice import joined, place_of, put_on
from nnunet_livseg.report.dicom_rtstruct import write_rtstruct
from nnunet_livseg.report.dicom_seg import _algorithm, _description, write_seg
from nnunet_livseg.report.dicom_segments import segment_map
from nnunet_livseg.report.dicom_source import read_source
from nnunet_livseg.report.viewer_files import write_seg_nrrd

DIRECTIONS = {"axial": np.eye(3), "oblique": rotated(), "flip": np.diag([-1.0, 1, -1])}
LIVER_TUMOR = structures_from_values((1,), (2,))


@pytest.fixture(scope="module", params=DIRECTIONS)
def case(request, tmp_path_factory):
    return written(tmp_path_factory.mktemp(request.param), DIRECTIONS[request.param])


@pytest.fixture(scope="module")
def oblique(tmp_path_factory):
    return written(tmp_path_factory.mktemp("oblique"), rotated())


def written(folder, direction):
    """A folder with ``study``, and one segmentation of it in every form; its result."""
    image, info = series(folder / "study", direction=direction)
    labels = ndimage.binary_opening(blobs(ct_array().shape) > 0).astype(np.uint8)  # without single voxels
    labels[2:5, 12:17, 10:15], labels[6, 20:22, 12] = 2, 2
    labels[:1] = labels[-2:] = 0  # the SEG has no frames there
    made = result(image, info, labels)
    write_seg(made, folder / "seg.dcm")
    write_rtstruct(made, folder / "rt.dcm")
    write_seg_nrrd(made, folder / "s.seg.nrrd")
    sitk.WriteImage(made.labels, str(folder / "l.nii.gz"))
    return folder, made


def same(one, other):
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.labels.any() and set(np.unique(one.labels)) == {0, 1, 2}


@pytest.mark.parametrize("name", ["seg.dcm", "rt.dcm", "s.seg.nrrd"])
def test_named_segments_equal_the_label_map(case, name):
    folder, _ = case
    same(*read_label_pair(folder / name, folder / "l.nii.gz", LIVER_TUMOR))
    same(*read_label_pair(folder / "l.nii.gz", folder / name, LIVER_TUMOR))


@pytest.mark.parametrize("names", [("seg.dcm", "rt.dcm"), ("rt.dcm", "s.seg.nrrd"), ("seg.dcm", "seg.dcm")])
def test_two_files_with_names_meet_on_the_grid_that_one_of_them_has(case, names):
    folder, _ = case
    same(*read_label_pair(*(folder / name for name in names), LIVER_TUMOR))


def test_contours_find_the_series_beside_them(case, tmp_path):
    folder, made = case
    truth = read_labels(folder / "l.nii.gz", LIVER_TUMOR).labels
    with pytest.raises(UserError, match=r"contains contours.*\n  Put the files of the CT series"):
        read_label_pair(folder / "rt.dcm", folder / "rt.dcm", LIVER_TUMOR)
    for name in ("rt.dcm", "seg.dcm"):
        shutil.copytree(folder / "study", tmp_path / name / "study")  # flat beside it, or in a folder of its name
        shutil.copy(folder / name, tmp_path / name / "study" / name)
        shutil.copy(folder / name, tmp_path / name / "study.dcm")
        for place in (tmp_path / name / "study" / name, tmp_path / name / "study.dcm"):
            found = read_labels(place, LIVER_TUMOR)
            np.testing.assert_array_equal(found.labels, truth)
            np.testing.assert_allclose(found.image.GetOrigin(), made.image.GetOrigin(), atol=1e-3)


KINDS = {
    "fractional RLE": ("FRACTIONAL", uid.RLELossless, {"fractional_type": "PROBABILITY"}),
    "fractional JPEG 2000": ("FRACTIONAL", uid.JPEG2000Lossless, {"fractional_type": "OCCUPANCY"}),
    "fractional": ("FRACTIONAL", uid.ExplicitVRLittleEndian, {"fractional_type": "PROBABILITY"}),
    "label map RLE": ("LABELMAP", uid.RLELossless, {}),
    "label map": ("LABELMAP", uid.ExplicitVRLittleEndian, {}),
}


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian])
def test_transfer_syntaxes_of_a_binary_seg(oblique, tmp_path, syntax):
    folder, _ = oblique
    seg = pydicom.dcmread(folder / "seg.dcm")
    seg.file_meta.TransferSyntaxUID = syntax
    seg.save_as(tmp_path / "seg.dcm")
    same(*read_label_pair(tmp_path / "seg.dcm", folder / "l.nii.gz", LIVER_TUMOR))


def test_big_endian_is_refused(oblique, tmp_path):
    folder, _ = oblique
    seg = pydicom.dcmread(folder / "seg.dcm")
    list(seg.iterall())  # decodes every element, which a change of byte order needs
    seg.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    pydicom.dcmwrite(tmp_path / "seg.dcm", seg, implicit_vr=False, little_endian=False, force_encoding=True)
    with pytest.raises(UserError, match=r"big endian, .* retired .*\n  Convert it"):
        open_segments(tmp_path / "seg.dcm")


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_and_compressions_of_seg(oblique, tmp_path, kind):
    folder, made = oblique
    made_as, syntax, more = KINDS[kind]
    source, (numbers, segments) = read_source(made.series), segment_map(made)
    algorithm = _algorithm(made.provenance)
    planes = source.in_order(numbers)
    if made_as == "FRACTIONAL":  # nearly sure inside, not quite unlikely outside
        planes = np.stack([np.where(planes == one.number, 0.9, 0.3) for one in segments], axis=-1)
    highdicom.seg.Segmentation(
        source_images=source.images,
        pixel_array=planes,
        segmentation_type=made_as,
        segment_descriptions=[_description(segment, algorithm) for segment in segments],
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="a",
        manufacturer_model_name="b",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=syntax,
        **more,
    ).save_as(tmp_path / "seg.dcm")
    predicted, reference = read_label_pair(tmp_path / "seg.dcm", folder / "l.nii.gz", LIVER_TUMOR)
    same(predicted, reference)
    assert any("fractional segments cut at 0.5" in note for note in predicted.notes) == (made_as == "FRACTIONAL")


def test_frames_in_any_order(oblique, tmp_path):
    folder, _ = oblique
    seg = pydicom.dcmread(folder / "seg.dcm")
    order = np.random.default_rng(0).permutation(seg.NumberOfFrames)
    seg.PixelData = np.packbits(seg.pixel_array[order].ravel(), bitorder="little").tobytes()
    seg.PerFrameFunctionalGroupsSequence = [seg.PerFrameFunctionalGroupsSequence[n] for n in order]
    seg.save_as(tmp_path / "seg.dcm")
    same(*read_label_pair(tmp_path / "seg.dcm", folder / "l.nii.gz", LIVER_TUMOR))


def test_the_seg_that_dcmqi_wrote(real_data, tmp_path):
    with tarfile.open(real_data / "dicom" / "dcmqi_ct3slice.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / "dcmqi_ct3slice"
    found, truth = read_label_pair(folder / "liver.dcm", folder / "liver_seg.nrrd", LIVER_TUMOR)
    np.testing.assert_array_equal(found.labels, truth.labels)
    assert found.labels.sum() == 107_098
    shutil.copy(folder / "liver.dcm", folder / "ct-3slice")
    alone = read_labels(folder / "ct-3slice" / "liver.dcm", LIVER_TUMOR)
    assert alone.labels.sum() == 107_098 and alone.labels.shape == (3, 512, 512)
    assert evaluate_case(folder / "liver.dcm", folder / "liver_seg.nrrd").structures["liver"]["dice"] == 1


def damage(path, change):
    seg = pydicom.dcmread(path)
    change(seg)
    seg.save_as(path)


def cut_pixels(seg):
    seg.PixelData = seg.PixelData[:100]


def move_between_slices(seg):
    contour = seg.ROIContourSequence[0].ContourSequence[0]
    points = np.reshape(contour.ContourData, (-1, 3)).astype(float) + rotated()[:, 2] * 1.2
    contour.ContourData = points.ravel().round(3).tolist()


def move_away(seg):
    for frame in seg.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        at = np.array(place.ImagePositionPatient, float) + rotated()[:, 2] * 2.5 * 8
        place.ImagePositionPatient = at.round(6).tolist()


def rename(seg):
    for item in seg.get("SegmentSequence", []):
        item.SegmentLabel, item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning = "PTV", "Region"
        item.pop("AnatomicRegionSequence", None)


BROKEN = {
    "seg.dcm cut": (
        "seg.dcm",
        cut_pixels,
        "is a DICOM SEG that cannot be read: .*\n  It is damaged, or its compression",
    ),
    "seg.dcm elsewhere": ("seg.dcm", move_away, "voxels lie outside of the image that it should belong to"),
    "seg.dcm names": ("seg.dcm", rename, r"no segment is called liver or tumor; there are: 'PTV', .*\n  Names decide"),
    "rt.dcm between": ("rt.dcm", move_between_slices, "lies between the slices of the image, or crosses them"),
    "rt.dcm empty": ("rt.dcm", lambda seg: delattr(seg, "ROIContourSequence"), "without any closed contour"),
    "rt.dcm points": (
        "rt.dcm",
        lambda seg: setattr(seg.ROIContourSequence[0].ContourSequence[0], "ContourData", [1, 2]),
        "a contour of 'Liver' contains no points",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_one_message(oblique, tmp_path, name):
    folder, _ = oblique
    file, change, message = BROKEN[name]
    shutil.copy(folder / file, tmp_path)
    damage(tmp_path / file, change)
    with pytest.raises(UserError, match=message):
        read_label_pair(tmp_path / file, folder / "l.nii.gz", LIVER_TUMOR)


def test_other_dicom_files_are_no_label_maps(oblique):
    folder, _ = oblique
    with pytest.raises(UserError, match=r"neither SEG nor RT structure set \(CT\).\n  Convert a CT series to a volume"):
        open_segments(next((folder / "study").iterdir()))


def test_a_series_with_a_gap_takes_no_contours(oblique, tmp_path):
    folder, _ = oblique
    shutil.copytree(folder / "study", tmp_path / "study")
    files = sorted((tmp_path / "study").iterdir(), key=lambda path: int(pydicom.dcmread(path).InstanceNumber))
    files[5].unlink()
    shutil.copy(folder / "rt.dcm", tmp_path / "study.dcm")
    with pytest.raises(UserError, match="which is not an even stack of slices: 1 slice is missing"):
        read_labels(tmp_path / "study.dcm", LIVER_TUMOR)


# --- names


def nrrd(folder, named, labels=None, *, layers=None):
    """A ``.seg.nrrd``: ``named`` is (name, layer, value) of each segment."""
    values = blobs(ct_array().shape) if labels is None else labels
    image = sitk.GetImageFromArray(values, isVector=layers is not None)
    for index, (name, layer, value) in enumerate(named):
        for key, text in (("Name", name), ("Layer", layer), ("LabelValue", value), ("ID", f"Segment_{index}")):
            image.SetMetaData(f"Segment{index}_{key}", str(text))
    sitk.WriteImage(image, str(folder / "a.seg.nrrd"))
    return folder / "a.seg.nrrd", values


def test_the_name_decides_not_the_number(tmp_path):
    path, values = nrrd(tmp_path, [("Tumor", 0, 1), ("Liver", 0, 2)])
    found = read_labels(path, LIVER_TUMOR).labels
    np.testing.assert_array_equal(found, np.array([0, 2, 1])[values])


def test_names_that_say_nothing_leave_the_numbers(tmp_path):
    path, values = nrrd(tmp_path, [("Segment_1", 0, 1), ("Segment_2", 0, 2)])
    np.testing.assert_array_equal(read_labels(path, LIVER_TUMOR).labels, values)


def test_other_segments_are_background_unless_they_are_a_structure(tmp_path):
    labels = blobs(ct_array().shape)
    labels[:, 30:] = 3
    path, _ = nrrd(tmp_path, [("Liver", 0, 1), ("GTV 1", 0, 2), ("Spleen", 0, 3)], labels)
    found = read_labels(path, LIVER_TUMOR)
    np.testing.assert_array_equal(found.labels, np.where(labels == 3, 0, labels))
    assert "segments that count as background: 'Spleen'" in found.notes[0]
    with_spleen = structures_from_values((1,), (2,))
    with_spleen = type(with_spleen)({**with_spleen.values, "spleen": (7,)})
    np.testing.assert_array_equal(read_labels(path, with_spleen).labels, np.array([0, 1, 2, 7])[labels])


def test_layers_overlap_and_the_tumor_is_on_top(tmp_path):
    shape = ct_array().shape
    layers = np.zeros((*shape, 2), np.uint8)
    layers[2:9, 5:30, 5:40, 0], layers[4:6, 10:15, 10:15, 1] = 1, 1
    path, _ = nrrd(tmp_path, [("Lesion", 1, 1), ("whole liver", 0, 1)], layers, layers=2)
    found = read_labels(path, LIVER_TUMOR).labels
    np.testing.assert_array_equal(found, np.where(layers[..., 1], 2, layers[..., 0]))
    path, _ = nrrd(tmp_path, [("Lesion", 2, 1)], layers, layers=2)
    with pytest.raises(UserError, match="is in layer 2, but the file has 2"):
        open_segments(path)


def test_a_liver_without_its_target_volume_is_no_tumor(tmp_path):
    path, _ = nrrd(tmp_path, [("Liver-GTV", 0, 1), ("GTV", 0, 2)])
    found = open_segments(path)
    assert [found.role(number) for number in found.names] == ["", "tumor"]


# --- grids


def test_a_part_is_found_on_its_grid_whatever_its_axes():
    whole = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 3, (5, 7, 9)).astype(np.uint8))
    whole.SetSpacing((0.7, 0.8, 2.5))
    whole.SetDirection(rotated().ravel().tolist())
    part = sitk.PermuteAxes(sitk.Flip(whole[2:6, 1:5, 1:4], (True, False, True)), (2, 0, 1))
    placed, lost = put_on(part, ImageGrid.of(whole))
    expected = np.zeros((5, 7, 9), np.uint8)
    expected[1:4, 1:5, 2:6] = array(whole)[1:4, 1:5, 2:6]
    np.testing.assert_array_equal(array(placed), expected)
    assert lost == 0 and placed.GetDirection() == whole.GetDirection()
    smaller = ImageGrid.of(whole[3:, :, :])
    assert put_on(part, smaller)[1] == np.count_nonzero(array(whole)[1:4, 1:5, 2])
    assert joined(smaller, ImageGrid.of(part)).size == (7, 7, 5)
    part.SetOrigin([value + 0.3 for value in part.GetOrigin()])
    assert place_of(ImageGrid.of(part), ImageGrid.of(whole)) is None


def test_one_slice_lies_where_it_lies_whatever_its_thickness():
    whole = ImageGrid((4, 4, 6), (1.0, 1.0, 2.5), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    one = sitk.GetImageFromArray(np.ones((1, 4, 4), np.uint8))
    one.SetSpacing((1, 1, 5))
    one.SetOrigin((0, 0, 7.5))
    placed, lost = put_on(one, whole)
    assert array(placed).sum(axis=(1, 2)).tolist() == [0, 0, 0, 16, 0, 0] and lost == 0


# --- commands


def test_evaluate_reads_files_and_folders_of_dicom(case, tmp_path, capsys):
    folder, _ = case
    (tmp_path / "pred").mkdir()
    shutil.copy(folder / "seg.dcm", tmp_path / "pred" / "p1.dcm")
    shutil.copytree(folder / "study", tmp_path / "ref" / "p1")
    shutil.copy(folder / "rt.dcm", tmp_path / "ref" / "p1" / "structures")  # no ending, among the slices
    call = ("evaluate", tmp_path / "pred", tmp_path / "ref", "-o", tmp_path / "out", "--no-report", "--quiet", "-np", 1)
    assert main([*map(str, call)]) == 0  # without dataset.json and without --liver: names say it all
    assert "| DSC | 1.000" in capsys.readouterr().out


def test_two_segmentations_of_one_case_are_a_problem(oblique, tmp_path):
    folder, _ = oblique
    for name in ("a", "b"):
        (tmp_path / "pred" / "p2").mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "seg.dcm", tmp_path / "pred" / "p2" / name)
    for side in ("pred", "ref"):
        (tmp_path / side).mkdir(exist_ok=True)
        shutil.copy(folder / "s.seg.nrrd", tmp_path / side / "p1.seg.nrrd")
    shutil.copy(folder / "s.seg.nrrd", tmp_path / "ref" / "p2.seg.nrrd")
    found = evaluate_folder(tmp_path / "pred", tmp_path / "ref", out=tmp_path / "out", workers=1)
    assert [one.case for one in found.cases] == ["p1"]
    assert [(one.case, one.reason.split(":")[0]) for one in found.problems] == [("p2", "found more than once")]


def test_convert_reads_series_and_segmentations(case, tmp_path, capsys):
    folder, made = case
    shutil.copytree(folder / "study", tmp_path / "both")  # two series in one study; the contours say which
    save_slices(dicom_slices(ct_array() + 5, series=4), tmp_path / "both")
    rows = ["image,label,case", "both,rt.dcm,p1", "study,seg.dcm,p2", "study,s.seg.nrrd,p3"]
    for name in ("rt.dcm", "seg.dcm", "s.seg.nrrd"):
        shutil.copy(folder / name, tmp_path)
    shutil.copytree(folder / "study", tmp_path / "study")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    call = ("convert", "folder", tmp_path / "cases.csv", "--id", 5, "-o", tmp_path / "raw", "-np", 1)
    assert main([*map(str, call)]) == 0
    assert "tumor by the name of 'Lesion 1', 'Lesion 2'" in capsys.readouterr().out
    for name in ("p1", "p2", "p3"):
        label = sitk.ReadImage(str(tmp_path / f"raw/Dataset005_Liver/labelsTr/{name}.nii.gz"))
        np.testing.assert_array_equal(array(label), array(made.labels))
        image = sitk.ReadImage(str(tmp_path / f"raw/Dataset005_Liver/imagesTr/{name}_0000.nii.gz"))
        np.testing.assert_array_equal(array(image), array(made.image))


def test_convert_asks_what_other_segments_are(tmp_path, capsys):
    labels = blobs(ct_array().shape)
    labels[:, :, 40:] = np.where(labels[:, :, 40:] == 0, 3, labels[:, :, 40:])
    (tmp_path / "labels").mkdir()
    nrrd(tmp_path / "labels", [("Liver", 0, 1), ("Tumor", 0, 2), ("Cyst", 0, 3)], labels)
    (tmp_path / "images").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(ct_array()), str(tmp_path / "images" / "a.nii.gz"))
    call = [*map(str, ("convert", "folder", tmp_path, "--id", 5, "-o", tmp_path / "raw", "-np", 1))]
    assert main(call) == 1
    assert "neither liver nor tumor by their names: Cyst." in capsys.readouterr().err
    assert main([*call, "--map", "cyst=1"]) == 0
    found = sitk.ReadImage(str(tmp_path / "raw/Dataset005_Liver/labelsTr/a.nii.gz"))
    np.testing.assert_array_equal(array(found), np.where(labels == 3, 1, labels))


def test_frames_helper_is_the_tests_own(oblique):
    """If the readers shared a mistake, comparing them would show nothing: by hand, frame by frame."""
    folder, made = oblique
    seg, found = pydicom.dcmread(folder / "seg.dcm"), np.zeros(ct_array().shape, np.uint8)
    for number, _, _, position_mm, bits in frames(seg):
        z = made.image.TransformPhysicalPointToIndex(position_mm.tolist())[2]
        found[z][bits] = 1 if number == 1 else 2
    np.testing.assert_array_equal(found, array(made.labels))
