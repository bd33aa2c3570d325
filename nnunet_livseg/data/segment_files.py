"""Label maps of all files, also of those that name their segments (DICOM SEG, RT structure set, ``.seg.nrrd``).

A file of values is a label map as it stands. In a file with names, the names decide which values its segments get, and
the segments come onto the grid of the image or label map that they belong to.
"""

from collections.abc import Mapping
from pathlib import Path

import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import Structures
from nnunet_livseg.data.dicom.contour_object import read_contours
from nnunet_livseg.data.dicom.headers import RT_STRUCTURE_SET, SEGMENTATIONS, pydicom_module
from nnunet_livseg.data.dicom.referenced_series import referenced_series, series_grid
from nnunet_livseg.data.dicom.segmentation_object import read_segmentation
from nnunet_livseg.imaging.grid import ImageGrid
from nnunet_livseg.imaging.images import content_kind, load_image
from nnunet_livseg.imaging.label_maps import LabelImage, read_label_map
from nnunet_livseg.imaging.lattice import joined, put_on
from nnunet_livseg.imaging.named_segments import NamedSegments
from nnunet_livseg.imaging.slicer_segments import segments_of

_HEAD = 1 << 16  # bytes of an NRRD's header in which its first segment must be named


def open_segments(path: Path) -> NamedSegments | None:
    """The named segments of a file; None for a file of label values, and for one that cannot be opened as either.

    Raises:
        UserError: It is a DICOM file of another kind, or damaged.
    """
    kind = content_kind(path) if path.is_file() else ""
    if kind == "dicom":
        return _of_dicom(path)
    if kind == "nrrd":
        with path.open("rb") as file:
            names_segments = b"_LabelValue:=" in file.read(_HEAD)
        return segments_of(load_image(path)[0], path) if names_segments else None
    return None


def names_its_segments(path: Path) -> bool:
    """Whether ``path`` is a DICOM file, or has the name of a 3D Slicer segmentation."""
    return path.name.lower().endswith(".seg.nrrd") or content_kind(path) == "dicom"


def _of_dicom(path: Path) -> NamedSegments:
    pydicom = pydicom_module()
    try:
        dataset = pydicom.dcmread(path)
    except Exception as error:  # a damaged header can fail anywhere in pydicom
        raise UserError(f"{path} is a damaged DICOM file: {error}\n  Copy or export it again.") from error
    kind = dataset.get("SOPClassUID")
    if kind in SEGMENTATIONS:
        return read_segmentation(path, dataset)
    if kind == RT_STRUCTURE_SET:
        return read_contours(path, dataset)
    raise UserError(
        f"{path} is a DICOM file, but neither SEG nor RT structure set ({dataset.get('Modality') or 'no modality'})."
        "\n  Convert a CT series to a volume first: livseg dicom convert"
    )


def series_of(path: Path) -> list[str]:
    """The SeriesInstanceUIDs that a file refers to; none of a file that is not DICOM."""
    if content_kind(path) != "dicom":
        return []
    return list(referenced_series(pydicom_module().dcmread(path, stop_before_pixels=True)))


def painted(
    segments: NamedSegments,
    structures: Mapping[str, tuple[int, ...]],
    grid: ImageGrid | None,
    *,
    given: Mapping[str, int] | None = None,
) -> tuple[sitk.Image, tuple[str, ...], tuple[int, ...]]:
    """A label map of segments, notes on it, and the segments that have no place in it.

    Args:
        segments: Of one file.
        structures: Label values of each structure.
        grid: Grid of the image or label map that it belongs to. Defaults to that of the series beside the file, else to
            the file's own.
        given: Label values of segments by name.

    Raises:
        UserError: No name says liver or tumor, no grid is known, or labeled voxels lie outside of it.
    """
    values, others = segments.values(structures, given)
    if not values:
        names = ", ".join(repr(segments.label(number)) for number in others[:10])
        raise UserError(
            f"{segments.path}: no segment is called {' or '.join(structures)}; there are: {names}.\n"
            "  Names decide what a segment is. Rename them in a viewer, and export again."
        )
    if grid is None or len(grid.size) != 3:
        grid = _series_grid(segments) or segments.grid
    if grid is None:
        raise UserError(
            f"{segments.path} contains contours, which have no voxels of their own.\n"
            "  Put the files of the CT series that they were drawn on beside it, or compare with a label map of it."
        )
    return _on(segments, values, grid), segments.notes, tuple(others)


def _on(segments: NamedSegments, values: Mapping[int, int], grid: ImageGrid) -> sitk.Image:
    if segments.grid is None:
        return segments.label_map(values, grid)
    image = segments.label_map(values, segments.grid)
    placed = put_on(image, grid)
    if placed is None:
        return image  # on another grid: whoever compares says so
    if placed[1]:
        raise UserError(
            f"{segments.path}: {placed[1]:,} labeled voxels lie outside of the image that it should belong to.\n"
            "  Give the image, or the series, that it was drawn on."
        )
    return placed[0]


def _series_grid(segments: NamedSegments) -> ImageGrid | None:
    if content_kind(segments.path) != "dicom":
        return None
    return series_grid(segments.path, pydicom_module().dcmread(segments.path, stop_before_pixels=True))


def read_labels(path: Path, structures: Structures, *, turned_to: str = "") -> LabelImage:
    """As ``label_maps.read_label_map``; named segments on the series beside them, else on their own grid."""
    segments = open_segments(path)
    return (
        _label_image(segments, structures, None, turned_to) if segments else read_label_map(path, turned_to=turned_to)
    )


def read_label_pair(predicted: Path, reference: Path, structures: Structures) -> tuple[LabelImage, LabelImage]:
    """Both label maps of a case turned to LPS; segments on the grid of the other one where they belong to it.

    Raises:
        UserError: As ``read_labels``.
    """
    named = [open_segments(path) for path in (predicted, reference)]
    plain = [
        None if found else read_label_map(path, turned_to="LPS")
        for found, path in zip(named, (predicted, reference), strict=True)
    ]
    grid = next((ImageGrid.of(one.image) for one in plain if one), None) or _common_grid(*named)
    meanings = structures, structures.of_references()
    both = [
        one or _label_image(found, meaning, grid, "LPS")
        for one, found, meaning in zip(plain, named, meanings, strict=True)
    ]
    return both[0], both[1]


def _common_grid(predicted: NamedSegments, reference: NamedSegments) -> ImageGrid | None:
    """The grid of a series beside one of them; else one that holds the voxels of both."""
    grid = _series_grid(reference) or _series_grid(predicted)
    if grid is None and predicted.grid and reference.grid:
        return joined(reference.grid, predicted.grid)
    return grid or reference.grid or predicted.grid


def _label_image(segments: NamedSegments, structures: Structures, grid: ImageGrid | None, turned_to: str) -> LabelImage:
    image, notes, others = painted(segments, structures.values, grid)
    if others:
        names = ", ".join(repr(segments.label(number)) for number in others[:10])
        notes = (*notes, f"{segments.path.name}: segments that count as background: {names}")
    image = sitk.DICOMOrient(image, turned_to) if turned_to else image
    spacing_mm = tuple(float(size) for size in image.GetSpacing()[::-1])
    return LabelImage(sitk.GetArrayFromImage(image), spacing_mm, "mm", image, notes)
