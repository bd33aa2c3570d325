"""A segmented CT as DICOM SEG over its input series. Needs the extra ``nnunet-livseg[dicom]``.

Binary segmentation (PS3.3 A.51): one bit per voxel and segment, frames without a voxel left out, every frame with the
position of its source slice and a reference to it. See docs/dicom_out.md for codes, identifiers and limits.
"""

from collections.abc import Iterable
from pathlib import Path

from nnunet_livseg import __version__
from nnunet_livseg.core.files import atomic_path
from nnunet_livseg.data.dicom.headers import highdicom_module, pydicom_module
from nnunet_livseg.patient.segmentation import Provenance, Segmentation
from nnunet_livseg.report.dicom_codes import INTELLIGENCE, NAME, ascii_only, equipment, parameters, property_of
from nnunet_livseg.report.dicom_segments import Segment, segment_map
from nnunet_livseg.report.dicom_source import read_source, set_identity

SERIES_OFFSET = 1000  # series numbers: source 3, SEG 1003, SR 2003


def write_seg(
    result: Segmentation, path: str | Path, *, files: Iterable[Path] | None = None, identifiers: bool = False
) -> Path:
    """Write a DICOM SEG that refers to the slices of the input series.

    Args:
        result: Read from DICOM.
        path: File to write.
        files: The series' files (others may be among them) where ``result.series.files`` are gone, as after a zip.
        identifiers: Copy the attributes of patient and study; without, only UIDs connect the SEG with its series.

    Raises:
        UserError: The input was not DICOM or was resampled while reading, or what the reference needs is missing.
    """
    highdicom = highdicom_module()
    source = read_source(result.series, files)
    numbers, segments = segment_map(result)
    algorithm = _algorithm(result.provenance)
    made = highdicom.seg.Segmentation(
        source_images=source.images,
        pixel_array=source.in_order(numbers),
        segmentation_type="BINARY",
        segment_descriptions=[_description(segment, algorithm) for segment in segments],
        series_instance_uid=highdicom.UID(),
        series_number=source.series_number + SERIES_OFFSET,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        omit_empty_frames=bool(numbers.any()),  # a SEG without any frame is not legal
        content_label="LIVER",
        content_description="Liver and liver tumors, segmented automatically",
        series_description=f"Liver segmentation ({NAME})",
        **equipment(),
    )
    made.ContentCreatorName = None  # must be there, but nobody drew this
    header = pydicom_module().dcmread(source.file, stop_before_pixels=True, force=True) if identifiers else None
    set_identity(made, header)
    with atomic_path(path) as temporary:
        made.save_as(temporary)
    return Path(path)


def _algorithm(provenance: Provenance):
    return highdicom_module().AlgorithmIdentificationSequence(
        name=NAME,
        family=INTELLIGENCE.code,
        version=__version__,
        source=ascii_only(provenance.model)[:64],
        parameters=parameters(provenance),
    )


def _description(segment: Segment, algorithm):
    highdicom = highdicom_module()
    shown = property_of(segment.structure)
    return highdicom.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label,
        segmented_property_category=shown.category.code,
        segmented_property_type=shown.type.code,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=highdicom.UID(),
        tracking_id=segment.label,
        anatomic_regions=[shown.site.code] if shown.site else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*shown.color),
    )
