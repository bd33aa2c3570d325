"""Pictures with their marks as pixels: the small PNG that shows a result where no page can be opened."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nnunet_livseg.report.marked_image import WIDTH, MarkedImage, Stroke, Text, png

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
    canvas = Image.fromarray(picture.pixels).convert("RGB")
    canvas = canvas.resize(tuple(n * _FINER for n in size), Image.Resampling.BICUBIC)
    to, scale = ImageDraw.Draw(canvas), scale * _FINER
    for mark in picture.marks():
        if isinstance(mark, Text):
            _write(to, mark, scale, ink=picture.ink, halo=picture.halo)
        else:
            _draw(to, mark, scale)
    return canvas.resize(size, Image.Resampling.LANCZOS)


def _draw(to: ImageDraw.ImageDraw, mark: Stroke, scale: float) -> None:
    for line in mark.lines:
        ends = [(x, y) for y, x in (line * scale).tolist()]
        to.line(ends, fill=mark.color, width=max(round(mark.width * scale), 1), joint="curve")


def _write(to: ImageDraw.ImageDraw, mark: Text, scale: float, *, ink: str, halo: str) -> None:
    paint = {"fill": ink, "stroke_fill": halo, "stroke_width": round(1.3 * scale)}
    font = ImageFont.load_default(max(mark.size * scale, 1))
    anchor = {"start": "l", "middle": "m", "end": "r"}[mark.anchor] + ("s" if mark.on_line else "m")
    to.text((mark.x * scale, mark.y * scale), mark.text, font=font, anchor=anchor, **paint)
