"""Key slices of one segmented CT: each lesion where it is measured, the liver where there is no lesion, and doubt.

A picture shows the liver with its surroundings, all at the same scale, so that lesions can be found again in the CT.
Slices, rows and columns are numbered as in the image's own array, from 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_livseg.core.labels import LIVER, TUMOR, mask_of
from nnunet_livseg.imaging.orientation import AXIAL, CORONAL, Box, PatientAxes, SlicePlane
from nnunet_livseg.patient.segmentation import Lesion, Segmentation
from nnunet_livseg.report.marked_image import (
    DISPLAY_WINDOW_HU,
    Label,
    MarkedImage,
    MeasureLine,
    Outline,
    crop_window,
    gray_levels,
)
from nnunet_livseg.report.page import PALETTE
from nnunet_livseg.report.projections import Solid, projections

LIVER_COLOR, LESION_COLOR = PALETTE[4], PALETTE[5]
N_PICTURED = 12  # lesions with pictures; the others are in the table
_THINNEST = 2  # slices, rows or columns below which a liver has no shape
_NAMES = {AXIAL: "axial", CORONAL: "coronal"}
OWN_NAMES = ("slice", "row", "column")  # along the axes of the image's own array
_SURROUNDINGS_MM = 18.0
_AIR_BELOW_HU = -200  # a CT shows air or at least lung; an image without such values is not in HU
_SPARSE = 3  # every third voxel along each axis says enough about the range of values
_LEAST_DOUBT = 0.1  # uncertainty worth a picture
_STRONGEST = 0.85  # opacity of the color at uncertainty 1
_IN_SLICE = 0.6  # slices between a slice's middle and a line that lies in it: half of one and rounding


@dataclass(frozen=True)
class KeySlice:
    """A picture and the slice it shows, in words."""

    picture: MarkedImage
    caption: str


class KeySlices:
    """Draws slices of a result.

    Args:
        result: What was segmented.
    """

    def __init__(self, result: Segmentation) -> None:
        self.result = result
        self.view = PatientAxes(result.image)
        self.image, self.labels = self.view.array(result.image), self.view.array(result.labels)
        self.lesions = None if result.lesions is None else self.view.array(result.lesions)

    @cached_property
    def own_box(self) -> Box | None:
        """Smallest box of the image's own array (z, y, x) around liver and lesions; None where there is nothing."""
        wanted = {v for name in (LIVER, TUMOR) for v in self.result.structures.get(name, ())}
        found = ndimage.find_objects(sitk.GetArrayViewFromImage(self.result.labels))
        boxes = [box for value, box in enumerate(found, start=1) if value in wanted and box is not None]
        if not boxes:
            return None
        return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))

    @cached_property
    def box(self) -> Box:
        """What the pictures show, in the view: liver and lesions with their surroundings, or everything."""
        if self.own_box is None:
            return tuple(slice(0, n) for n in self.view.shape)
        margins = [int(np.ceil(_SURROUNDINGS_MM / spacing)) for spacing in self.view.spacing_mm]
        around = zip(self.view.box(self.own_box), margins, self.view.shape, strict=True)
        return tuple(slice(max(s.start - m, 0), min(s.stop + m, n)) for s, m, n in around)

    @cached_property
    def is_ct(self) -> bool:
        """Whether the values can be Hounsfield units: air or lung is among them."""
        return float(sitk.GetArrayViewFromImage(self.result.image).min()) < _AIR_BELOW_HU

    @cached_property
    def window(self) -> tuple[float, float]:
        """Values drawn black and white."""
        if self.is_ct:
            return DISPLAY_WINDOW_HU
        low, high = np.percentile(self.image[self.box][::_SPARSE, ::_SPARSE, ::_SPARSE], (1, 99))
        return float(low), float(max(high, low + 1))

    @property
    def pictured(self) -> tuple[Lesion, ...]:
        """The largest lesions, which have pictures, and numbers in the projections."""
        return (self.result.measurements.lesions or ())[:N_PICTURED]

    @cached_property
    def projections(self) -> tuple[tuple[str, MarkedImage], ...]:
        """Titles and pictures of the liver from three sides; none where there is none."""
        result, box = self.result, self.own_box
        if LIVER not in result.structures or box is None or min(s.stop - s.start for s in box) < _THINNEST:
            return ()
        inside = Solid(result.labels, result.structures[TUMOR], LESION_COLOR) if self.pictured else None
        numbers = {lesion.number: lesion.center_mm for lesion in self.pictured}
        liver = Solid(result.labels, result.structures[LIVER], LIVER_COLOR)
        return tuple(projections(liver, inside, box, numbers=numbers))

    @property
    def axes(self) -> tuple[int, ...]:
        """Slices across these axes show something: a single slice has no other direction."""
        return (AXIAL, CORONAL) if min(self.view.shape) > 1 else (AXIAL,)

    def of_lesion(self, lesion: Lesion) -> Iterator[KeySlice]:
        """The slice in which a lesion's diameter was measured, and across the other axis that of its largest area."""
        for axis in self.axes:
            yield self._draw(SlicePlane(axis, self.position_of_lesion(lesion, axis), self.box), focus=lesion)

    def of_liver(self) -> Iterator[KeySlice]:
        """The slices of the largest liver area, or the middle ones of the image where there is no liver."""
        for axis in self.axes:
            yield self._draw(SlicePlane(axis, self._position_of_liver(axis), self.box))

    def position_of_lesion(self, lesion: Lesion, axis: int) -> int:
        """Index in the view of the slice across ``axis`` that shows a lesion best: the measured one, or the largest."""
        if axis == AXIAL and lesion.axial_diameter.slice_index is not None:
            return self.view.index(axis, lesion.axial_diameter.slice_index)
        box = self.view.box(lesion.box)
        return _largest(self.lesions[box] == lesion.number, box, axis)

    def _position_of_liver(self, axis: int) -> int:
        values = self.result.structures.get(LIVER) or self.result.structures.get(TUMOR, ())
        if self.own_box is None:
            return self.view.shape[axis] // 2
        box = self.view.box(self.own_box)
        return _largest(mask_of(self.labels[box], values), box, axis)

    @property
    def first_axial(self) -> int:
        """Index in the view of the axial slice to show first: of the largest lesion, or of the liver."""
        return self.position_of_lesion(self.pictured[0], AXIAL) if self.pictured else self._position_of_liver(AXIAL)

    def most_uncertain_slice(self) -> KeySlice | None:
        """The axial slice that holds most uncertainty, in color over the CT; None where there is none to see."""
        if self.result.uncertainty is None:
            return None
        uncertainty = self.view.array(self.result.uncertainty)
        position = int(uncertainty.sum(axis=(1, 2), dtype=np.float64).argmax())
        doubtful = uncertainty[position] > _LEAST_DOUBT
        if not doubtful.any():
            return None
        window = crop_window(doubtful | (self.labels[position] > 0), self.view.spacing_mm[1:])
        window = [slice(*s.indices(n)) for s, n in zip(window, self.view.shape[1:], strict=True)]
        return self._draw(SlicePlane(AXIAL, position, (slice(0, 0), *window)), uncertainty=uncertainty)

    def _draw(
        self, plane: SlicePlane, *, focus: Lesion | None = None, uncertainty: np.ndarray | None = None
    ) -> KeySlice:
        """A slice with liver, lesions and their numbers, and of ``focus`` the diameter if it lies in the slice."""
        pixels = gray_levels(plane.of(self.image), self.window)
        lesions = self._lesions_in(plane, focus)
        picture = MarkedImage(
            pixels if uncertainty is None else over_gray(pixels, plane.of(uncertainty)),
            tuple(self.view.spacing_mm[i] for i in plane.axes),
            f"{_NAMES[plane.axis]} slice with outlines of liver and lesions",
            tuple(self._outlines(plane, lesions)),
            tuple(self._diameter(plane, focus)) if focus else (),
            tuple(_number(lesion, mask, focus) for lesion, mask in lesions.items()),
            sides=("R", "L"),
            scale_bar=True,
        )
        own_name = OWN_NAMES[self.view.order[plane.axis]]
        return KeySlice(picture, f"{_NAMES[plane.axis]}, {own_name} {self.view.index(plane.axis, plane.position)}")

    def _lesions_in(self, plane: SlicePlane, focus: Lesion | None) -> dict[int, np.ndarray]:
        """Masks of the lesions in a slice by number, the focus first, then from large to small."""
        found = np.zeros((0, 0)) if self.lesions is None else plane.of(self.lesions)
        numbers = sorted((int(n) for n in np.unique(found) if n), key=lambda n: (focus is None or n != focus.number, n))
        return {number: found == number for number in numbers}

    def _outlines(self, plane: SlicePlane, lesions: dict[int, np.ndarray]) -> Iterator[Outline]:
        if values := self.result.structures.get(LIVER):
            yield Outline(mask_of(plane.of(self.labels), values), LIVER_COLOR, 0.9, structure=LIVER)
        for number, mask in reversed(lesions.items()):
            yield Outline(mask, LESION_COLOR, 1.7, structure=f"lesion {number}")

    def _diameter(self, plane: SlicePlane, lesion: Lesion) -> Iterator[MeasureLine]:
        ends = [self.view.point(end) for end in lesion.axial_diameter.ends_mm]
        if all(abs(end[plane.axis] - plane.position - 0.5) < _IN_SLICE for end in ends):
            yield MeasureLine(*(plane.place(end) for end in ends))


def _largest(mask: np.ndarray, box: Box, axis: int) -> int:
    """Index in the view of the slice across ``axis`` that holds most of ``mask``, which fills ``box``."""
    return box[axis].start + int(mask.sum(axis=tuple(i for i in range(3) if i != axis)).argmax())


def _number(number: int, mask: np.ndarray, focus: Lesion | None) -> Label:
    return Label(str(number), np.argwhere(mask) + 0.5, size=14 if focus and number == focus.number else 11)


def over_gray(gray: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """Uncertainty 0 to 1 as color (rows, columns, 3) over gray (rows, columns): none at 0, strongest at 1."""
    from matplotlib import colormaps

    shown = np.clip(uncertainty, 0, 1)
    strength = (_STRONGEST * np.sqrt(shown))[..., None]  # small doubts are to be seen as well
    return (gray[..., None] * (1 - strength) + colormaps["plasma"](shown)[..., :3] * 255 * strength).astype(np.uint8)


def uncertainty_scale() -> MarkedImage:
    """The colors of ``over_gray`` from 0 to 1."""
    values = np.tile(np.linspace(0, 1, 160), (12, 1))
    pixels = over_gray(np.full(values.shape, 110, np.uint8), values)
    return MarkedImage(pixels, (1, 1), "colors of the uncertainty from 0 to 1", sides=("0", "1"))
