"""The label map as contours, for 3D Slicer and for ITK-SNAP, read back by code that did not write it."""

import re
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_samples import FRAME_OF_REFERENCE, IDENTITY, NOT_OURS, array, blobs, like, result, series
from io_samples import ct_array, enhanced, rotated
from matplotlib.path import Path as Polygon

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.dicom import read_series
from nnunet_livseg.imaging.contours import fill, trace
from nnunet_livseg.report import dicom_codes, result_folder
from nnunet_livseg.report.dicom_rtstruct import write_rtstruct
from nnunet_livseg.report.result_folder import FORMATS, ResultFiles, write_result
from nnunet_livseg.report.viewer_files import write_itksnap_labels, write_seg_nrrd

DIRECTIONS = {"axial": np.eye(3), "oblique": rotated(), "flip": np.diag([-1.0, 1, -1])}


def sample(folder, direction="oblique"):
    image, info = series(folder / "study", direction=DIRECTIONS[direction])
    return result(image, info, blobs(ct_array().shape))


def filled(seg, image):
    """Masks by ROI name: voxel centers inside an odd number of contours, by matplotlib, in SimpleITK's geometry."""
    names = {item.ROINumber: item.ROIName for item in seg.StructureSetROISequence}
    y, x = np.indices(image.GetSize()[1::-1])
    centers = np.stack([x.ravel(), y.ravel()], axis=1)
    masks = {}
    for roi in seg.ROIContourSequence:
        mask = masks.setdefault(names[roi.ReferencedROINumber], np.zeros(image.GetSize()[::-1], bool))
        for contour in roi.get("ContourSequence", []):
            points_mm = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            assert len(points_mm) == contour.NumberOfContourPoints and contour.ContourGeometricType == "CLOSED_PLANAR"
            index = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points_mm.tolist()])
            z = round(index[0, 2])
            assert np.abs(index[:, 2] - z).max() < 0.01
            closed = np.concatenate([index[:, :2], index[:1, :2]])
            mask[z] ^= Polygon(closed, closed=True).contains_points(centers).reshape(mask.shape[1:])
    return masks


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_contours_hold_the_same_voxels(tmp_path, direction):
    """Rows for columns, dropped oblique axes, half a voxel of shift, a hole that is filled, a part that is lost."""
    made = sample(tmp_path, direction)
    labels = array(made.labels)
    masks = filled(pydicom.dcmread(write_rtstruct(made, tmp_path / "rt.dcm")), made.image)
    assert list(masks) == ["Liver", *(f"Lesion {number}" for number in range(1, 6))]
    np.testing.assert_array_equal(masks["Liver"], labels > 0)  # with its tumors
    for number in range(1, 6):
        np.testing.assert_array_equal(masks[f"Lesion {number}"], array(made.lesions) == number)


def test_contours_run_halfway_between_voxel_centers(tmp_path):
    image, info = series(tmp_path / "study")  # 2.5 x 0.8 x 0.7 mm from -17, -23, -110 mm
    labels = np.zeros(ct_array().shape, np.uint8)
    labels[4, 10:20, 8:30] = 1
    seg = pydicom.dcmread(write_rtstruct(result(image, info, labels), tmp_path / "rt.dcm"))
    (contour,) = seg.ROIContourSequence[0].ContourSequence
    points_mm = np.reshape(contour.ContourData, (-1, 3)).astype(float)
    low, high = points_mm.min(axis=0), points_mm.max(axis=0)
    np.testing.assert_allclose(low, [-17 + 0.7 * 7.5, -23 + 0.8 * 9.5, -100], atol=2e-3)
    np.testing.assert_allclose(high, [-17 + 0.7 * 29.5, -23 + 0.8 * 19.5, -100], atol=2e-3)
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == info.instances[4][0]


def test_contours_refer_to_the_slices_that_they_lie_on(tmp_path):
    made = sample(tmp_path)
    seg = pydicom.dcmread(write_rtstruct(made, tmp_path / "rt.dcm"))
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in made.series.files]
    position_mm = {one.SOPInstanceUID: np.array(one.ImagePositionPatient, float) for one in headers}
    normal = np.cross(*np.reshape(headers[0].ImageOrientationPatient, (2, 3)).astype(float))
    for roi in seg.ROIContourSequence:
        for contour in roi.ContourSequence:
            points_mm = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            assert np.abs((points_mm - position_mm[uid]) @ normal).max() < 0.01
    frame = seg.ReferencedFrameOfReferenceSequence[0]
    named = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert {item.ReferencedSOPInstanceUID for item in named.ContourImageSequence} == position_mm.keys()
    assert named.SeriesInstanceUID == made.series.series_uid and seg.StudyInstanceUID == made.series.study_uid
    for uid in (frame, seg):
        assert uid.FrameOfReferenceUID == FRAME_OF_REFERENCE
    assert {item.ReferencedFrameOfReferenceUID for item in seg.StructureSetROISequence} == {FRAME_OF_REFERENCE}
    liver, lesion = (seg.RTROIObservationsSequence[place] for place in (0, 1))
    codes = [item.RTROIIdentificationCodeSequence[0] for item in (liver, lesion)]
    assert [code.CodeValue for code in codes] == [dicom_codes.LIVER_CODE.value, dicom_codes.NEOPLASM.value]
    assert [liver.RTROIInterpretedType, lesion.RTROIInterpretedType] == ["ORGAN", ""]
    assert [list(roi.ROIDisplayColor) for roi in seg.ROIContourSequence[:2]] == [[221, 130, 101], [255, 214, 10]]
    assert seg.ApprovalStatus == "UNAPPROVED" and seg.ContentQualification == "RESEARCH"


def test_contours_of_a_multiframe_source_name_its_frames(tmp_path):
    source = enhanced(ct_array())
    source.FrameOfReferenceUID = FRAME_OF_REFERENCE
    (tmp_path / "study").mkdir()
    source.save_as(tmp_path / "study/multi", enforce_file_format=True)
    image, info = read_series(tmp_path / "study")
    made = result(image, info, blobs(ct_array().shape))
    seg = pydicom.dcmread(write_rtstruct(made, tmp_path / "rt.dcm"))
    np.testing.assert_array_equal(filled(seg, image)["Liver"], array(made.labels) > 0)
    frame_of = {frame + 1: z for z, (_, frame) in enumerate(info.instances)}
    for contour in seg.ROIContourSequence[0].ContourSequence:
        z = image.TransformPhysicalPointToIndex([float(value) for value in contour.ContourData[:3]])[2]
        assert frame_of[contour.ContourImageSequence[0].ReferencedFrameNumber] == z


@pytest.mark.parametrize("identifiers", [False, True])
def test_contours_name_the_patient_only_on_request(tmp_path, identifiers):
    image, info = series(tmp_path / "study", **IDENTITY, **NOT_OURS)
    made = result(image, info, blobs(ct_array().shape))
    content = write_rtstruct(made, tmp_path / "rt.dcm", identifiers=identifiers).read_bytes()
    found = {key for key, value in IDENTITY.items() if len(value) > 4 and value.encode() in content}
    assert ("PatientName" in found) == identifiers and ("AccessionNumber" in found) == identifiers
    assert not (found and not identifiers)
    assert not [key for key, value in NOT_OURS.items() if value.encode() in content]
    assert pydicom.dcmread(tmp_path / "rt.dcm").get("PatientIdentityRemoved", "") == ("" if identifiers else "YES")


def test_nothing_found_has_a_region_without_contours(tmp_path):
    image, info = series(tmp_path / "study")
    seg = pydicom.dcmread(write_rtstruct(result(image, info, np.zeros(ct_array().shape, np.uint8)), tmp_path / "a.dcm"))
    assert [item.ROIName for item in seg.StructureSetROISequence] == ["Liver"]
    assert "ContourSequence" not in seg.ROIContourSequence[0]


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 1])
def test_any_mask_comes_back_from_its_polygons(share):
    """Diagonal neighbors, holes in holes, single pixels, the image's border."""
    for shape in ((17, 23), (1, 5), (5, 1)):
        mask = np.random.default_rng(3).random(shape) < share
        np.testing.assert_array_equal(fill(trace(mask), shape), mask)


def test_a_hole_is_joined_to_its_outline():
    mask = np.ones((9, 11), bool)
    mask[2:4, 2:5] = mask[6, 7] = False
    (polygon,) = trace(mask)
    np.testing.assert_array_equal(fill([polygon], mask.shape), mask)
    separate = [
        np.array([[-0.5, -0.5], [4.5, -0.5], [4.5, 4.5], [-0.5, 4.5]]),
        np.array([[1, 1], [3, 1], [3, 3], [1, 3]]),
    ]
    assert fill(separate, (5, 5)).sum() == 25 - 4


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_slicer_segmentation(tmp_path, direction):
    made = sample(tmp_path, direction)
    image = sitk.ReadImage(str(write_seg_nrrd(made, tmp_path / "a.seg.nrrd")))
    header = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(image, name)(), getattr(made.image, name)(), atol=1e-6)
    labels, named = np.zeros(ct_array().shape, np.uint8), {}
    for index in range(6):
        entry = {key.partition("_")[2]: value for key, value in header.items() if key.startswith(f"Segment{index}_")}
        assert entry["Layer"] == "0" and entry["Extent"] == "0 47 0 39 0 11"
        named[entry["Name"]] = entry
        labels[array(image) == int(entry["LabelValue"])] = 2 if entry["Name"].startswith("Lesion") else 1
    np.testing.assert_array_equal(labels, array(made.labels))
    assert len({entry["ID"] for entry in named.values()}) == 6 and "Segment6_ID" not in header
    assert header["Segmentation_MasterRepresentation"] == "Binary labelmap"
    lesion = named["Lesion 1"]
    assert lesion["Color"] == "1.000000 0.839216 0.039216"
    terms = lesion["Tags"].removeprefix("TerminologyEntry:").rstrip("|").split("~")
    assert terms[1:3] == ["SCT^49755003^Morphologically Abnormal Structure", "SCT^108369006^Neoplasm"]
    assert terms[5] == "SCT^10200004^Liver" and len(terms) == 7


@pytest.mark.oracle
def test_slicerio_reads_the_same_segments(tmp_path):
    """The Python reader of 3D Slicer's makers."""
    slicerio = pytest.importorskip("slicerio", reason="not installed (pip install 'nnunet-livseg[oracles]')")
    made = sample(tmp_path)
    found = slicerio.read_segmentation(str(write_seg_nrrd(made, tmp_path / "a.seg.nrrd")))
    axes_mm = np.reshape(made.image.GetDirection(), (3, 3)) * made.image.GetSpacing()
    np.testing.assert_allclose(found["ijkToLPS"][:3, :3], axes_mm, atol=1e-6)
    liver, lesion = found["segments"][:2]
    assert (liver["name"], lesion["name"]) == ("Liver without tumor", "Lesion 1")
    assert lesion["terminology"]["type"] == ["SCT", "108369006", "Neoplasm"]
    np.testing.assert_array_equal(liver["labelValue"] == found["voxels"].T, array(made.labels) == 1)


def test_itksnap_labels_describe_the_values_of_the_label_map(tmp_path):
    image, info = series(tmp_path / "study")
    made = result(image, info, blobs(ct_array().shape), structures={"tumor": (2,), "liver": (1, 2), 'a "vein"': (3,)})
    lines = write_itksnap_labels(made, tmp_path / "labels.txt").read_text().splitlines()
    assert lines[1] == "# ITK-SnAP Label Description File"
    rows = [re.fullmatch(r"\s*(\d+)" + r"\s+(\d+)" * 6 + r'\s+"([^"]*)"', line) for line in lines if line[0] != "#"]
    found = {int(row[1]): (row[8], *map(int, row.groups()[1:4])) for row in rows}
    assert found[0] == ("Clear Label", 0, 0, 0)
    assert found[1] == ("Liver without tumor", 221, 130, 101) and found[2] == ("Tumor", 255, 214, 10)
    assert found[3][0] == "A 'vein'"


@pytest.mark.parametrize("formats", [(), ("nrrd",), ("rtstruct", "itksnap"), tuple(FORMATS)])
def test_a_folder_holds_the_formats_that_were_asked_for(tmp_path, formats):
    made = sample(tmp_path)
    write_result(made, tmp_path / "out", files=ResultFiles(report=False, formats=formats))
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found & set(FORMATS.values()) == {FORMATS[name] for name in formats}
    assert {result_folder.LABELS, result_folder.RECORD} <= found
    write_result(made, tmp_path / "out", files=ResultFiles(report=False, formats=()))  # others' files go, ours too
    assert not {path.name for path in (tmp_path / "out").iterdir()} & set(FORMATS.values())


@pytest.mark.parametrize("name", ["rtstruct", "nrrd", "itksnap"])
def test_a_format_that_fails_costs_no_other(tmp_path, monkeypatch, name):
    writers = {"rtstruct": "write_rtstruct", "nrrd": "write_seg_nrrd", "itksnap": "write_itksnap_labels"}
    failed, out = [], tmp_path / "out"

    def fail(*args, **options):
        assert (out / result_folder.RECORD).is_file()  # label map and measurements are there already
        raise ValueError("Mustermann")

    monkeypatch.setattr(result_folder, writers[name], fail)
    files = ResultFiles(report=False, formats=tuple(writers))
    write_result(sample(tmp_path), out, files=files, request="r", on_failure=lambda name, _: failed.append(name))
    assert failed == [FORMATS[name]]
    assert {path.name for path in out.iterdir()} >= {FORMATS[other] for other in writers if other != name}
    record = (out / result_folder.RECORD).read_text()
    assert f"{FORMATS[name]} could not be written (ValueError)" in record and '"request": ""' in record
    assert "Mustermann" not in record


def test_without_a_series_there_are_no_contours_and_a_note_says_so(tmp_path):
    made = replace(sample(tmp_path), series=None)
    write_result(made, tmp_path / "out", files=ResultFiles(report=False, formats=("rtstruct", "nrrd")))
    assert {path.name for path in (tmp_path / "out").iterdir()} & set(FORMATS.values()) == {FORMATS["nrrd"]}
    assert "no rtstruct.dcm was written: the input was not DICOM" in (tmp_path / "out/measurements.json").read_text()


def test_a_series_that_takes_no_contours_leaves_the_other_formats(tmp_path):
    made = sample(tmp_path)
    made = replace(made, series=replace(made.series, instances=(), notes=("interpolated",)))
    write_result(made, tmp_path / "out", files=ResultFiles(report=False, formats=tuple(FORMATS)))
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found & set(FORMATS.values()) == {FORMATS["nrrd"], FORMATS["itksnap"]}
    assert (
        "no DICOM objects were written: the volume was interpolated" in (tmp_path / "out/measurements.json").read_text()
    )


def test_formats_are_known_and_fit_together():
    with pytest.raises(UserError, match=r"no format 'rtstuct'\. Did you mean rtstruct\?"):
        ResultFiles(formats=("rtstuct",))
    with pytest.raises(UserError, match="sr is a report on the segments of the DICOM SEG"):
        ResultFiles(formats=("sr",))
    assert ResultFiles(formats=["sr", "seg", "seg"]).formats == ("seg", "sr")


def test_many_lesions_end_in_one_region():
    image = sitk.GetImageFromArray(np.zeros((3, 40, 48), np.int16))
    labels = np.zeros((3, 40, 48), np.uint8)
    labels[1, ::2, ::2] = 2
    from nnunet_livseg.report.dicom_rtstruct import regions

    found = list(regions(result(image, None, labels)))
    assert [one.name for one in found[-2:]] == ["Lesion 200", "Smaller lesions (280)"]
    assert found[-1].mask.sum() == 280 and found[0].mask.sum() == 480
    assert like(image, labels).GetSize() == (48, 40, 3)
