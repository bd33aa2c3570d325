"""An image of any direction as radiologists expect it: slices from the feet up, the patient's right on the left.

Nothing is resampled or copied: the axes of the image's own grid are put into the order that comes nearest.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.imaging.masks import label_components, only_largest

Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]  # patient x, y, z in mm

_PATIENT_AXES = ("IS", "AP", "RL")  # axis 0 runs from foot to head, 1 from front to back, 2 from right to left
_BODY_HU = -200
_BONE_HU = 300
_THINNED = 4  # every fourth voxel in plane is enough for centers of mass
_CLEAR_MM = 10.0


class PatientAxes:
    """How the arrays of one grid are turned. Indices in the view are ``(z, y, x)`` along the patient's axes.

    Args:
        grid: Any image on the grid.
    """

    def __init__(self, grid: sitk.Image) -> None:
        code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.GetDirection())
        towards = code[::-1]  # where the axes of the array lead to, (z, y, x)
        self.order = tuple(next(i for i, t in enumerate(towards) if t in ends) for ends in _PATIENT_AXES)
        self.flipped = tuple(towards[i] == ends[0] for i, ends in zip(self.order, _PATIENT_AXES, strict=True))
        self.grid = grid
        self.shape = self._turned(grid.GetSize()[::-1])
        self.spacing_mm = self._turned(grid.GetSpacing()[::-1])

    @property
    def slices_are_axial(self) -> bool:
        """Whether the image's own slices are the axial ones."""
        return self.order[0] == 0

    def _turned(self, values: tuple) -> tuple:
        return tuple(values[i] for i in self.order)

    def array(self, image: sitk.Image) -> np.ndarray:
        """The voxels of ``image``, which must lie on the grid and outlive the result: it is a view."""
        steps = tuple(slice(None, None, -1 if flipped else 1) for flipped in self.flipped)
        return sitk.GetArrayViewFromImage(image).transpose(self.order)[steps]

    def box(self, own: Box) -> Box:
        """A box of the image's own array, in the view."""
        pairs = zip(self._turned(own), self.shape, self.flipped, strict=True)
        return tuple(slice(n - s.stop, n - s.start) if flipped else slice(s.start, s.stop) for s, n, flipped in pairs)

    def index(self, axis: int, own: int) -> int:
        """Index in the view along its ``axis`` of index ``own`` along the array's axis, and the other way round."""
        return self.shape[axis] - 1 - own if self.flipped[axis] else own

    def point(self, point_mm: Point) -> np.ndarray:
        """Where a point of the patient lies in the view; voxel i reaches from i to i + 1."""
        own = self._turned(self.grid.TransformPhysicalPointToContinuousIndex(point_mm)[::-1])
        pairs = zip(own, self.shape, self.flipped, strict=True)
        return np.array([(n - 1 - i if flipped else i) + 0.5 for i, n, flipped in pairs])


AXIAL, CORONAL = 0, 1  # axes of a view that a slice can be at right angles to


@dataclass(frozen=True)
class SlicePlane:
    """A slice of a view as it is shown: front or head up, the patient's right on the left.

    Args:
        axis: ``AXIAL`` or ``CORONAL``.
        position: Index along that axis.
        box: How much of the view (z, y, x) is shown; its part along ``axis`` does not matter.
    """

    axis: int
    position: int
    box: Box

    @property
    def axes(self) -> tuple[int, int]:
        """Axes of the view along the rows' order and along the columns'."""
        return tuple(i for i in range(3) if i != self.axis)

    def of(self, array: np.ndarray) -> np.ndarray:
        """The slice of ``array (z, y, x)``, (rows, columns)."""
        index = tuple(self.position if i == self.axis else s for i, s in enumerate(self.box))
        return array[index][::-1] if self.axis == CORONAL else array[index]  # a view runs from foot to head

    def place(self, point: np.ndarray) -> tuple[float, float]:
        """(row, column) of a point of the view, edge to edge."""
        rows, columns = self.axes
        row, column = point[rows] - self.box[rows].start, point[columns] - self.box[columns].start
        if self.axis == CORONAL:
            row = self.box[rows].stop - self.box[rows].start - row
        return float(row), float(column)


def orientation_code(image: sitk.Image) -> str:
    """Where the x, y and z axis of the array point to, e.g. ``LPS``."""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())


def mirrored_axes(image: sitk.Image, liver: np.ndarray) -> list[str]:
    """Does the header agree with the patient? The liver lies on the right, the spine at the back (empty: it does).

    LiTS holds volumes whose header mirrors the patient. A network trained on arrays does not notice, but a report that
    says "right lobe" or a DICOM result laid over the original series would be wrong.

    Args:
        image: CT.
        liver: Boolean ``(z, y, x)``, True on liver and tumor.
    """
    thinned = sitk.GetArrayViewFromImage(image)[:, ::_THINNED, ::_THINNED]
    body = only_largest(*label_components(thinned > _BODY_HU, neighbors=6))
    bone = (thinned > _BONE_HU) & body
    slices = liver.any(axis=(1, 2))
    if not slices.any() or not body[slices].any():
        return []
    body[~slices] = bone[~slices] = False  # compare at the liver's height
    middle = _center_mm(image, body)
    found = []
    liver = liver[:, ::_THINNED, ::_THINNED]
    to_left_mm = (_center_mm(image, liver) - middle)[0] if liver.any() else 0
    if to_left_mm > _CLEAR_MM:
        found.append(
            f"by the header the liver lies {to_left_mm:.0f} mm left of the body's middle: left and right are mirrored"
        )
    to_back_mm = (_center_mm(image, bone) - middle)[1] if bone.any() else 0
    if to_back_mm < -_CLEAR_MM:
        found.append(
            f"by the header the spine lies {-to_back_mm:.0f} mm in front of the body's middle:"
            " front and back are mirrored"
        )
    return found


def _center_mm(image: sitk.Image, mask: np.ndarray) -> np.ndarray:
    """Center of mass of a ``(z, y, x)`` mask thinned by ``_THINNED`` in plane, as physical x, y, z."""
    z, y, x = (float(axis.mean()) for axis in np.nonzero(mask))
    return np.array(image.TransformContinuousIndexToPhysicalPoint((x * _THINNED, y * _THINNED, z)))
