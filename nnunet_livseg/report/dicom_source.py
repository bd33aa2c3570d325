"""The images that a DICOM SEG refers to: what names and places them, and the patient only on request.

Headers are read again from the files of the series, because ``SeriesInfo`` holds no patient data. A reference needs
UIDs, position, orientation and spacing; these are copied one by one, so nothing else of the source can slip through.
"""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.dicom.headers import Slice, pydicom_module, read_slices
from nnunet_livseg.data.dicom.reading import SeriesInfo

_READERS = 8  # reading headers waits for the disk
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_OPTIONAL = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
# must be there in every DICOM object, but may be empty
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
_REMOVED = "patient and study attributes omitted, UIDs kept"


@dataclass(frozen=True)
class SourceImages:
    """The source images of one series.

    Args:
        images: pydicom headers without patient: one per slice from ``z = 0`` upwards, or the one multi-frame image.
        frames: For a multi-frame image, the frame of every slice; empty otherwise.
        file: A file of the series.
        series_number: SeriesNumber, 0 where there is none.
    """

    images: list
    frames: tuple[int, ...]
    file: Path
    series_number: int

    def in_order(self, planes: np.ndarray) -> np.ndarray:
        """``planes (z, y, x)`` in the order of the source's own frames; frames of other volumes are empty."""
        if not self.frames:
            return planes
        ordered = np.zeros((self.images[0].NumberOfFrames, *planes.shape[1:]), planes.dtype)
        ordered[list(self.frames)] = planes
        return ordered

    def plane(self, z: int) -> tuple[object, int | None, np.ndarray]:
        """The image that shows slice ``z``, its frame (None: the only one), and its position, patient x, y, z in mm."""
        if not self.frames:
            return self.images[z], None, np.array(self.images[z].ImagePositionPatient, float)
        image, frame = self.images[0], self.frames[z]
        place = image.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0]
        return image, frame, np.array(place.ImagePositionPatient, float)


def read_source(series: SeriesInfo | None, files: Iterable[Path] | None = None) -> SourceImages:
    """Headers of the images that ``series`` was read from.

    Args:
        series: As ``read_series`` returned it.
        files: The series' files, in any order and among others; needed where those of a zip were removed.

    Raises:
        UserError: The image was not read from DICOM or was resampled, files are gone, or attributes that a reference
            needs are missing.
    """
    _require_slices(series)
    _require_one_uid_each(series)
    found = _found(series.files if files is None else files)
    missing = [uid for uid, frame in series.instances if (uid, frame) not in found]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(series.instances)} source slices are not among the files given, so a DICOM SEG"
            " cannot refer to them.\n  Give all files of the series."
        )
    slices = [found[key] for key in series.instances]
    _require_tags(slices)
    frames = tuple(one.frame for one in slices if one.frame is not None)
    images = [_multi_frame(slices)] if frames else [_single_frame(one, slices[0]) for one in slices]
    distance_mm = float(np.linalg.norm(slices[-1].position_mm - slices[0].position_mm)) / (len(slices) - 1)
    measures = images[0].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence if frames else images
    for item in measures:
        item.SpacingBetweenSlices = _decimal(distance_mm)
        item.SliceThickness = _decimal(slices[0].number("SliceThickness") or distance_mm)
    return SourceImages(images, frames, slices[0].path, int(slices[0].number("SeriesNumber") or 0))


def set_identity(made, source) -> None:
    """Give a new DICOM object the patient and study of ``source``, or record that they were omitted.

    Args:
        made: An object of highdicom, made from headers without patient.
        source: A pydicom header of the study; None for an object without patient.
    """
    if source is None:
        made.PatientIdentityRemoved, made.DeidentificationMethod = "YES", _REMOVED
        return
    made.copy_patient_and_study_information(source)
    if source.get("SpecificCharacterSet"):
        made.SpecificCharacterSet = source.SpecificCharacterSet  # our own texts are ASCII


def nameless(**uids: str):
    """A header with the attributes that every object must have, empty, and the given ones."""
    header = pydicom_module().Dataset()
    for keyword in _EMPTY:
        setattr(header, keyword, None)
    for keyword, value in uids.items():
        setattr(header, keyword, value)
    return header


def _require_slices(series: SeriesInfo | None) -> None:
    if series is None:
        raise UserError(
            "the input was not DICOM, so there is no series that a DICOM SEG or SR could refer to.\n"
            "  Give the DICOM folder or zip of the study instead of a volume made from it."
        )
    if series.resampled:
        raise UserError(
            "the volume was interpolated while reading, so no slice of the label map is a slice of the series, and a"
            f" DICOM SEG over it would be misplaced ({'; '.join(series.notes)}).\n"
            "  Use the label map file, whose place is right, or export the series again without gap or tilt."
        )


def _require_one_uid_each(series: SeriesInfo) -> None:
    counts = Counter(series.instances)
    if shared := sum(count for count in counts.values() if count > 1):
        raise UserError(
            f"{shared} slices share a SOPInstanceUID, so a DICOM SEG cannot say which slice it lies on.\n"
            "  Export the series again. An anonymizer must give every slice a UID of its own."
        )


def _found(files: Iterable[Path]) -> dict[tuple[str, int | None], Slice]:
    paths = list(dict.fromkeys(files))
    gone = [path for path in paths if not path.exists()]
    if gone:
        raise UserError(
            f"{len(gone)} files of the series are gone, but a DICOM SEG needs their"
            " headers.\n  Files of a zip exist only while it is open: write the SEG inside `dicom_files`, or pass the"
            " unpacked files."
        )
    with ThreadPoolExecutor(_READERS) as pool:
        slices = [one for per_file in pool.map(read_slices, paths) for one in per_file]
    return {(one.text("SOPInstanceUID"), one.frame): one for one in slices}


def _require_tags(slices: list[Slice]) -> None:
    for keyword in _REQUIRED:
        lacking = [one for one in slices if not one.text(keyword)]
        if lacking:
            raise UserError(
                f"{len(lacking)} of {len(slices)} source slices have no {keyword};"
                " without it a DICOM SEG cannot refer to them.\n"
                "  Every CT image must have it; export the series again without removing UIDs."
            )
    references = {one.text("FrameOfReferenceUID") for one in slices}
    if len(references) > 1:
        raise UserError(
            f"the slices have {len(references)} different FrameOfReferenceUIDs, so their positions do not belong"
            " together and a DICOM SEG cannot span them.\n"
            "  Some anonymizers do this: use one that maps equal UIDs equally."
        )
    if any(one.frame is not None for one in slices) and len({one.path for one in slices}) > 1:
        raise UserError(
            "the series is spread over several multi-frame files, but a DICOM SEG can refer to the frames of one only."
            "\n  Export it as one multi-frame file or as single slices."
        )


def _header(one: Slice):
    header = nameless(Modality="CT", Rows=one.header.Rows, Columns=one.header.Columns)
    for keyword in (*_REQUIRED, *_OPTIONAL):
        if one.get(keyword) is not None:
            setattr(header, keyword, one.get(keyword))
    return header


def _single_frame(one: Slice, first: Slice):
    """Its orientation and spacing are the first slice's: the reader took them for equal, highdicom wants them so."""
    header = _header(one)
    header.ImagePositionPatient = [_decimal(value) for value in one.position_mm]
    header.ImageOrientationPatient = [_decimal(value) for value in first.axes.ravel()]
    header.PixelSpacing = [_decimal(value) for value in first.spacing_mm]
    return header


def _multi_frame(slices: list[Slice]):
    """The whole multi-frame image, its common orientation and spacing in the shared group."""
    first, dataset = slices[0], pydicom_module().Dataset
    frames = read_slices(first.path)
    image = _header(first)
    image.NumberOfFrames = len(frames)
    orientation, measures, shared = dataset(), dataset(), dataset()
    orientation.ImageOrientationPatient = [_decimal(value) for value in first.axes.ravel()]
    measures.PixelSpacing = [_decimal(value) for value in first.spacing_mm]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = []
    for frame in frames:
        position, place = dataset(), dataset()
        at_mm = first.position_mm if frame.position_mm is None else frame.position_mm  # not a frame of this volume
        position.ImagePositionPatient = [_decimal(value) for value in at_mm]
        place.PlanePositionSequence = [position]
        image.PerFrameFunctionalGroupsSequence.append(place)
    return image


def _decimal(value: float):
    """A DICOM decimal string, of which 16 characters are allowed."""
    return pydicom_module().valuerep.DSfloat(float(value), auto_format=True)
