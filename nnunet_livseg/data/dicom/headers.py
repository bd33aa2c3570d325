"""The header of one slice: the DICOM attributes needed to list, sort and stack it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunet_livseg.core.errors import UserError

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # bits or fractions; label values
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    *("FrameOfReferenceUID", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    *("StudyDescription", "ProtocolName", "Modality", "ImageType", "InstanceNumber", "AcquisitionNumber"),
    *("AcquisitionDate", "AcquisitionTime", "ContentTime", "AcquisitionDateTime", "SeriesTime"),
    *("TemporalPositionIdentifier", "ContrastBolusAgent", "ContrastBolusStartTime", "GantryDetectorTilt"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns"),
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "LossyImageCompression", "BodyPartExamined"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


@dataclass(frozen=True)
class Slice:
    """One image of a series.

    Args:
        path: Its file.
        frame: Index in a multi-frame file; None in a file of one image.
        header: pydicom dataset without pixels.
        position_mm: Center of the first voxel, patient x, y, z; None if not stated.
        axes: Directions of rows and columns ``(2, 3)``; None if not stated.
        spacing_mm: Between rows, between columns; None if not stated.
    """

    path: Path
    frame: int | None
    header: object = field(repr=False)
    position_mm: np.ndarray | None
    axes: np.ndarray | None
    spacing_mm: tuple[float, float] | None

    def get(self, keyword: str, default: object = None) -> object:
        """A header value; ``default`` where it is missing or empty."""
        value = self.header.get(keyword, None)
        return default if value is None or value == "" else value

    def text(self, keyword: str) -> str:
        return str(self.get(keyword, "")).strip()

    def number(self, keyword: str) -> float | None:
        """A header value as a number; None where it is missing or not a number."""
        try:
            return float(self.get(keyword))
        except (TypeError, ValueError):
            return None

    @property
    def instance(self) -> int:
        return int(self.number("InstanceNumber") or 0) + (self.frame or 0)

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in [str(value).upper() for value in self.get("ImageType", [])]


def pydicom_module():
    """pydicom, or a message that says how to get it."""
    try:
        import pydicom
    except ImportError as error:
        raise UserError("reading DICOM needs pydicom: pip install 'nnunet-livseg[dicom]'") from error
    return pydicom


def highdicom_module():
    """highdicom, or a message that says how to get it."""
    try:
        import highdicom
    except ImportError as error:
        raise UserError("DICOM segmentations need highdicom: pip install 'nnunet-livseg[dicom]'") from error
    return highdicom


def read_slices(path: Path) -> list[Slice]:
    """The images of one file: one, or one per frame; none if it is not a DICOM file or contains no image."""
    pydicom = pydicom_module()
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except pydicom.errors.InvalidDicomError:
        header = _without_preamble(pydicom, path)
    except Exception:  # a damaged header can fail anywhere in pydicom; the caller counts unreadable files
        return []
    if header is None or not header.get("Rows"):
        return [] if header is None or not header.get("SOPClassUID") else [_slice(path, None, header, [header])]
    if header.get("SOPClassUID") in ENHANCED_CT:
        return _frames(path, header)
    return [_slice(path, None, header, [header])]


def _without_preamble(pydicom, path: Path) -> object | None:
    """Old exports lack the 128 bytes and ``DICM`` at the start; accept them if they say what they are."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=True)
        return header if header.get("SOPClassUID") and header.get("Rows") else None
    except Exception:  # any file at all may be lying in the folder
        return None


def _frames(path: Path, header) -> list[Slice]:
    shared = header.get("SharedFunctionalGroupsSequence") or [{}]
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    return [
        _slice(path, index, header, [*_groups(frame), *_groups(shared[0])]) for index, frame in enumerate(per_frame)
    ]


def _groups(functional) -> list:
    """The single items of a functional group's sequences (position, orientation, pixel measures, ...)."""
    return [element.value[0] for element in functional if element.VR == "SQ" and element.value] if functional else []


def _slice(path: Path, frame: int | None, header, places: list) -> Slice:
    orientation = _numbers(places, "ImageOrientationPatient", 6)
    spacing = _numbers(places, "PixelSpacing", 2)
    return Slice(
        path,
        frame,
        header,
        _numbers(places, "ImagePositionPatient", 3),
        None if orientation is None else orientation.reshape(2, 3),
        None if spacing is None else (float(spacing[0]), float(spacing[1])),
    )


def _numbers(places: list, keyword: str, count: int) -> np.ndarray | None:
    for place in places:
        try:
            values = np.array([float(value) for value in place.get(keyword)])
        except (TypeError, ValueError):
            continue
        if values.shape == (count,) and np.isfinite(values).all():
            return values
    return None
