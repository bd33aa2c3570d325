"""Pictures with their marks as pixels: the small PNG that shows a result where no page can be opened."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nnunet_livseg.report.marked_image import DARK, WIDTH, MarkedImage, png

HEIGHT_PX, _WIDEST_PX = 420, 600  # of one picture
_GAP_PX = 6
_FINER = 2  # drawn so much larger and scaled down: lines without stairs


def preview_png(pictures: Sequence[MarkedImage]) -> bytes:
    """Pictures side by side as a PNG."""
    drawn = [rasterized(picture) for picture in pictures]
    sheet = Image.new("RGB", (sum(one.width for one in drawn) + _GAP_PX * (len(drawn) - 1), HEIGHT_PX), "white")
    left = 0
    for one in drawn:
        sheet.paste(one, (left, (HEIGHT_PX - one.height) // 2))
        left += one.width + _GAP_PX
    return png(np.asarray(sheet))


def rasterized(picture: MarkedImage) -> Image.Image:
    """A picture with its marks, as large as fits."""
    scale = min(HEIGHT_PX / picture.height, _WIDEST_PX / WIDTH)
    size = (round(WIDTH * scale), max(round(picture.height * scale), 1))
    pen = _Pen(picture, tuple(n * _FINER for n in size), scale * _FINER)
    pen.draw()
    return pen.canvas.resize(size, Image.Resampling.LANCZOS)


class _Pen:
    """Draws the marks of a picture over its pixels; ``scale`` is in pixels per unit."""

    def __init__(self, picture: MarkedImage, size: tuple[int, int], scale: float) -> None:
        self.picture, self.scale = picture, scale
        self.canvas = Image.fromarray(picture.pixels).convert("RGB").resize(size, Image.Resampling.BICUBIC)
        self.to = ImageDraw.Draw(self.canvas)

    def draw(self) -> None:
        picture = self.picture
        for outline in picture.outlines:
            for contour in outline.contours():
                self.line(contour * picture.units, outline.colour, outline.width)
        for line in picture.lines:
            for colour, width in ((DARK, 2.6), ("#ffffff", 1.2)):
                self.line(np.array([line.start, line.end]) * picture.units, colour, width)
        for label, place in zip(picture.labels, picture.places, strict=True):
            if place.target:
                self.line(np.array([(place.y, place.x), place.target]), picture.ink, 0.7)
            self.text(label.text, place.x, place.y, label.size, "mm")
        for letter, x, anchor in zip(picture.sides or (), (4, WIDTH - 4), ("lm", "rm"), strict=False):
            self.text(letter, x, picture.height / 2, 10, anchor)
        if picture.scale_bar:
            self.scale_bar()

    def scale_bar(self) -> None:
        length_mm, length = self.picture.bar
        y = self.picture.height - 7
        for colour, width in ((self.picture.halo, 4), (self.picture.ink, 1.8)):
            self.line(np.array([(y, 7), (y, 7 + length)]), colour, width)
        self.text(f"{length_mm} mm", 7, y - 5, 9, "ls")

    def line(self, points: np.ndarray, colour: str, width: float) -> None:
        """A line through ``points (n, 2)``, (y, x) in units."""
        ends = [(x, y) for y, x in (points * self.scale).tolist()]
        self.to.line(ends, fill=colour, width=max(round(width * self.scale), 1), joint="curve")

    def text(self, text: str, x: float, y: float, size: float, anchor: str) -> None:
        font = ImageFont.load_default(max(size * self.scale, 1))
        stroke = round(1.3 * self.scale)
        paint = {"fill": self.picture.ink, "stroke_fill": self.picture.halo, "stroke_width": stroke}
        self.to.text((x * self.scale, y * self.scale), text, font=font, anchor=anchor, **paint)
