"""DICOM in, label map, DICOM SEG out, and read back with programs that did not write it."""

import shutil
import subprocess
import tarfile

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_samples import FRAME_OF_REFERENCE, array, blobs, frames, labels_of, rebuilt, result, series
from io_samples import ct_array, dicom_slices, enhanced, rotated, save_slices

from nnunet_livseg.data.dicom import read_series
from nnunet_livseg.report import dicom_codes
from nnunet_livseg.report.dicom_seg import write_seg
from nnunet_livseg.report.dicom_segments import segment_map
from nnunet_livseg.report.dicom_sr import write_sr


def itk_series(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def check_round_trip(folder, seg_file, info, labels):
    """The SEG equals ``labels`` by its references, by its positions, and to SimpleITK; in the series' own geometry."""
    seg = pydicom.dcmread(seg_file)
    np.testing.assert_array_equal(labels_of(rebuilt(seg, info, labels.shape)), labels)
    reference = itk_series(folder)  # SimpleITK's reading of the input, not ours
    by_position = np.zeros_like(labels)
    planes = array(sitk.ReadImage(str(seg_file))).astype(bool)  # ITK gives the frames as they lie in the file
    for (number, _, _, position_mm, bits), plane in zip(frames(seg), planes, strict=True):
        np.testing.assert_array_equal(plane, bits)
        index = np.array(reference.TransformPhysicalPointToContinuousIndex(position_mm))
        assert np.abs(index - (0, 0, round(index[2]))).max() < 0.02
        is_lesion = seg.SegmentSequence[number - 1].SegmentLabel.startswith("Lesion")
        by_position[round(index[2])][plane] = 2 if is_lesion else 1
    np.testing.assert_array_equal(by_position, labels)
    shared = seg.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    spacing_mm = (measures.PixelSpacing[1], measures.PixelSpacing[0], measures.SpacingBetweenSlices)
    np.testing.assert_allclose(spacing_mm, reference.GetSpacing(), rtol=1e-4)
    axes = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    np.testing.assert_allclose(axes.T, np.reshape(reference.GetDirection(), (3, 3))[:, :2], atol=1e-6)


@pytest.mark.parametrize("direction", [np.eye(3), rotated(), np.diag([-1.0, 1, -1])], ids=["axial", "oblique", "flip"])
@pytest.mark.parametrize("reverse", [False, True])
def test_label_map_comes_back_voxel_for_voxel_over_the_right_slices(tmp_path, direction, reverse):
    """Slices in order of files, names (10 before 2) or InstanceNumber; rows for columns; oblique axes dropped."""
    slices = dicom_slices(ct_array(), direction=direction, FrameOfReferenceUID=FRAME_OF_REFERENCE)
    for one in slices if reverse else []:
        one.InstanceNumber = 100 - one.InstanceNumber
    save_slices(slices[::-1] if reverse else slices, tmp_path / "study")
    image, info = read_series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    write_seg(result(image, info, labels), tmp_path / "seg.dcm")
    check_round_trip(tmp_path / "study", tmp_path / "seg.dcm", info, labels)


@pytest.mark.parametrize(
    ("archive", "folder", "count"),
    [("hcc048_portal_venous", "hcc048_pv/dicom", 14), ("dcmqi_ct3slice", "dcmqi_ct3slice/ct-3slice", 3)],
)
def test_real_series_come_back_voxel_for_voxel(real_data, tmp_path, archive, folder, count):
    with tarfile.open(real_data / "dicom" / f"{archive}.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    _, whole = read_series(tmp_path / folder)
    (tmp_path / "study").mkdir()
    for path in whole.files[:count]:
        shutil.copy(path, tmp_path / "study")
    image, info = read_series(tmp_path / "study")
    labels = blobs(array(image).shape)
    made = result(image, info, labels)
    write_sr(made, tmp_path / "sr.dcm", seg=write_seg(made, tmp_path / "seg.dcm", identifiers=True))
    check_round_trip(tmp_path / "study", tmp_path / "seg.dcm", info, labels)
    source = pydicom.dcmread(info.files[0], stop_before_pixels=True)
    for name in ("seg.dcm", "sr.dcm"):
        written = pydicom.dcmread(tmp_path / name, stop_before_pixels=True)
        assert [written.get(k) for k in ("PatientID", "PatientName", "StudyDate", "StudyInstanceUID")] == [
            source.get(k) for k in ("PatientID", "PatientName", "StudyDate", "StudyInstanceUID")
        ]


def test_this_reader_reads_a_seg_that_dcmqi_wrote(real_data, tmp_path):
    """If the test's reader shared a mistake with the writer, all other tests would pass for nothing."""
    with tarfile.open(real_data / "dicom" / "dcmqi_ct3slice.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / "dcmqi_ct3slice"
    _, info = read_series(folder / "ct-3slice")
    truth = array(sitk.ReadImage(str(folder / "liver_seg.nrrd")))
    (mask,) = rebuilt(pydicom.dcmread(folder / "liver.dcm"), info, truth.shape).values()
    np.testing.assert_array_equal(mask, truth > 0)
    image, _ = read_series(folder / "ct-3slice")
    write_seg(result(image, info, (truth > 0).astype(np.uint8)), tmp_path / "seg.dcm")
    theirs, ours = pydicom.dcmread(folder / "liver.dcm"), pydicom.dcmread(tmp_path / "seg.dcm")
    places = [{uid: (at, bits) for _, uid, _, at, bits in frames(seg)} for seg in (theirs, ours)]
    assert places[0].keys() == places[1].keys()
    for uid, (at_mm, bits) in places[0].items():
        np.testing.assert_allclose(at_mm, places[1][uid][0], atol=1e-5)  # dcmqi rounds
        np.testing.assert_array_equal(bits, places[1][uid][1])


def test_highdicom_reads_the_volume_in_place(tmp_path):
    image, info = series(tmp_path / "study", direction=rotated())
    labels = blobs(ct_array().shape)
    seg = highdicom.seg.segread(write_seg(result(image, info, labels), tmp_path / "seg.dcm"))
    volume = seg.get_volume(combine_segments=True, allow_missing_positions=True)
    where = np.argwhere(volume.array > 0)
    found = np.zeros_like(labels)
    for point_mm, value in zip(volume.map_indices_to_reference(where), volume.array[tuple(where.T)], strict=True):
        found[image.TransformPhysicalPointToIndex(point_mm.tolist())[::-1]] = 1 if value == 1 else 2
    np.testing.assert_array_equal(found, labels)


@pytest.mark.oracle
def test_dcmqi_reads_the_same_voxels_and_numbers(tmp_path):
    """An independent C++ reader; 3D Slicer reads with it."""
    if not shutil.which("segimage2itkimage"):
        pytest.skip("dcmqi is not installed (pip install 'nnunet-livseg[oracles]')")
    image, info = series(tmp_path / "study", direction=rotated())
    made = result(image, info, blobs(ct_array().shape))
    seg = write_seg(made, tmp_path / "seg.dcm")
    (tmp_path / "out").mkdir()
    command = ["segimage2itkimage", "--inputDICOM", seg, "--outputDirectory", tmp_path / "out", "-t", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    numbers, segments = segment_map(made)
    for segment in segments:
        found = sitk.ReadImage(str(tmp_path / "out" / f"{segment.number}.nrrd"))
        back = array(sitk.Resample(found, image, sitk.Transform(), sitk.sitkNearestNeighbor))
        np.testing.assert_array_equal(back > 0, numbers == segment.number)
    sr = write_sr(made, tmp_path / "sr.dcm", seg=seg)
    subprocess.run(
        ["tid1500reader", "--inputDICOM", sr, "--outputMetadata", tmp_path / "sr.json"], check=True, capture_output=True
    )
    assert '"TrackingIdentifier" : "Lesion 1"' in (tmp_path / "sr.json").read_text()


def test_frames_of_a_multiframe_source_are_named_by_number(tmp_path):
    """Frame index for frame number (off by one); frames by z though the file has them in another order."""
    ct = ct_array()
    source = enhanced(ct)
    source.FrameOfReferenceUID = FRAME_OF_REFERENCE
    (tmp_path / "study").mkdir()
    source.save_as(tmp_path / "study/multi", enforce_file_format=True)
    image, info = read_series(tmp_path / "study")
    made = result(image, info, blobs(ct.shape))
    seg = pydicom.dcmread(write_seg(made, tmp_path / "seg.dcm"))
    np.testing.assert_array_equal(labels_of(rebuilt(seg, info, ct.shape)), array(made.labels))
    for _, uid, frame, position_mm, _ in frames(seg):
        assert uid == source.SOPInstanceUID
        place = source.PerFrameFunctionalGroupsSequence[frame - 1].PlanePositionSequence[0]
        np.testing.assert_allclose(position_mm, np.array(place.ImagePositionPatient, float))
    report = highdicom.sr.srread(write_sr(made, tmp_path / "sr.dcm", seg=tmp_path / "seg.dcm"))
    group = report.content.get_volumetric_roi_measurement_groups(tracking_uid=seg.SegmentSequence[1].TrackingUID)[0]
    axial = group.get_measurements(name=dicom_codes.LONG_AXIS.code)[0]
    z = made.measurements.lesions[0].axial_diameter.slice_index
    assert axial.referenced_images[0].referenced_frame_numbers == [info.instances[z][1] + 1]
