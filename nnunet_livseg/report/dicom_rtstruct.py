"""A segmented CT as DICOM RT structure set over its input series. Needs the extra ``nnunet-livseg[dicom]``.

Closed planar contours (PS3.3 A.19, C.8.8.6) in patient coordinates, halfway between the centers of inner and outer
voxels. Regions of interest (ROIs) overlap as in radiotherapy: the liver includes its tumors, and every lesion is a
ROI of its own. highdicom gives the general modules; it has no class for structure sets.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.files import atomic_path
from nnunet_livseg.core.labels import LIVER, TUMOR, mask_of
from nnunet_livseg.data.dicom.headers import RT_STRUCTURE_SET, highdicom_module, pydicom_module
from nnunet_livseg.imaging.contours import trace
from nnunet_livseg.patient.segmentation import LISTED_LESIONS, Segmentation
from nnunet_livseg.report.dicom_codes import NAME, ascii_only, equipment, property_of
from nnunet_livseg.report.dicom_seg import SERIES_OFFSET
from nnunet_livseg.report.dicom_segments import lesion_names, plain_structures
from nnunet_livseg.report.dicom_source import SourceImages, read_source, set_identity

_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"  # retired, and still what a referenced study is called


@dataclass(frozen=True)
class Region:
    """One ROI.

    Args:
        number: From 1.
        name: For people, ASCII.
        structure: The structure that it is or, for a lesion, is part of.
        mask: Its voxels ``(z, y, x)``.
    """

    number: int
    name: str
    structure: str
    mask: np.ndarray


def write_rtstruct(
    result: Segmentation, path: str | Path, *, files: Iterable[Path] | None = None, identifiers: bool = False
) -> Path:
    """Write a structure set that refers to the slices of the input series.

    Args:
        result: Read from DICOM.
        path: File to write.
        files: As ``dicom_seg.write_seg``.
        identifiers: Copy the attributes of patient and study; without, only UIDs connect the contours with the series.

    Raises:
        UserError: As ``dicom_seg.write_seg``.
    """
    highdicom, pydicom = highdicom_module(), pydicom_module()
    source = read_source(result.series, files)
    first = source.images[0]
    made = highdicom.SOPClass(
        study_instance_uid=first.StudyInstanceUID,
        series_instance_uid=highdicom.UID(),
        series_number=source.series_number + 3 * SERIES_OFFSET,
        sop_instance_uid=highdicom.UID(),
        sop_class_uid=RT_STRUCTURE_SET,
        instance_number=1,
        modality="RTSTRUCT",
        transfer_syntax_uid=pydicom.uid.ImplicitVRLittleEndian,  # in explicit ones a contour ends at 64 KiB
        series_description=f"Liver contours ({NAME})",
        **equipment(),
    )
    made.StructureSetLabel, made.StructureSetName = "LIVER", f"Liver segmentation ({NAME})"
    now = datetime.now()
    made.StructureSetDate, made.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.ApprovalStatus = "UNAPPROVED"
    made.OperatorsName = None  # must be there, and stays empty: no person drew this
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = first.FrameOfReferenceUID, None
    made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(first, source)]
    made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
    for region in regions(result):
        made.StructureSetROISequence.append(_roi(region, first.FrameOfReferenceUID))
        made.ROIContourSequence.append(_contours(region, result.labels, source))
        made.RTROIObservationsSequence.append(_observation(region))
    set_identity(made, pydicom.dcmread(source.file, stop_before_pixels=True, force=True) if identifiers else None)
    with atomic_path(path) as temporary:
        made.save_as(temporary)
    return Path(path)


def regions(result: Segmentation) -> Iterator[Region]:
    """Structures as a whole, then lesions; the first structure, without a contour, where all are empty."""
    labels = sitk.GetArrayViewFromImage(result.labels)
    found = [name for name in plain_structures(result) if mask_of(labels, result.structures[name]).any()]
    lesions = lesion_names(result)
    if not found and not lesions:
        found = [next(iter(result.structures))]
    for number, name in enumerate(found, start=1):
        label = ascii_only(name.capitalize())[:64]  # DICOM's length for a name
        yield Region(number, label, name, mask_of(labels, result.structures[name]))
    numbered = sitk.GetArrayViewFromImage(result.lesions) if lesions else None
    for number, name in enumerate(lesions, start=1):
        mask = numbered == number if number <= LISTED_LESIONS else numbered > LISTED_LESIONS
        yield Region(len(found) + number, name, TUMOR, mask)


def _item(**values: object):
    item = pydicom_module().Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _frame_of_reference(first, source: SourceImages):
    images = [
        _item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
        for image in source.images
    ]
    series = _item(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID=_STUDY_MANAGEMENT,
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _roi(region: Region, frame_of_reference: str):
    return _item(
        ROINumber=region.number,
        ReferencedFrameOfReferenceUID=frame_of_reference,
        ROIName=region.name,
        ROIGenerationAlgorithm="AUTOMATIC",
        ROIGenerationDescription=NAME,
    )


def _contours(region: Region, grid: sitk.Image, source: SourceImages):
    axes = np.reshape(grid.GetDirection(), (3, 3))[:, :2] * grid.GetSpacing()[:2]
    contours = []
    for z in np.flatnonzero(region.mask.any(axis=(1, 2))).tolist():
        image, frame, position_mm = source.plane(z)
        named = _item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
        if frame is not None:
            named.ReferencedFrameNumber = frame + 1
        for polygon in trace(region.mask[z]):
            points_mm = position_mm + polygon @ axes.T
            contours.append(
                _item(
                    ContourImageSequence=[named],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(polygon),
                    ContourNumber=len(contours) + 1,
                    ContourData=[f"{value:.3f}" for value in points_mm.ravel()],
                )
            )
    made = _item(ROIDisplayColor=list(property_of(region.structure).color), ReferencedROINumber=region.number)
    if contours:
        made.ContourSequence = contours
    return made


def _observation(region: Region):
    """What the ROI is, coded; a lesion is called no target volume, which is for people to say."""
    kind = property_of(region.structure).type
    code = _item(CodeValue=kind.value, CodingSchemeDesignator=kind.scheme, CodeMeaning=kind.meaning)
    return _item(
        ObservationNumber=region.number,
        ReferencedROINumber=region.number,
        ROIObservationLabel=region.name[:16],
        RTROIIdentificationCodeSequence=[code],
        RTROIInterpretedType="ORGAN" if region.structure == LIVER else "",
        ROIInterpreter=None,
    )
