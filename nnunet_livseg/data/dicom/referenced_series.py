"""Segmentation objects among the files of a study, and the grid of the CT series that one refers to."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.dicom.headers import RT_STRUCTURE_SET, SEGMENTATIONS, pydicom_module
from nnunet_livseg.data.dicom.listing import list_series
from nnunet_livseg.imaging.grid import ImageGrid
from nnunet_livseg.imaging.images import content_kind


def find_objects(folder: Path) -> list[Path]:
    """The DICOM SEGs below ``folder``, or the RT structure sets where there is no SEG."""
    segmentations, structure_sets = [], []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and content_kind(path) == "dicom"):
        kind = _sop_class(path)
        if kind in SEGMENTATIONS:
            segmentations.append(path)
        elif kind == RT_STRUCTURE_SET:
            structure_sets.append(path)
    return segmentations or structure_sets


def series_grid(path: Path, dataset) -> ImageGrid | None:
    """The grid of the series that the segmentation ``dataset`` of ``path`` refers to; None where it is not beside it.

    Beside it are the files of its own folder, and those below a folder of its name (``case.dcm``, ``case/``).

    Raises:
        UserError: The series is there, but its slices are no even stack.
    """
    wanted = set(referenced_series(dataset))
    stems = {path.name.partition(".")[0], path.stem}
    folders = [folder for folder in (path.parent / stem for stem in stems) if folder.is_dir()]
    files = [*path.parent.iterdir(), *(file for folder in folders for file in folder.rglob("*"))]
    files = [file for file in dict.fromkeys(files) if file.is_file() and file != path and content_kind(file) == "dicom"]
    if not wanted or not files:
        return None
    for series in list_series(files):
        if series.uid not in wanted:
            continue
        reason = (
            series.problem or series.stack.irregular or ("its gantry is tilted" if series.stack.shear.any() else "")
        )
        if reason:
            raise UserError(
                f"{path} was drawn on series {series.key}, which is not an even stack of slices: {reason}.\n"
                "  Export the series again; a segmentation cannot be interpolated as the CT can."
            )
        stack = series.stack
        rows, columns = (int(series.slices[0].header.get(side)) for side in ("Rows", "Columns"))
        size = (columns, rows, len(stack.order))
        return ImageGrid(
            size, stack.spacing_mm[::-1], tuple(stack.origin_mm.tolist()), tuple(stack.direction.ravel().tolist())
        )
    return None


def _sop_class(path: Path) -> str:
    pydicom = pydicom_module()
    try:
        return str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"]).get("SOPClassUID", ""))
    except Exception:  # a damaged file is no segmentation; it is named where its series is read
        return ""


def referenced_series(dataset) -> Iterator[str]:
    """The SeriesInstanceUIDs that a SEG or an RT structure set names."""
    yield from _series_of(dataset.get("ReferencedSeriesSequence"))
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            yield from _series_of(study.get("RTReferencedSeriesSequence"))


def _series_of(items: Iterable | None) -> Iterator[str]:
    yield from (str(item.SeriesInstanceUID) for item in items or [] if item.get("SeriesInstanceUID"))
