"""The liver as a solid seen from three sides, its lesions shining through: shaded by light and depth with numpy.

Made in patient coordinates, so that oblique images stand upright, on a coarse grid whose size does not depend on the
CT's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageColor
from scipy import ndimage

from nnunet_livseg.core.labels import mask_of
from nnunet_livseg.imaging.images import on_grid
from nnunet_livseg.imaging.masks import bounding_box
from nnunet_livseg.patient.segmentation import Point
from nnunet_livseg.report.marked_image import Label, MarkedImage

_SAMPLES = 230  # along the longest side of the grid
_FINEST_MM, _MARGIN_MM = 0.8, 6.0
_LEAST_SMOOTHING_MM, _SMOOTHING = 1.4, 0.8  # the second in voxels of the CT, along its coarsest axis
_SIGMAS = 4.0  # how far smoothing reaches
_LIGHT = np.array([-0.35, -0.5, 0.79])  # comes from (right, down, viewer): over the viewer's left shoulder
_AMBIENT = 0.35
_DARKER_MM, _PALER_MM = 260.0, 70.0  # depths at which a surface is 1/e as bright, a lesion 1/e as strongly colored
_PIXELS = 2  # per sample: edges without stairs


@dataclass(frozen=True)
class _Side:
    """A side to look from.

    Args:
        name: In words.
        axes: Axes of an array (z, y, x), leading to head, back and left, in the order depth, down, right.
        backwards: Which of them run the other way.
        letters: At the left and at the right of the picture.
    """

    name: str
    axes: tuple[int, int, int]
    backwards: tuple[bool, bool, bool]
    letters: tuple[str, str]

    def turn(self, array: np.ndarray) -> np.ndarray:
        """An array ``(z, y, x)`` as ``(depth, rows, columns)``."""
        return array.transpose(self.axes)[tuple(slice(None, None, -1 if b else 1) for b in self.backwards)]

    def place(self, point: np.ndarray, shape: tuple[int, ...]) -> tuple[float, float]:
        """(row, column) of a point ``(z, y, x)`` of an array of that shape."""
        turned = [shape[a] - point[a] if b else point[a] for a, b in zip(self.axes, self.backwards, strict=True)]
        return turned[1], turned[2]


_SIDES = (
    _Side("from the front", (1, 0, 2), (False, True, False), ("R", "L")),
    _Side("from the right", (2, 0, 1), (False, True, True), ("P", "A")),
    _Side("from below", (0, 1, 2), (False, False, False), ("R", "L")),
)


@dataclass(frozen=True)
class Solid:
    """Something with a surface: label values of an image, a color."""

    image: sitk.Image
    values: tuple[int, ...]
    color: str


def projections(
    organ: Solid, inside: Solid | None, box: tuple[slice, slice, slice], *, numbers: Mapping[int, Point]
) -> Iterator[tuple[str, MarkedImage]]:
    """Titles and pictures of an organ from the front, from the right and from below.

    Args:
        organ: What is seen from outside.
        inside: What shines through it, on the same grid.
        box: What of the array (z, y, x) to look at: everything that is to be seen.
        numbers: Numbers to write, and where, in patient coordinates.
    """
    start = [int(s.start) for s in reversed(box)]
    size = [int(s.stop) - int(s.start) for s in reversed(box)]
    fields, grid = [], None
    for solid in (organ, inside):
        cut = sitk.RegionOfInterest((solid or organ).image, size, start)
        grid = grid or _upright_grid(cut)
        fields.append(None if solid is None else _field(cut, solid, grid))
    centers = {
        n: np.array(grid.TransformPhysicalPointToContinuousIndex(point)[::-1]) + 0.5 for n, point in numbers.items()
    }
    step_mm = grid.GetSpacing()[0]
    for side in _SIDES:
        layers = [None if field is None else _surface(side.turn(field), step_mm) for field in fields]
        colors = (organ.color, inside.color if inside else "")
        labels = []
        for number, center in centers.items():
            row, column = (_PIXELS * i for i in side.place(center, fields[0].shape))
            labels.append(Label(str(number), np.array([(row, column)]), size=13))
        yield (
            side.name,
            MarkedImage(
                _blend(*layers, colors),
                (step_mm / _PIXELS,) * 2,
                f"the liver and its lesions {side.name}",
                labels=tuple(labels),
                sides=side.letters,
                scale_bar=True,
                on_white=True,
            ),
        )


def _upright_grid(cut: sitk.Image) -> sitk.Image:
    """An empty image of cubes along the patient's axes around ``cut``."""
    ends = [(-0.5, n - 0.5) for n in cut.GetSize()]
    corners = np.array(
        [cut.TransformContinuousIndexToPhysicalPoint((x, y, z)) for x in ends[0] for y in ends[1] for z in ends[2]]
    )
    low, high = corners.min(axis=0) - _MARGIN_MM, corners.max(axis=0) + _MARGIN_MM
    step_mm = max(_FINEST_MM, float((high - low).max()) / _SAMPLES)
    grid = sitk.Image([int(n) for n in np.ceil((high - low) / step_mm)], sitk.sitkUInt8)
    grid.SetSpacing([step_mm] * 3)
    grid.SetOrigin((low + step_mm / 2).tolist())
    return grid


def _field(cut: sitk.Image, solid: Solid, grid: sitk.Image) -> np.ndarray:
    """The solid on ``grid (z, y, x)``: above a half inside, smoothed except for parts that smoothing would delete."""
    mask = on_grid(mask_of(sitk.GetArrayViewFromImage(cut), solid.values).astype(np.uint8), cut)
    resampled = sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkLinear, 0, sitk.sitkFloat32)
    sharp = sitk.GetArrayViewFromImage(resampled)
    smoothing_mm = max(_LEAST_SMOOTHING_MM, _SMOOTHING * max(cut.GetSpacing()))
    field = np.zeros_like(sharp)
    sigma = smoothing_mm / grid.GetSpacing()[0]
    reach = int(_SIGMAS * sigma + 1)
    near = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in bounding_box(sharp > 0))
    field[near] = _smoothed(sharp[near], sigma)
    return field


def _smoothed(sharp: np.ndarray, sigma: float) -> np.ndarray:
    """The field smoothed, but for its parts that would be gone."""
    smooth = ndimage.gaussian_filter(sharp, sigma, truncate=_SIGMAS)
    parts, count = ndimage.label(sharp > 0.5)
    strongest, inside = np.zeros(count + 1, smooth.dtype), parts > 0
    np.maximum.at(strongest, parts[inside], smooth[inside])  # ndimage.maximum would sort the whole grid
    strongest[0] = 1
    deleted = (strongest < 0.5)[parts]
    smooth[deleted] = sharp[deleted]
    return smooth


@dataclass(frozen=True)
class _Surface:
    """What a viewer sees of a field: whether there is anything, how deep in mm, how bright; each (rows, columns)."""

    seen: np.ndarray
    depth_mm: np.ndarray
    brightness: np.ndarray


def _surface(field: np.ndarray, step_mm: float) -> _Surface:
    """The foremost surface of ``field (depth, rows, columns)`` at the value 1/2, lit from the upper left."""
    within = field > 0.5
    seen, hit = within.any(axis=0), within.argmax(axis=0)
    at, before = (np.take_along_axis(field, i[None], axis=0)[0] for i in (hit, np.maximum(hit - 1, 0)))
    share = np.where(hit > 0, (at - 0.5) / np.maximum(at - before, 1e-6), 0)
    depth = np.where(seen, hit - share, field.shape[0]).astype(np.float32)
    down, right = np.gradient(depth)
    normal = np.stack([right, down, np.ones_like(depth)])  # turned towards the viewer
    light = np.tensordot(_LIGHT, normal / np.linalg.norm(normal, axis=0), axes=1)
    brightness = _AMBIENT + (1 - _AMBIENT) * np.clip(light, 0, 1)
    depth_mm = (depth - depth.min()) * step_mm
    return _Surface(seen, depth * step_mm, brightness * np.exp(-depth_mm / _DARKER_MM))


def _blend(organ: _Surface, inside: _Surface | None, colors: tuple[str, str]) -> np.ndarray:
    """Both surfaces in color over white, (rows, columns, 3), enlarged."""
    picture = np.full((*organ.seen.shape, 3), 255, np.float32)
    picture[organ.seen] = _lit(organ, colors[0])[organ.seen]
    if inside is not None:
        covered_mm = np.where(organ.seen, np.maximum(inside.depth_mm - organ.depth_mm, 0), 0)
        strength = (0.35 + 0.6 * np.exp(-covered_mm / _PALER_MM))[..., None]
        mixed = picture * (1 - strength) + _lit(inside, colors[1]) * strength
        picture[inside.seen] = mixed[inside.seen]
    rows, columns = organ.seen.shape
    size = (columns * _PIXELS, rows * _PIXELS)
    return np.asarray(Image.fromarray(picture.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC))


def _lit(surface: _Surface, color: str) -> np.ndarray:
    """A surface in ``color`` as lit, (rows, columns, 3)."""
    return np.minimum(np.array(ImageColor.getrgb(color)) * surface.brightness[..., None] * 1.15, 255)
