"""An image of any direction as radiologists expect it: slices from the feet up, the patient's right on the left.

Nothing is resampled or copied: the axes of the image's own grid are put into the order that comes nearest.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.patient.segmentation import Point

Box = tuple[slice, slice, slice]

_PATIENT_AXES = ("IS", "AP", "RL")  # axis 0 runs from foot to head, 1 from front to back, 2 from right to left


class PatientView:
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
class Cut:
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
    def plane(self) -> tuple[int, int]:
        """Axes of the view along the rows' order and along the columns'."""
        return tuple(i for i in range(3) if i != self.axis)

    def of(self, array: np.ndarray) -> np.ndarray:
        """The slice of ``array (z, y, x)``, (rows, columns)."""
        index = tuple(self.position if i == self.axis else s for i, s in enumerate(self.box))
        return array[index][::-1] if self.axis == CORONAL else array[index]  # a view runs from foot to head

    def place(self, point: np.ndarray) -> tuple[float, float]:
        """(row, column) of a point of the view, edge to edge."""
        rows, columns = self.plane
        row, column = point[rows] - self.box[rows].start, point[columns] - self.box[columns].start
        if self.axis == CORONAL:
            row = self.box[rows].stop - self.box[rows].start - row
        return float(row), float(column)
