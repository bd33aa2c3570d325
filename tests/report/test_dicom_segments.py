"""What becomes a segment, and what a segment says about itself."""

from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_samples import FRAME_OF_REFERENCE, array, blobs, both_files, labels_of, like, rebuilt, result, series
from io_samples import ct_array
from pydicom.sr.codedict import codes as standard
from scipy import ndimage

from nnunet_livseg.report import dicom_codes
from nnunet_livseg.report.dicom_seg import write_seg
from nnunet_livseg.report.dicom_segments import segment_map
from nnunet_livseg.report.dicom_sr import write_sr


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
    np.testing.assert_allclose(shown, dicom_codes.PROPERTIES["liver"].color, atol=2)
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


def test_lesions_take_the_place_of_every_kind_of_tumor(tmp_path):
    image, info = series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    lesions, count = ndimage.label(labels == 2)
    labels[lesions > 2] = 3
    structures = {"liver": (1, 2, 3), "tumor": (2, 3), "hcc": (2,), "metastasis": (3,)}
    known = result(image, info, blobs(labels.shape))
    made = result(image, info, labels, structures=structures, lesions=known.lesions)
    made = replace(made, measurements=replace(made.measurements, lesions=known.measurements.lesions))
    seg, sr = both_files(made, tmp_path)
    masks = rebuilt(pydicom.dcmread(seg), info, labels.shape)
    assert list(masks) == ["Liver without tumor", *(f"Lesion {number}" for number in range(1, count + 1))]
    np.testing.assert_array_equal(labels_of(masks), np.minimum(labels, 2))
    assert all(mask.any() for mask in masks.values())
    assert len(highdicom.sr.srread(sr).content.get_volumetric_roi_measurement_groups()) == 1 + count


def test_lesions_behind_the_largest_are_one_segment():
    """480 of one voxel: 200 segments, and one of 280 voxels; none is background."""
    image = sitk.GetImageFromArray(np.zeros((3, 40, 48), np.int16))
    labels = np.zeros((3, 40, 48), np.uint8)
    labels[1, ::2, ::2] = 2
    labels[1, 1, 1] = 1
    made = result(image, None, labels)
    numbers, segments = segment_map(made)
    assert numbers[1, 1, 1] == 1 and np.bincount(numbers[numbers > 0]).tolist() == [0, 1, *[1] * 200, 280]
    assert [segment.number for segment in segments] == list(range(1, 203))
    assert segments[-1].label == "Smaller lesions (280)"


def test_lesions_that_are_not_the_tumor_are_a_bug(tmp_path):
    image, info = series(tmp_path / "study")
    labels = blobs(ct_array().shape)
    made = result(image, info, labels)
    lesions = array(made.lesions)
    lesions[lesions == 2] = 0
    with pytest.raises(ValueError, match="does not contain the tumor as 5 lesions"):
        segment_map(result(image, info, labels, lesions=like(image, lesions)))
