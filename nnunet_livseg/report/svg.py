"""A small drawing board: scales, axes and marks as SVG text.

Sizes are in the units of the view box; figures are drawn about as wide as a phone, so that their text is readable there
and three of them fit side by side on a desk.
"""

import math
from collections.abc import Callable, Sequence
from html import escape

INK, SOFT, LINE, PAPER = "var(--ink)", "var(--soft)", "var(--line)", "var(--paper)"  # page.css has them

Scale = Callable[[float], float]


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Map ``low..high`` to ``start..end``."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Map ``low..high``, both above 0, to ``start..end`` on a logarithmic scale."""
    inner = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(max(value, low)))


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that enclose ``low..high``; only powers where these are many."""
    powers = range(math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9) + 1)
    if len(powers) > 3:
        return [10.0**p for p in powers]
    values = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    below = max((v for v in values if v <= low * (1 + 1e-9)), default=values[0])
    above = min((v for v in values if v >= high * (1 - 1e-9)), default=values[-1])
    return [v for v in values if below <= v <= above]


class Drawing:
    """An SVG that grows mark by mark.

    Args:
        width: Width of the view box.
        height: Height of the view box.
        left: Left margin; the plot's area is what the margins leave.
        right: Right margin.
        top: Top margin.
        bottom: Bottom margin.
        label: What the picture shows, for readers who cannot see it.
    """

    def __init__(
        self,
        width: float,
        height: float,
        *,
        left: float = 40,
        right: float = 10,
        top: float = 8,
        bottom: float = 34,
        label: str = "",
    ) -> None:
        self.width, self.height = width, height
        self.x0, self.x1, self.y0, self.y1 = left, width - right, height - bottom, top
        self.label = label
        self.marks: list[str] = []

    def __str__(self) -> str:
        head = f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{escape(self.label)}"'
        return f'{head} xmlns="http://www.w3.org/2000/svg">' + "".join(self.marks) + "</svg>"

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, color: str = LINE, width: float = 1, dash: str = ""
    ) -> None:
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.marks.append(f'<line {ends} stroke="{color}" stroke-width="{width:g}"{dash}/>')

    def rect(
        self, x: float, y: float, width: float, height: float, *, fill: str, opacity: float = 1, stroke: str = "none"
    ) -> None:
        box = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
        self.marks.append(f'<rect {box} fill="{fill}" fill-opacity="{opacity:g}" stroke="{stroke}"/>')

    def dot(
        self,
        x: float,
        y: float,
        *,
        color: str,
        radius: float = 3,
        opacity: float = 0.75,
        title: str = "",
        hollow: bool = False,
    ) -> None:
        paint = f'fill="{PAPER}" stroke="{color}" stroke-width="1.3"' if hollow else f'fill="{color}"'
        tip = f"<title>{escape(title)}</title>" if title else ""
        self.marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" {paint} opacity="{opacity:g}">{tip}</circle>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 11,
        anchor: str = "start",
        color: str = SOFT,
        turn: bool = False,
    ) -> None:
        turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
        place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" fill="{color}"'
        self.marks.append(f"<text {place}{turned}>{escape(text)}</text>")

    def y_axis(self, ticks: Sequence[float], scale: Scale, title: str = "") -> None:
        """Horizontal grid lines with their numbers, and a title along the axis."""
        for tick in ticks:
            self.line(self.x0, scale(tick), self.x1, scale(tick))
            self.text(self.x0 - 5, scale(tick) + 3.8, tick_text(tick), anchor="end")
        if title:
            self.text(11, (self.y0 + self.y1) / 2, title, anchor="middle", turn=True)

    def x_axis(self, ticks: Sequence[float], scale: Scale, title: str = "") -> None:
        """The base line with ticks, their numbers and a title."""
        self.line(self.x0, self.y0, self.x1, self.y0, color=SOFT)
        for tick in ticks:
            self.line(scale(tick), self.y0, scale(tick), self.y0 + 4, color=SOFT)
            self.text(scale(tick), self.y0 + 15, tick_text(tick), anchor="middle")
        if title:
            self.text((self.x0 + self.x1) / 2, self.height - 3, title, anchor="middle")


def axis_margin(ticks: Sequence[float], *, title: bool = True) -> float:
    """Left margin that holds the numbers of a vertical axis and its title."""
    return 10 + 6.2 * max(len(tick_text(tick)) for tick in ticks) + (14 if title else 0)


def tick_text(value: float) -> str:
    """A tick's number without trailing zeros."""
    return f"{value:.6g}".replace("-", "−")
