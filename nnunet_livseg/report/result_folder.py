"""The folder of one segmented CT: made in a hidden folder inside it first, so that it is never seen half-written.

Label map and measurements come first and stay, whatever becomes of the extras (DICOM objects, report, preview).
"""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path

from nnunet_livseg.core.clock import stage, stage_clock
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_json, write_text
from nnunet_livseg.core.names import did_you_mean, file_name, numbered_names
from nnunet_livseg.data.dicom.identifiers import read_identifiers
from nnunet_livseg.imaging.images import write_volume
from nnunet_livseg.patient.measurements_json import as_record, lesion_csv
from nnunet_livseg.patient.segmentation import LISTED_LESIONS, Segmentation
from nnunet_livseg.report.dicom_rtstruct import write_rtstruct
from nnunet_livseg.report.dicom_seg import write_seg
from nnunet_livseg.report.dicom_sr import write_sr
from nnunet_livseg.report.key_slices import KeySlices
from nnunet_livseg.report.patient_report import write_preview, write_report
from nnunet_livseg.report.viewer_files import write_itksnap_labels, write_seg_nrrd

RECORD = "measurements.json"  # written last: where it is, the result is whole
LABELS, LESIONS, UNCERTAINTY = "segmentation.nii.gz", "lesions.nii.gz", "uncertainty.nii.gz"
LESION_TABLE = "lesions.csv"
REPORT, PREVIEW, SEG, SR = "report.html", "preview.png", "segmentation.dcm", "report.dcm"
RTSTRUCT, SEG_NRRD, ITKSNAP = "rtstruct.dcm", "segmentation.seg.nrrd", "segmentation_labels.txt"
OURS = (
    *(RECORD, LABELS, LESIONS, LESION_TABLE, UNCERTAINTY, "probability_*.nii.gz", REPORT, PREVIEW),
    *(SEG, SR, RTSTRUCT, SEG_NRRD, ITKSNAP),
)
STAGING = ".incomplete-"  # how the hidden folder's name begins
FORMATS = {"seg": SEG, "sr": SR, "rtstruct": RTSTRUCT, "nrrd": SEG_NRRD, "itksnap": ITKSNAP}
DEFAULT_FORMATS = ("seg", "sr")
_OF_DICOM = ("seg", "sr", "rtstruct")  # need a DICOM series as input


@dataclass(frozen=True)
class ResultFiles:
    """What a folder holds beside label map and measurements.

    Args:
        report: HTML report and preview.
        formats: Further files of ``FORMATS``; ``seg``, ``sr`` and ``rtstruct`` only where the input was DICOM.
        identifiers: Patient identifiers of a DICOM input, in record, report and DICOM objects.

    Raises:
        UserError: An unknown format, or ``sr`` without ``seg``.
    """

    report: bool = True
    formats: tuple[str, ...] = DEFAULT_FORMATS
    identifiers: bool = False

    def __post_init__(self) -> None:
        for unknown in set(self.formats) - FORMATS.keys():
            raise UserError(
                f"there is no format {unknown!r}.{did_you_mean(unknown, FORMATS)}\n  Known: {', '.join(FORMATS)}."
            )
        if "sr" in self.formats and "seg" not in self.formats:
            raise UserError(
                "the format sr is a report on the segments of the DICOM SEG, which is not among the formats.\n"
                "  Ask for both: seg sr."
            )
        object.__setattr__(self, "formats", tuple(name for name in FORMATS if name in self.formats))


def write_result(
    result: Segmentation,
    folder: str | Path,
    *,
    files: ResultFiles | None = None,
    request: str = "",
    given: str = "",
    on_failure: Callable[[str, Exception], None] | None = None,
) -> list[Path]:
    """Write everything of a result; files of an earlier result in the same folder go, other people's stay.

    Args:
        result: The segmented CT; the files of its DICOM series must still be there.
        folder: Where to; it is made.
        files: What to write.
        request: Digest of what was asked for, to recognize a finished result by.
        given: Digest of the input alone, to recognize other results of it by.
        on_failure: Takes the name of an extra that could not be made, and why; default: a warning. The record then
            holds no ``request``, so that the same call tries again.

    Returns:
        The files, in the folder.
    """
    files, folder = files or ResultFiles(), Path(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    _clear_unfinished(folder)
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))  # its own file system: moving cannot fail
    try:
        with stage_clock() as stages:
            with stage("write"):
                result = replace(result, notes=(*result.notes, *_unlisted(result, files)))
                _write_images(result, staging)
                identifiers = read_identifiers(result.series) if files.identifiers and result.series else None
                formats = [
                    name for name in FORMATS if name in files.formats and (result.series or name not in _OF_DICOM)
                ]
                record = as_record(result, identifiers=identifiers)
                write_json(staging / RECORD, record | {"request": "", "input": given})
                moved = _move(staging, folder)
            extras = _Extras(on_failure or _warn)
            if formats:
                with stage("formats"):
                    result = extras.write_formats(result, staging, formats=formats, identifiers=files.identifiers)
            if files.report:
                with stage("report"):
                    extras.write_pages(result, staging, identifiers=identifiers)
        made = [path.replace(folder / path.name) for path in sorted(staging.iterdir())]
        provenance = replace(result.provenance, stages=result.provenance.stages | stages)
        result = replace(result, notes=(*result.notes, *extras.notes), provenance=provenance)
        record = as_record(result, identifiers=identifiers)
        marks = {"request": "" if extras.notes else request, "input": given}
        extras.write(RECORD, lambda: write_json(folder / RECORD, record | marks))
        return [*made, *moved]
    finally:
        _clear_unfinished(folder)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _write_images(result: Segmentation, folder: Path) -> None:
    write_volume(result.labels, folder / LABELS)
    if result.lesions is not None:
        write_volume(result.lesions, folder / LESIONS)
        write_text(folder / LESION_TABLE, lesion_csv(result))
    if result.uncertainty is not None:
        write_volume(result.uncertainty, folder / UNCERTAINTY)
    taken: set[str] = set()
    for structure, image in result.probabilities.items():
        names = numbered_names(f"probability_{file_name(structure)}")  # other signs in a name do not tell files apart
        name = next(name for name in names if name.lower() not in taken)
        taken.add(name.lower())  # nor do capitals, on some file systems
        write_volume(image, folder / f"{name}.nii.gz")


class _Extras:
    """Makes what is of use beside label map and measurements; nothing that fails here costs those."""

    def __init__(self, on_failure: Callable[[str, Exception], None]) -> None:
        self.on_failure = on_failure
        self.notes: list[str] = []

    def write(self, name: str, make: Callable[[], object]) -> bool:
        """Whether ``make`` has written the file ``name``."""
        try:
            make()
        except Exception as error:  # of any library; its text may name the patient, so the record has its kind alone
            self.notes.append(f"{name} could not be written ({type(error).__name__})")
            self.on_failure(name, error)
            return False
        return True

    def write_formats(
        self, result: Segmentation, folder: Path, *, formats: Sequence[str], identifiers: bool
    ) -> Segmentation:
        """All files of ``formats``; or the result with a note why its series can have no DICOM objects."""
        paths = {name: folder / file for name, file in FORMATS.items() if name in formats}
        seg, sr, rtstruct = (paths.get(name) for name in _OF_DICOM)
        try:
            if seg and self.write_or_refuse(SEG, lambda: write_seg(result, seg, identifiers=identifiers)) and sr:
                self.write_or_refuse(SR, lambda: write_sr(result, sr, seg=seg))
            if rtstruct:
                self.write_or_refuse(RTSTRUCT, lambda: write_rtstruct(result, rtstruct, identifiers=identifiers))
        except UserError as error:
            for path in filter(None, (seg, sr, rtstruct)):
                path.unlink(missing_ok=True)
            reason = " ".join(str(error).split())
            result = replace(result, notes=(*result.notes, f"no DICOM objects were written: {reason}"))
        if "nrrd" in paths:
            self.write(SEG_NRRD, lambda: write_seg_nrrd(result, paths["nrrd"]))
        if "itksnap" in paths:
            self.write(ITKSNAP, lambda: write_itksnap_labels(result, paths["itksnap"]))
        return result

    def write_pages(self, result: Segmentation, folder: Path, *, identifiers: Mapping[str, str] | None) -> None:
        """Report and preview, which show the same pictures."""
        slices = cache(partial(KeySlices, result))
        report, preview = folder / REPORT, folder / PREVIEW
        self.write(REPORT, lambda: write_report(result, report, identifiers=identifiers, slices=slices()))
        self.write(PREVIEW, lambda: write_preview(result, preview, slices=slices()))

    def write_or_refuse(self, name: str, make: Callable[[], object]) -> bool:
        """As ``write``, but what the input itself does not allow is raised."""
        rejected: list[UserError] = []

        def attempt() -> None:
            try:
                make()
            except UserError as error:
                rejected.append(error)

        made = self.write(name, attempt)
        if rejected:
            raise rejected[0]
        return made


def _unlisted(result: Segmentation, files: ResultFiles) -> list[str]:
    """Notes where report and segmentations do not list every lesion, and where a format needs a DICOM series."""
    count = len(result.measurements.lesions or ())
    notes = []
    if "rtstruct" in files.formats and not result.series:
        notes.append(f"no {RTSTRUCT} was written: the input was not DICOM, so contours could refer to no series")
    if count <= LISTED_LESIONS or not (files.report or "nrrd" in files.formats or (files.formats and result.series)):
        return notes
    return [
        *notes,
        f"{count:,} lesions: the {LISTED_LESIONS} largest are listed one by one in the report and in DICOM objects,"
        f" where the others are one segment; {LESION_TABLE} and {RECORD} hold all",
    ]


def _warn(name: str, error: Exception) -> None:
    warnings.warn(f"{name} could not be written ({type(error).__name__}: {error})", stacklevel=2)


def is_of_a_result(folder: Path) -> bool:
    """Whether a result was written there, or begun."""
    return (folder / RECORD).is_file() or any(folder.glob(f"{STAGING}*"))


def _clear_unfinished(folder: Path) -> None:
    """Remove hidden folders, also of killed calls; where moving had begun and not ended, our files in sight, too."""
    for staging in [path for path in folder.glob(f"{STAGING}*") if path.is_dir()]:
        if (staging / RECORD).is_file() and not (folder / RECORD).is_file():
            _remove_ours(folder)
        shutil.rmtree(staging, ignore_errors=True)


def _remove_ours(folder: Path) -> None:
    for path in [path for path in folder.iterdir() if any(fnmatch(path.name, pattern) for pattern in OURS)]:
        path.unlink(missing_ok=True)


def _move(staging: Path, folder: Path) -> list[Path]:
    """All files into ``folder``, the record last."""
    if (folder / RECORD).is_file():  # an earlier result; first the record, so that the rest does not look whole
        (folder / RECORD).unlink(missing_ok=True)
        _remove_ours(folder)
    files = sorted(staging.iterdir(), key=lambda path: path.name == RECORD)
    return [path.replace(folder / path.name) for path in files]
