"""The regions of interest (ROIs) of a DICOM RT structure set, filled on the grid of an image.

A voxel belongs to a ROI where its center lies inside an odd number of the ROI's contours of that slice, so holes count
as such, whether they are separate contours or keyholes. Contours have to lie on slices of the image.
"""

# Shapes: points (n, 3) x, y, z in mm or in voxels; masks (z, y, x)

from collections import defaultdict
from pathlib import Path

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.imaging.contours import fill
from nnunet_livseg.imaging.grid import ImageGrid
from nnunet_livseg.imaging.named_segments import NamedSegments

_OFF_SLICE = 0.2  # of the slice distance
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def read_contours(path: Path, dataset) -> NamedSegments:
    """The ROIs of the pydicom ``dataset`` of ``path`` that have closed contours.

    Raises:
        UserError: There is none, or the data of a contour is damaged.
    """
    meanings = {
        item.ReferencedROINumber: _meaning(item)
        for item in dataset.get("RTROIObservationsSequence") or []
        if item.get("ReferencedROINumber") is not None
    }
    labels = {
        int(item.ROINumber): str(item.get("ROIName") or "") for item in dataset.get("StructureSetROISequence") or []
    }
    names, contours, skipped = {}, {}, []
    for item in dataset.get("ROIContourSequence") or []:
        number = int(item.ReferencedROINumber)
        label = labels.get(number, "").strip() or f"ROI {number}"
        closed = [one for one in item.get("ContourSequence") or [] if one.get("ContourGeometricType") in _CLOSED]
        if not closed:
            skipped.append(label)
            continue
        names[number] = (label, *meanings.get(number, []))
        contours[number] = [_points_mm(path, label, one) for one in closed]
    if not names:
        raise UserError(
            f"{path} is an RT structure set without any closed contour, so there is no segment in it.\n"
            "  Give a structure set with contours of the liver."
        )
    notes = (f"{path.name}: no closed contour in {', '.join(skipped)}",) if skipped else ()
    return NamedSegments(path, names, lambda number, grid: _filled(contours[number], grid, names[number][0], path),
                         notes=notes)  # fmt: skip


def _meaning(observation) -> list[str]:
    """What its code says."""
    return [str(code.get("CodeMeaning", "")) for code in observation.get("RTROIIdentificationCodeSequence") or []][:1]


def _points_mm(path: Path, label: str, contour) -> np.ndarray:
    try:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
    except (AttributeError, TypeError, ValueError):
        points = np.full((1, 3), np.nan)
    if not np.isfinite(points).all():
        raise UserError(
            f"{path}: a contour of {label!r} contains no points x, y, z. The file is damaged: export it again."
        )
    return points


def _filled(contours_mm: list[np.ndarray], grid: ImageGrid, label: str, path: Path) -> np.ndarray:
    axes_mm = np.reshape(grid.direction, (3, 3)) * grid.spacing_mm
    contours = [(points_mm - grid.origin_mm) @ np.linalg.inv(axes_mm).T for points_mm in contours_mm]
    across = int(np.argmin([sum(np.ptp(points[:, axis]) for points in contours) for axis in range(3)]))
    along = [axis for axis in range(3) if axis != across]
    polygons: dict[int, list[np.ndarray]] = defaultdict(list)
    for points in contours:
        heights = points[:, across]
        place = round(float(heights.mean()))
        if np.abs(heights - place).max() > _OFF_SLICE:
            raise UserError(
                f"{path}: a contour of {label!r} lies between the slices of the image, or crosses them"
                f" (slices {heights.min():.2f} to {heights.max():.2f}, counted from 0).\n"
                "  Contours can be filled only on the series that they were drawn on: put its files beside the"
                " structure set, or give the volume that was made from it."
            )
        if not 0 <= place < grid.size[across]:
            raise UserError(
                f"{path}: a contour of {label!r} lies outside of the image, {_outside(place, grid.size[across])}.\n"
                "  Give the image, or the series, that it was drawn on."
            )
        polygons[place].append(points[:, along])
    mask = np.zeros(grid.size[::-1], bool)
    planes = np.moveaxis(mask.T, across, 0)
    for place, found in polygons.items():
        planes[place] = fill(found, planes.shape[:0:-1]).T
    return mask


def _outside(place: int, size: int) -> str:
    slices = -place if place < 0 else place - size + 1
    return f"{slices} slice{'' if slices == 1 else 's'} {'before the first' if place < 0 else 'behind the last'}"
