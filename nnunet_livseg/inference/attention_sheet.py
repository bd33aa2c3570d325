"""One sheet of pictures for the attention of a case: a plane of the image, every map over it, vectors as bars."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.blocks.attention_spec import PHASES, POSITIONS, VOXELS
from nnunet_livseg.imaging.orientation import PatientAxes
from nnunet_livseg.inference.attention_maps import AttentionMap, CaseAttention
from nnunet_livseg.report.map_sheet import Bars, MapPanel, Row, Sheet, draw

PERCENTILES = (1, 99)  # of a map in the plane: the ends of its color scale
NEARLY_CONSTANT = 0.01  # between these, in a map of weights in 0..1: it weighs nothing
# across an axis of a patient's view (z, y, x): name, whether rows are turned upside down, left and right
_PLANES = {0: ("axial", False, ("R", "L")), 1: ("coronal", True, ("R", "L")), 2: ("sagittal", True, ("A", "P"))}


def write_sheet(case: CaseAttention, path: Path) -> None:
    """Draw the plane through the point that is looked at; axial, or the plane in which a 2D network works."""
    plane = Plane(case)
    outlines = {name: plane.of_map(case.labels, values) for name, values in case.structures.items()}
    images = [MapPanel(name, plane.of_image(image), outlines=outlines) for name, image in case.channels.items()]
    rows = [Row("Image, with what the network predicts", plane.name, tuple(images))]
    levels = sorted({one.level for one in case.maps}, reverse=True)
    for title in dict.fromkeys(one.title for one in case.maps):
        maps = [one for one in case.maps if one.title == title]
        panels = {one.name: _panel(one, plane, images[0].image) for one in maps}
        if not maps[0].phase:  # one map per level: the same level stands in the same column
            panels = {level: next((panels[one.name] for one in maps if one.level == level), None) for level in levels}
        rows.append(Row(title, maps[0].source, tuple(panels.values())))
    point = "z {}, y {}, x {}".format(*case.point)
    title = f"{case.model.replace('__', ', ')}, fold {case.fold}"
    draw(Sheet(title, f"point: {point}, {case.reason}", tuple(rows), plane.aspect, plane.sides, plane.point), path)


def _panel(one: AttentionMap, plane: "Plane", background: np.ndarray) -> MapPanel | Bars:
    about = f"level {one.level}" + (f", {one.phase}" if one.phase else "")
    if one.is_vector:
        return Bars(f"{about}: {one.values.size} numbers, mean {one.values.mean():.3g}", one.values)
    overlay = plane.of_map(one.values)
    limits = overlay.min(), overlay.max()
    if one.kind != POSITIONS:  # whose few large weights are what there is to see
        limits = tuple(np.percentile(overlay, PERCENTILES))
    if one.kind in (VOXELS, PHASES) and limits[1] - limits[0] < NEARLY_CONSTANT:
        about, limits = f"{about}, nearly constant", (0.0, 1.0)  # not a picture of rounding
    size = " × ".join(map(str, one.values.shape))
    return MapPanel(f"{about} ({size})", background, overlay, limits)


class Plane:
    """The plane through the point, cut to the patch and turned as radiologists look at it."""

    def __init__(self, case: CaseAttention) -> None:
        self.case = case
        self.part = tuple(slice(p.start, p.stop) for p in reversed(case.grid.box))  # SimpleITK counts (x, y, z)
        self.view = view = PatientAxes(case.image[self.part])
        self.axis = next((axis for axis, size in enumerate(view.shape) if size == 1), 0)
        name, self.upwards, self.sides = _PLANES[self.axis]
        self.name = f"{name} plane"
        where = view.point(case.image.TransformIndexToPhysicalPoint(case.point[::-1]))
        voxel = [int(np.clip(i, 0, n - 1)) for i, n in zip(where, view.shape, strict=True)]
        self.index = voxel[self.axis]
        rows, columns = (axis for axis in range(3) if axis != self.axis)
        self.point = (view.shape[rows] - 1 - voxel[rows] if self.upwards else voxel[rows], voxel[columns])
        self.aspect = view.spacing_mm[rows] / view.spacing_mm[columns]

    def of_image(self, image: sitk.Image) -> np.ndarray:
        """The plane of an image on the grid of the case."""
        return self._cut(image[self.part])

    def of_map(self, values: np.ndarray, labels: tuple[int, ...] = ()) -> np.ndarray:
        """The plane of a map, or with ``labels`` of the mask of these values."""
        placed = self.case.grid.place(values, labels=bool(labels))
        placed = np.isin(placed, labels).astype(np.uint8) if labels else placed.astype(np.float32)
        return self._cut(sitk.GetImageFromArray(np.ascontiguousarray(placed)))

    def _cut(self, image: sitk.Image) -> np.ndarray:
        plane = np.take(self.view.array(image), self.index, axis=self.axis)  # a copy
        return plane[::-1] if self.upwards else plane
