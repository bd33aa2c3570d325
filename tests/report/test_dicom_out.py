"""DICOM in, label map, DICOM SEG and SR out, and read back with programs that did not write them."""

import re
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_samples import (
    FRAME_OF_REFERENCE,
    IDENTITY,
    NOT_OURS,
    blobs,
    frames,
    labels_of,
    like,
    rebuilt,
    result,
    series,
)
from io_samples import SPACING_MM, ct_array, dicom_slices, enhanced, rotated, save_slices
from pydicom.sr.codedict import codes as standard

from nnunet_livseg.data.dicom import dicom_files, read_series
from nnunet_livseg.errors import UserError
from nnunet_livseg.report import dicom_codes
from nnunet_livseg.report.dicom_seg import write_seg
from nnunet_livseg.report.dicom_sr import write_sr
from nnunet_livseg.report.segments import segment_map


def array(image):
    return sitk.GetArrayFromImage(image)


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


def test_segments_say_what_they_are(tmp_path):
    image, info = series(tmp_path / "study")
    made = result(image, info, blobs(ct_array().shape))
    seg = highdicom.seg.segread(write_seg(made, tmp_path / "seg.dcm"))
    count = len(made.measurements.lesions)
    assert count == 5
    assert [one.segment_label for one in seg.SegmentSequence] == [
        "Liver without tumor",
        *(f"Lesion {number}" for number in range(1, count + 1)),
    ]
    liver, lesion = seg.SegmentSequence[:2]
    assert (liver.segmented_property_category, liver.segmented_property_type) == (
        standard.SCT.AnatomicalStructure,
        standard.SCT.Liver,
    )
    assert (lesion.segmented_property_category, lesion.segmented_property_type) == (
        standard.SCT.MorphologicallyAbnormalStructure,
        standard.SCT.Neoplasm,
    )
    assert lesion.anatomic_regions == [standard.SCT.Liver]
    shown = highdicom.color.CIELabColor.from_dicom_value(liver.RecommendedDisplayCIELabValue).to_rgb()
    np.testing.assert_allclose(shown, dicom_codes.PROPERTIES["liver"].colour, atol=2)
    algorithm = lesion.algorithm_identification
    assert (algorithm.name, algorithm.family) == ("nnunet_livseg", standard.DCM.ArtificialIntelligence)
    assert (
        "model=Dataset003_Liver DPCNetTrainer,folds=0 1"
        in lesion.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    )
    assert seg.SegmentsOverlap == "NO" and seg.ContentQualification == "RESEARCH"
    assert seg.StudyInstanceUID == info.study_uid and seg.FrameOfReferenceUID == FRAME_OF_REFERENCE
    assert seg.SeriesInstanceUID != info.series_uid and seg.SeriesNumber == 1003


def test_codes_are_those_of_the_standard():
    """A mistyped digit is another disease."""
    known = {(code.value, code.scheme_designator) for scheme in ("SCT", "DCM", "UCUM") for code in _all(scheme)}
    table = [value for value in vars(dicom_codes).values() if isinstance(value, dicom_codes.Concept)]
    assert len(table) > 15
    for concept in table:
        assert (concept.value, concept.scheme) in known, concept
    for concept, keyword in (
        (dicom_codes.LIVER_CODE, standard.SCT.Liver),
        (dicom_codes.VOLUME, standard.SCT.Volume),
        (dicom_codes.DIAMETER, standard.SCT.Diameter),
        (dicom_codes.LONG_AXIS, standard.SCT.LongAxis),
        (dicom_codes.ATTENUATION, standard.DCM.AttenuationCoefficient),
        (dicom_codes.HOUNSFIELD, standard.UCUM.HounsfieldUnit),
        (dicom_codes.CUBIC_CENTIMETER, standard.UCUM.CubicCentimeter),
        (dicom_codes.DEVICE, standard.DCM.Device),
    ):
        assert (concept.value, concept.meaning) == (keyword.value, keyword.meaning)


def _all(scheme):
    collection = getattr(standard, scheme)
    return [getattr(collection, name) for name in collection.dir()]


@pytest.mark.parametrize(
    ("structures", "keep", "expected"),
    [
        ({"liver": (1, 2), "tumor": (2,)}, {1}, ["Liver without tumor"]),
        ({"liver": (1, 2), "tumor": (2,)}, {2}, [f"Lesion {n}" for n in range(1, 6)]),
        ({"liver": (1, 2), "tumor": (2,)}, set(), ["Liver without tumor"]),
        ({"liver": (1,)}, {1}, ["Liver"]),
        ({"tumor": (2,), "liver": (1, 2), "spleen": (3,)}, {1}, ["Liver without tumor"]),
    ],
    ids=["no-lesion", "only-lesions", "nothing", "no-tumor-label", "empty-spleen"],
)
def test_empty_structures(tmp_path, structures, keep, expected):
    image, info = series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    labels[~np.isin(labels, list(keep))] = 0
    made = result(image, info, labels, structures=structures)
    seg = pydicom.dcmread(write_seg(made, tmp_path / "seg.dcm"))
    masks = rebuilt(seg, info, labels.shape)
    assert list(masks) == expected
    np.testing.assert_array_equal(labels_of(masks), labels)
    report = highdicom.sr.srread(write_sr(made, tmp_path / "sr.dcm", seg=tmp_path / "seg.dcm"))
    assert len(report.content.get_volumetric_roi_measurement_groups()) == len(expected)
    assert len(report.content.get_image_measurement_groups()) == len(structures)


def test_further_structures_have_segments_of_their_own(tmp_path):
    image, info = series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    labels[:, 30:, 30:] = np.where(labels[:, 30:, 30:] == 2, 2, 3)
    name = "gefäße " + "x" * 90  # neither ASCII nor as short as DICOM wants it
    made = result(image, info, labels, structures={"liver": (1, 2), "tumor": (2,), name: (3,)})
    seg, sr = both_files(made, tmp_path)
    masks = rebuilt(pydicom.dcmread(seg), info, labels.shape)
    vessels = "Gef??e " + "x" * 57
    assert list(masks)[:2] == ["Liver without tumor", vessels]
    np.testing.assert_array_equal(labels_of(masks, values={vessels: 3}), labels)
    group = highdicom.sr.srread(sr).content.get_volumetric_roi_measurement_groups()[1]
    assert (group.tracking_identifier, group.finding_type) == (vessels, standard.SCT.Tissue)


def test_more_lesions_than_a_byte_counts():
    """Lesion 255 as segment 256 = 0, that is background."""
    image = sitk.GetImageFromArray(np.zeros((3, 40, 48), np.int16))
    labels = np.zeros((3, 40, 48), np.uint8)
    labels[1, ::2, ::2] = 2
    labels[1, 1, 1] = 1
    made = result(image, None, labels)
    numbers, _ = segment_map(made)
    assert numbers[1, 1, 1] == 1 and set(np.unique(numbers)) == set(range(482))


def test_lesions_that_are_not_the_tumor_are_a_bug(tmp_path):
    image, info = series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    made = result(image, info, labels)
    lesions = array(made.lesions)
    lesions[lesions == 2] = 0
    with pytest.raises(ValueError, match="does not hold the tumor as 5 lesions"):
        segment_map(result(image, info, labels, lesions=like(image, lesions)))


def test_report_holds_the_measurements_with_units_and_references(tmp_path):
    image, info = series(tmp_path / "study")
    made = result(image, info, blobs(ct_array().shape))
    seg = pydicom.dcmread(write_seg(made, tmp_path / "seg.dcm"))
    report = highdicom.sr.srread(write_sr(made, tmp_path / "sr.dcm", seg=tmp_path / "seg.dcm"))
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_uid for group in groups] == [one.TrackingUID for one in seg.SegmentSequence]
    for segment, group in zip(seg.SegmentSequence, groups, strict=True):
        reference = group.referenced_segment[0]
        assert reference.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert reference.referenced_segment_numbers == [segment.SegmentNumber]
        assert group.referenced_segment.source_series_for_segmentation.value == info.series_uid
        assert group.tracking_identifier == segment.SegmentLabel
        assert group.finding_type.value == segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
    for lesion, group in zip(made.measurements.lesions, groups[1:], strict=True):
        assert numbers(group) == {
            ("Volume", None, "cm3"): pytest.approx(lesion.volume_ml),
            ("Diameter", "Maximum", "mm"): pytest.approx(10.25 + lesion.number),
            ("Long axis", None, "mm"): pytest.approx(5.125 + lesion.number),
            ("Attenuation Coefficient", "Mean", "[hnsf'U]"): pytest.approx(lesion.mean_hu),
            ("Attenuation Coefficient", "Standard Deviation", "[hnsf'U]"): pytest.approx(lesion.sd_hu, abs=1e-9),
        }
        axial = group.get_measurements(name=standard.SCT.LongAxis)[0].referenced_images[0]
        assert axial.referenced_sop_instance_uid == info.instances[lesion.axial_diameter.slice_index][0]
        assert [site.value for site in group.finding_sites] == [standard.SCT.Liver]
    parenchyma = array(made.image)[array(made.labels) == 1]
    assert numbers(groups[0]) == {
        ("Volume", None, "cm3"): pytest.approx(parenchyma.size * np.prod(SPACING_MM) / 1000),
        ("Attenuation Coefficient", "Mean", "[hnsf'U]"): pytest.approx(parenchyma.mean()),
        ("Attenuation Coefficient", "Standard Deviation", "[hnsf'U]"): pytest.approx(parenchyma.std()),
    }
    liver, tumor = report.content.get_image_measurement_groups()
    assert numbers(liver)["Volume", None, "cm3"] == pytest.approx(made.measurements.liver_ml)
    assert numbers(tumor)["Volume", None, "cm3"] == pytest.approx(made.measurements.tumor_ml)
    assert numbers(tumor)["Number of lesions", None, "1"] == 5
    evidence = {uid for _, _, uid, _ in report.get_evidence()}
    assert evidence == {seg.SOPInstanceUID, *(uid for uid, _ in info.instances)}


def numbers(group):
    return {
        (one.name.meaning, one.derivation.meaning if one.derivation else None, one.unit.value): one.value
        for one in group.get_measurements()
    }


def test_library_of_the_report_places_the_slices(tmp_path):
    image, info = series(tmp_path / "study", direction=rotated())
    labels = blobs(ct_array().shape)
    made = result(image, info, labels)
    report = pydicom.dcmread(write_sr(made, tmp_path / "sr.dcm", seg=write_seg(made, tmp_path / "seg.dcm")))
    (library,) = [item for item in report.ContentSequence if _name(item) == "Image Library"]
    positions = {}
    for item in library.ContentSequence[0].ContentSequence:
        if item.ValueType == "IMAGE":
            named = {_name(part): part for part in item.ContentSequence if part.ValueType == "NUM"}
            positions[item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID] = [
                float(named[f"Image Position (Patient) {axis}"].MeasuredValueSequence[0].NumericValue) for axis in "XYZ"
            ]
    filled = np.flatnonzero(labels.any(axis=(1, 2)))
    assert set(positions) == {info.instances[z][0] for z in filled} and len(filled) == 11
    for z in filled.tolist():
        expected = image.TransformIndexToPhysicalPoint((0, 0, z))
        np.testing.assert_allclose(positions[info.instances[z][0]], expected, atol=1e-3)


def _name(item):
    return item.ConceptNameCodeSequence[0].CodeMeaning


def identified(folder):
    image, info = series(folder, **IDENTITY, **NOT_OURS)
    return result(image, info, blobs(ct_array().shape))


def both_files(made, folder, **options):
    seg = write_seg(made, folder / "seg.dcm", **options)
    return seg, write_sr(made, folder / "sr.dcm", seg=seg)


def test_nothing_of_the_patient_is_written_unasked(tmp_path):
    """Any value of the source, whatever its tag and however deep: the bytes of the files are searched."""
    made = identified(tmp_path / "study")
    source = made.series.files[0].read_bytes()
    for path in both_files(made, tmp_path):
        content = path.read_bytes()
        for keyword, value in {**IDENTITY, **NOT_OURS}.items():
            if len(value) > 1:  # the sex's one letter is everywhere
                assert value.encode() in source, keyword
                assert value.encode() not in content, f"{keyword} in {path.name}"
        written = pydicom.dcmread(path)
        assert not written.PatientID and not written.PatientName and not written.PatientSex
        assert written.PatientIdentityRemoved == "YES"
        assert written.StudyInstanceUID == made.series.study_uid


def test_patient_and_study_are_copied_on_request(tmp_path):
    made = identified(tmp_path / "study")
    for path in both_files(made, tmp_path, identifiers=True):
        content, written = path.read_bytes(), pydicom.dcmread(path)
        for keyword, value in IDENTITY.items():
            assert str(written[keyword].value) == value, keyword
        for keyword, value in NOT_OURS.items():
            assert value.encode() not in content, f"{keyword} in {path.name}"
        assert "PatientIdentityRemoved" not in written


def test_names_in_other_alphabets_survive(tmp_path):
    name = "Ерёмин^Пётр"
    image, info = series(tmp_path / "study", SpecificCharacterSet="ISO_IR 144", PatientName=name)
    made = result(image, info, blobs(ct_array().shape))
    for path in both_files(made, tmp_path, identifiers=True):
        assert str(pydicom.dcmread(path).PatientName) == name


def test_identity_that_breaks_the_standard_is_copied_as_it_is(tmp_path):
    """Sex 'W' and dates with dots stop highdicom; a PACS still files the patient under them."""
    with pydicom.config.disable_value_validation():
        image, info = series(tmp_path / "study", PatientSex="W", PatientBirthDate="07.02.1931", StudyDate="2019-03-04")
    made = result(image, info, blobs(ct_array().shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's about the dates
        for path in both_files(made, tmp_path, identifiers=True):
            assert pydicom.dcmread(path).PatientSex == "W" and b"07.02.1931" in path.read_bytes()


def test_files_of_a_zip_must_be_open(tmp_path):
    image, info = series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in (tmp_path / "study").iterdir():
            archive.write(path, path.name)
    image, info = read_series(tmp_path / "study.zip")
    made = result(image, info, labels)
    with pytest.raises(UserError, match=r"(?s)12 files of the series are gone .* write the SEG inside `dicom_files`"):
        write_seg(made, tmp_path / "seg.dcm")
    assert not list(tmp_path.glob("*seg*"))
    with dicom_files(tmp_path / "study.zip") as files:
        write_seg(made, tmp_path / "seg.dcm", files=files)
    np.testing.assert_array_equal(labels_of(rebuilt(pydicom.dcmread(tmp_path / "seg.dcm"), info, labels.shape)), labels)
    with pytest.raises(UserError, match="1 of 12 source slices are not among the files given"):
        write_seg(made, tmp_path / "seg.dcm", files=sorted((tmp_path / "study").iterdir())[:11])


def test_resampled_series_are_refused_by_name(tmp_path):
    image, info = series(tmp_path / "study", drift=(0.0, 0.8))
    made = result(image, info, np.ones(array(image).shape, np.uint8))
    with pytest.raises(UserError, match=r"interpolated while reading.* \(gantry tilt of 17\.7 degrees"):
        write_seg(made, tmp_path / "seg.dcm")


def test_other_inputs_are_refused(tmp_path):
    image, info = series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    with pytest.raises(UserError, match="the input was not DICOM"):
        write_seg(result(image, None, labels), tmp_path / "seg.dcm")
    slices = dicom_slices(ct_array())
    save_slices(slices, tmp_path / "bare")
    image, info = read_series(tmp_path / "bare")
    with pytest.raises(UserError, match="12 of 12 source slices have no FrameOfReferenceUID"):
        write_seg(result(image, info, labels), tmp_path / "seg.dcm")
    for one in slices:
        one.FrameOfReferenceUID = f"1.2.3.{one.InstanceNumber}"
    save_slices(slices, tmp_path / "torn")
    image, info = read_series(tmp_path / "torn")
    with pytest.raises(UserError, match="12 different FrameOfReferenceUIDs"):
        write_seg(result(image, info, labels), tmp_path / "seg.dcm")


def test_a_series_over_several_multiframe_files_is_refused(tmp_path):
    ct = ct_array()
    (tmp_path / "study").mkdir()
    for part in range(2):
        half = enhanced(ct[6 * part : 6 * part + 6])
        half.SOPInstanceUID = half.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3.{part}"
        half.FrameOfReferenceUID = FRAME_OF_REFERENCE
        for place in half.PerFrameFunctionalGroupsSequence:
            place.PlanePositionSequence[0].ImagePositionPatient[2] += 6 * part * SPACING_MM[0]
        half.save_as(tmp_path / f"study/{part}", enforce_file_format=True)
    image, info = read_series(tmp_path / "study")
    np.testing.assert_array_equal(array(image), ct)
    with pytest.raises(UserError, match="spread over several multi-frame files"):
        write_seg(result(image, info, blobs(ct.shape)), tmp_path / "seg.dcm")


def test_report_refuses_the_segments_of_another_result(tmp_path):
    image, info = series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    seg = write_seg(result(image, info, labels), tmp_path / "seg.dcm")
    fewer = np.where(labels == 2, 1, labels)
    with pytest.raises(UserError, match=re.escape("'Lesion 5'] of another result")):
        write_sr(result(image, info, fewer), tmp_path / "sr.dcm", seg=seg)
    image, other = series(tmp_path / "other", series=4)
    with pytest.raises(UserError, match="of another result"):
        write_sr(result(image, other, labels), tmp_path / "sr.dcm", seg=seg)


def test_missing_highdicom_names_the_command(tmp_path, monkeypatch):
    image, info = series(tmp_path / "study")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UserError, match=r"needs highdicom: pip install 'nnunet-livseg\[dicom\]'"):
        write_seg(result(image, info, blobs(ct_array().shape)), tmp_path / "seg.dcm")
