"""The structured report: numbers, units, and what they point at."""

import re

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_samples import STRUCTURES, array, blobs, both_files, labels_of, like, rebuilt, result, series
from io_samples import SPACING_MM, ct_array, rotated
from pydicom.sr.codedict import codes as standard

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.patient.measure import measure
from nnunet_livseg.report.dicom_seg import write_seg
from nnunet_livseg.report.dicom_sr import write_sr


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


def test_report_of_a_measured_ct_equals_its_record(tmp_path):
    """Measured by `measure`, not by hand: its lesion order, its slice of the axial diameter, its volumes."""
    image, info = series(tmp_path / "study", direction=rotated())
    labels = blobs(ct_array().shape)
    found, lesions = measure(image, like(image, labels), STRUCTURES)
    seg, sr = both_files(result(image, info, labels, measurements=found, lesions=lesions), tmp_path)
    np.testing.assert_array_equal(labels_of(rebuilt(pydicom.dcmread(seg), info, labels.shape)), labels)
    groups = highdicom.sr.srread(sr).content.get_volumetric_roi_measurement_groups()
    for lesion, group in zip(found.lesions, groups[1:], strict=True):
        written = numbers(group)
        assert written["Volume", None, "cm3"] == pytest.approx(lesion.volume_ml)
        assert written["Diameter", "Maximum", "mm"] == pytest.approx(lesion.diameter.length_mm)
        assert written["Long axis", None, "mm"] == pytest.approx(lesion.axial_diameter.length_mm)
        axial = group.get_measurements(name=standard.SCT.LongAxis)[0].referenced_images[0]
        z = [uid for uid, _ in info.instances].index(axial.referenced_sop_instance_uid)
        assert (array(lesions)[z] == lesion.number).any()
    volumes = [numbers(group)["Volume", None, "cm3"] for group in groups]
    assert sum(volumes) == pytest.approx(found.liver_ml) and volumes[1:] == sorted(volumes[1:], reverse=True)


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
