"""A picture with marks over it: the pixels as a PNG inside the page, everything drawn over them as sharp SVG.

Points are (row, column) in pixels, edge to edge: pixel i reaches from i to i + 1. Sizes of strokes and letters are in
units of which a picture is 320 wide, so that they look alike whatever the size of the patient.
"""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy as np
from PIL import Image

from nnunet_livseg.imaging.masks import outlines

WIDTH = 320
DISPLAY_WINDOW_HU = (-100.0, 240.0)  # black and white in pictures of the liver
DARK, LIGHT = "#14181d", "#e8edf2"
_STEP = 4  # 64 levels: finer ones are noise of the CT that no eye sees and no PNG packs
_BARS_MM = (200, 100, 50, 20, 10, 5, 2, 1)
_LETTER, _LINE_HEIGHT = 6.6, 13  # extent of text of size 11
_AROUND = np.array([(-0.7, 0.7), (-0.7, -0.7), (0.7, 0.7), (0.7, -0.7), (0, 1), (0, -1), (-1, 0), (1, 0)])
_MARGIN_MM, _LEAST_MM = 12.0, 90.0  # around what is labeled; a picture shows this much at least
_GAPS = (1, 12, 26, 44)  # between a thing and its text

Box = tuple[float, float, float, float]  # top, left, bottom, right


@dataclass(frozen=True)
class Outline:
    """The outline of a mask (rows, columns) on the grid of the picture."""

    mask: np.ndarray
    color: str
    width: float = 0.9
    opacity: float = 1
    structure: str = ""

    def contours(self) -> list[np.ndarray]:
        """Closed lines of points (n, 2): half a pixel outside the pixels' centers, as pixels have an extent."""
        return [line + 0.5 for line in outlines(self.mask)]


@dataclass(frozen=True)
class MeasureLine:
    """A straight line, points in pixels."""

    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True)
class Label:
    """A short text for something in the picture.

    Args:
        text: What to write.
        thing: Points (n, 2) of the thing. The text keeps outside of it; it lies on a thing of one point.
        size: Of the letters.
    """

    text: str
    thing: np.ndarray
    size: float = 11


@dataclass(frozen=True)
class Place:
    """Where a label's text is centered (y, x), and what it stands for, in units."""

    y: float
    x: float
    target: tuple[float, float] | None = None  # set where text and thing are so far apart that a line must join them


@dataclass(frozen=True)
class Stroke:
    """A mark of lines.

    Args:
        lines: Points (n, 2) that each line joins, (y, x) in units.
        color, width, opacity: Of the pen; the width in units.
        structure: What it outlines.
    """

    lines: tuple[np.ndarray, ...]
    color: str
    width: float
    opacity: float = 1
    structure: str = ""


@dataclass(frozen=True)
class Text:
    """A mark of letters.

    Args:
        text: What to write.
        y, x: Where, in units.
        size: Of the letters.
        anchor: What of the text lies at ``x``: ``start``, ``middle`` or ``end``.
        on_line: Whether its base line lies at ``y``, not its middle.
    """

    text: str
    y: float
    x: float
    size: float
    anchor: str
    on_line: bool = False


@dataclass(frozen=True)
class MarkedImage:
    """A picture and its marks.

    Args:
        pixels: Gray (rows, columns) or color (rows, columns, 3), 8 bit.
        spacing: Height and width of a pixel, in any unit.
        description: What it shows, for readers who cannot see it.
        outlines: Drawn from the first to the last.
        lines: Measured lengths.
        labels: The most important first: it gets the best place.
        sides: Letters at the left and at the right edge.
        scale_bar: Whether to draw one; the unit of ``spacing`` must be mm.
        on_white: Whether letters must be legible on white.
    """

    pixels: np.ndarray
    spacing: tuple[float, float]
    description: str
    outlines: tuple[Outline, ...] = ()
    lines: tuple[MeasureLine, ...] = ()
    labels: tuple[Label, ...] = ()
    sides: tuple[str, str] | None = None
    scale_bar: bool = False
    on_white: bool = False

    @cached_property
    def units(self) -> np.ndarray:
        """Units per pixel (row, column)."""
        return np.array(self.spacing) * WIDTH / (self.pixels.shape[1] * self.spacing[1])

    @property
    def height(self) -> float:
        """Height of the picture in units."""
        return float(self.pixels.shape[0] * self.units[0])

    @property
    def ink(self) -> str:
        return "#3b4653" if self.on_white else LIGHT

    @property
    def halo(self) -> str:
        return "#ffffff" if self.on_white else DARK

    @cached_property
    def bar(self) -> tuple[int, float]:
        """Length of the scale bar in mm and in units: at most a third of the picture."""
        per_mm = float(self.units[1] / self.spacing[1])
        length = next((mm for mm in _BARS_MM if mm * per_mm <= WIDTH / 3), _BARS_MM[-1])
        return length, length * per_mm

    @cached_property
    def places(self) -> list[Place]:
        """A place for each label, off the others where there is room."""
        taken: list[Box] = []
        if self.sides:
            middle = self.height / 2
            taken += [(middle - 8, 0, middle + 8, 14), (middle - 8, WIDTH - 14, middle + 8, WIDTH)]
        if self.scale_bar:
            taken.append((self.height - 24, 0, self.height, self.bar[1] + 12))
        return [self._place(label, taken) for label in self.labels]

    def _place(self, label: Label, taken: list[Box]) -> Place:
        """The first place inside the picture that is free; the thing itself where none is. Adds to ``taken``."""
        thing = label.thing * self.units
        half = np.array([_LINE_HEIGHT / 2, _LETTER * len(label.text) / 2 + 1]) * label.size / 11
        for place in _candidates(thing, half):
            around = (place.y - half[0], place.x - half[1], place.y + half[0], place.x + half[1])
            within = around[0] >= 0 and around[1] >= 0 and around[2] <= self.height and around[3] <= WIDTH
            if within and not any(_overlap(around, other) for other in taken):
                taken.append(around)
                return place
        return Place(*thing.mean(axis=0))

    def marks(self) -> Iterator[Stroke | Text]:
        """Everything over the pixels, from the first drawn to the last: whatever draws the picture draws these."""
        for one in self.outlines:
            contours = tuple(contour * self.units for contour in one.contours())
            yield Stroke(contours, one.color, one.width, one.opacity, one.structure)
        for line in self.lines:
            ends = np.array([line.start, line.end]) * self.units
            yield from (Stroke((ends,), color, width) for color, width in ((DARK, 2.6), ("#ffffff", 1.2)))
        for label, place in zip(self.labels, self.places, strict=True):
            if place.target:
                yield Stroke((np.array([(place.y, place.x), place.target]),), self.ink, 0.7, 0.8)
            yield Text(label.text, place.y, place.x, label.size, "middle")
        for letter, x, anchor in zip(self.sides or (), (4, WIDTH - 4), ("start", "end"), strict=False):
            yield Text(letter, self.height / 2, x, 10, anchor)
        if self.scale_bar:
            (length_mm, length), y = self.bar, self.height - 7
            ends = np.array([(y, 7), (y, 7 + length)])
            yield from (Stroke((ends,), color, width) for color, width in ((self.halo, 4), (self.ink, 1.8)))
            yield Text(f"{length_mm} mm", y - 5, 7, 9, "start", on_line=True)

    def svg(self, *, below: str | None = None) -> str:
        """The picture as an SVG element; ``below`` is SVG to draw under the marks in place of the pixels."""
        drawn = [self._image() if below is None else below]
        drawn += [self._text(mark) if isinstance(mark, Text) else _stroke(mark) for mark in self.marks()]
        head = f'viewBox="0 0 {WIDTH} {self.height:.1f}" role="img" aria-label="{escape(self.description)}"'
        return f'<svg {head} xmlns="http://www.w3.org/2000/svg">{"".join(drawn)}</svg>'

    def _image(self) -> str:
        data = base64.b64encode(png(self.pixels)).decode()
        box = f'width="{WIDTH}" height="{self.height:.1f}" preserveAspectRatio="none"'
        return f'<image {box} href="data:image/png;base64,{data}"/>'

    def _text(self, mark: Text) -> str:
        paint = f'fill="{self.ink}" stroke="{self.halo}" stroke-width="2.6" paint-order="stroke"'
        y = mark.y if mark.on_line else mark.y + 0.36 * mark.size
        place = f'x="{mark.x:.1f}" y="{y:.1f}" font-size="{mark.size:g}" text-anchor="{mark.anchor}"'
        return f'<text {place} {paint} font-family="sans-serif">{escape(mark.text)}</text>'


def _stroke(mark: Stroke) -> str:
    parts = ["M" + "L".join(f"{x:.1f} {y:.1f}" for y, x in line) for line in mark.lines]
    paint = f'stroke="{mark.color}" stroke-width="{mark.width:g}" opacity="{mark.opacity:g}"'
    named = f' data-structure="{escape(mark.structure)}"' if mark.structure else ""
    return f'<path d="{"".join(parts)}" fill="none" {paint}{named}/>' if parts else ""


def _candidates(thing: np.ndarray, half: np.ndarray) -> Iterator[Place]:
    """Places for a text of half that size around points ``thing``, near ones first."""
    if len(thing) == 1:
        yield Place(*thing[0])
    ends = [(thing[(thing @ towards).argmax()], towards) for towards in _AROUND]
    for gap in _GAPS:
        for end, towards in ends:
            y, x = end + towards * (half + gap)
            yield Place(y, x, tuple(end.tolist()) if gap > _GAPS[0] else None)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def png(pixels: np.ndarray) -> bytes:
    """Gray or color pixels as a small PNG. No palette: it would tint grays and lose the color of a small lesion."""
    stream = io.BytesIO()
    levels = pixels.astype(np.uint16) // _STEP * 255 // (255 // _STEP)  # black and white stay what they are
    Image.fromarray(levels.astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def gray_levels(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """CT values ``(rows, columns)`` as 8-bit gray, black below ``window`` and white above."""
    low, high = window
    return (np.clip((values.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def crop_window(anything: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[slice, slice]:
    """The part of a slice around everything labeled, with a margin; the whole slice where nothing is."""
    if not anything.any():
        return slice(None), slice(None)
    parts = []
    for axis, spacing in enumerate(spacing_mm):
        hit = np.flatnonzero(anything.any(axis=1 - axis))
        extent = (hit[-1] - hit[0] + 1) * spacing
        margin = int(np.ceil(max(_MARGIN_MM, (_LEAST_MM - extent) / 2) / spacing))
        parts.append(slice(max(int(hit[0]) - margin, 0), int(hit[-1]) + margin + 1))
    return parts[0], parts[1]
