"""The measurements as a DICOM structured report, TID 1500, on the segments of a DICOM SEG.

Needs the extra ``nnunet-livseg[dicom]``. Every segment has a group (TID 1411) with the numbers of exactly its voxels;
every structure has one more (TID 1501) as the other reports show it: the liver with its tumors. Lengths and volumes
are those of ``Measurements``; only the liver without tumors, which is a segment, is measured here.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg import __version__
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path
from nnunet_livseg.core.labels import TUMOR
from nnunet_livseg.data.dicom.headers import highdicom_module, pydicom_module
from nnunet_livseg.imaging.orientation import PatientAxes
from nnunet_livseg.patient.segmentation import Lesion, Provenance, Segmentation, StructureSize
from nnunet_livseg.report import dicom_codes as codes
from nnunet_livseg.report.dicom_seg import SERIES_OFFSET
from nnunet_livseg.report.dicom_segments import Segment, segment_map
from nnunet_livseg.report.dicom_source import nameless, set_identity


def write_sr(result: Segmentation, path: str | Path, *, seg: str | Path) -> Path:
    """Write the measurements of ``result`` as a TID 1500 report.

    Args:
        result: Read from DICOM.
        path: File to write.
        seg: The DICOM SEG that ``write_seg`` wrote of it; the report has its patient, or none as it has none.

    Raises:
        UserError: ``seg`` was written of another result.
    """
    highdicom = highdicom_module()
    header = pydicom_module().dcmread(seg, stop_before_pixels=True)
    numbers, segments = segment_map(result)
    _require_same(result, header, segments, seg)
    images = _source_images(header)
    groups = [*_structure_groups(result), *_segment_groups(result, header, numbers, segments, images)]
    made = highdicom.sr.ComprehensiveSR(
        evidence=[
            *images.values(),
            _named(header, header.SOPClassUID, header.SOPInstanceUID, header.SeriesInstanceUID),
        ],
        content=highdicom.sr.MeasurementReport(
            observation_context=_observer(result.provenance),
            procedure_reported=codes.PROCEDURE.code,
            imaging_measurements=groups,
            referenced_images=_library(header, images),
        ),
        series_instance_uid=highdicom.UID(),
        series_number=int(header.SeriesNumber) + SERIES_OFFSET,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        is_complete=True,
        series_description=f"Liver measurements ({codes.NAME})",
        **codes.equipment(),
    )
    set_identity(made, header)
    with atomic_path(path) as temporary:
        made.save_as(temporary)
    return Path(path)


def _require_same(result: Segmentation, header, segments: tuple[Segment, ...], seg: str | Path) -> None:
    labels = [segment.SegmentLabel for segment in header.get("SegmentSequence", [])]
    series = header.ReferencedSeriesSequence[0].SeriesInstanceUID if labels else ""
    if series != result.series.series_uid or labels != [segment.label for segment in segments]:
        raise UserError(
            f"{seg} contains the segments {labels} of another result, so the report would point at wrong ones.\n"
            "  Write the SEG of this result first and give its path."
        )


def _named(header, sop_class: str, uid: str, series: str):
    return nameless(
        StudyInstanceUID=header.StudyInstanceUID, SeriesInstanceUID=series, SOPClassUID=sop_class, SOPInstanceUID=uid
    )


def _source_images(header) -> dict[str, object]:
    """The source images by their UID, as the SEG lists them."""
    series = header.ReferencedSeriesSequence[0]
    return {
        one.ReferencedSOPInstanceUID: _named(
            header, one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID, series.SeriesInstanceUID
        )
        for one in series.ReferencedInstanceSequence
    }


def _library(header, images: dict[str, object]) -> list | None:
    """The slices that hold a segment, with their geometry; none of a multi-frame source, which holds its own."""
    shared = header.SharedFunctionalGroupsSequence[0]
    described = {}
    for frame in header.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        if "ReferencedFrameNumber" in source:
            return None
        image = images[source.ReferencedSOPInstanceUID]
        image.Modality, image.FrameOfReferenceUID = "CT", header.FrameOfReferenceUID
        image.Rows, image.Columns = header.Rows, header.Columns
        image.ImagePositionPatient = frame.PlanePositionSequence[0].ImagePositionPatient
        image.ImageOrientationPatient = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        image.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
        image.SliceThickness = shared.PixelMeasuresSequence[0].SliceThickness
        described[image.SOPInstanceUID] = image
    return list(described.values())


def _observer(provenance: Provenance):
    sr = highdicom_module().sr
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=pydicom_module().uid.generate_uid(entropy_srcs=[codes.NAME, __version__, provenance.model]),
        name=codes.NAME,
        manufacturer_name=codes.NAME,
        model_name=codes.ascii_only(provenance.model),
        serial_number=__version__,
    )
    return sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DEVICE.code, device))


def _algorithm(provenance: Provenance):
    said = [f"{key}={value}" for key, value in codes.parameters(provenance).items()]
    return highdicom_module().sr.AlgorithmIdentification(codes.NAME, __version__, parameters=said)


def _structure_groups(result: Segmentation) -> Iterator:
    """Every structure as a whole, the liver with its tumors; tumors with their number."""
    sr = highdicom_module().sr
    for name, size in result.measurements.structures.items():
        measured = list(_size(size))
        if name == TUMOR and result.measurements.lesions is not None:
            measured.append(_measured(codes.LESION_COUNT, len(result.measurements.lesions), codes.NO_UNITS))
        yield sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                highdicom_module().UID(), codes.ascii_only(f"{name} as a whole".capitalize())
            ),
            algorithm_id=_algorithm(result.provenance),
            measurements=measured,
            **_finding(name),
        )


def _segment_groups(result: Segmentation, header, numbers, segments: tuple[Segment, ...], images) -> Iterator:
    sr = highdicom_module().sr
    for segment, described in zip(segments, header.SegmentSequence, strict=True):
        lesion = segment.lesion
        measured = _lesion(lesion, result, images) if lesion else _size(_measure(result.image, numbers, segment))
        yield sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(described.TrackingUID, described.TrackingID),
            referenced_segment=sr.ReferencedSegment(
                header.SOPClassUID,
                header.SOPInstanceUID,
                segment.number,
                source_series=sr.SourceSeriesForSegmentation(result.series.series_uid),
            ),
            algorithm_id=_algorithm(result.provenance),
            measurements=list(measured),
            **_finding(segment.structure),
        )


def _finding(structure: str) -> dict[str, object]:
    shown = codes.property_of(structure)
    sites = [highdicom_module().sr.FindingSite(shown.site.code)] if shown.site else None
    return {"finding_category": shown.category.code, "finding_type": shown.type.code, "finding_sites": sites}


def _measure(image: sitk.Image, numbers: np.ndarray, segment: Segment) -> StructureSize:
    inside = sitk.GetArrayViewFromImage(image)[numbers == segment.number].astype(np.float64)
    volume_ml = inside.size * float(np.prod(image.GetSpacing())) / 1000
    return StructureSize(volume_ml, *((inside.mean(), inside.std()) if inside.size else (np.nan, np.nan)))


def _size(size: StructureSize) -> Iterator:
    yield _measured(codes.VOLUME, size.volume_ml, codes.CUBIC_CENTIMETER)
    yield from _density(size)


def _density(size: StructureSize | Lesion) -> Iterator:
    """Mean and standard deviation; an empty structure has none."""
    for derivation, value in ((codes.MEAN, size.mean_hu), (codes.DEVIATION, size.sd_hu)):
        if np.isfinite(value):
            yield _measured(codes.ATTENUATION, value, codes.HOUNSFIELD, derivation=derivation.code)


def _lesion(lesion: Lesion, result: Segmentation, images: dict[str, object]) -> Iterator:
    yield _measured(codes.VOLUME, lesion.volume_ml, codes.CUBIC_CENTIMETER)
    yield _measured(codes.DIAMETER, lesion.diameter.length_mm, codes.MILLIMETER, derivation=codes.MAXIMUM.code)
    seen_in = list(_seen_in(lesion, result, images)) or None
    yield _measured(codes.LONG_AXIS, lesion.axial_diameter.length_mm, codes.MILLIMETER, referenced_images=seen_in)
    yield from _density(lesion)


def _seen_in(lesion: Lesion, result: Segmentation, images: dict[str, object]) -> Iterator:
    """The image that shows the axial diameter; none of a coronal or sagittal series does."""
    if PatientAxes(result.image).slices_are_axial:
        uid, frame = result.series.instances[lesion.axial_diameter.slice_index]
        number = None if frame is None else [frame + 1]
        yield highdicom_module().sr.SourceImageForMeasurement(images[uid].SOPClassUID, uid, number)


def _measured(name: codes.Concept, value: float, unit: codes.Concept, **more: object):
    return highdicom_module().sr.Measurement(name=name.code, value=value, unit=unit.code, **more)
