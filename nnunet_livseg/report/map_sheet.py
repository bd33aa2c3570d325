"""A sheet of pictures: rows of planes with maps in color over them, and bar charts, as PNG.

Patients are shown as radiologists see them; every map has its own color scale, printed beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_livseg.core.files import atomic_path
from nnunet_livseg.report.marked_image import DISPLAY_WINDOW_HU

OUTLINES = ("#4cc9f0", "#ffb000", "#2fdc5a", "#ff3df2")  # in the order of the structures
_MAP_COLORS, _OPACITY = "inferno", 0.6
# inches:
_PANEL, _BARS, _GAP, _EDGE, _TITLE, _CAPTION, _AXIS = 2.3, 1.1, 0.75, 0.4, 0.6, 0.45, 0.25
_DPI = 110


@dataclass(frozen=True)
class MapPanel:
    """A plane of the image, with a map over it or with outlines of masks.

    Args:
        title: Caption.
        image: Gray values, ``(rows, columns)``.
        overlay: The map, of the same size.
        limits: Values of the map at the ends of the color scale; its own least and largest if left out.
        outlines: Masks by name, of the same size.
    """

    title: str
    image: np.ndarray
    overlay: np.ndarray | None = None
    limits: tuple[float, float] | None = None
    outlines: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Bars:
    """A vector, a bar per entry."""

    title: str
    values: np.ndarray


@dataclass(frozen=True)
class Row:
    """Pictures, or bars, that belong together; ``None`` leaves a place empty."""

    title: str
    source: str
    panels: tuple[MapPanel | Bars | None, ...]

    @property
    def has_bars(self) -> bool:
        """Whether its panels are bars."""
        return any(isinstance(panel, Bars) for panel in self.panels)


@dataclass(frozen=True)
class Sheet:
    """What is on the sheet.

    Args:
        title: First line.
        note: Second line.
        rows: From top to bottom.
        aspect: Height over width of a pixel of all planes.
        sides: Letters for the left and the right of a plane.
        point: Row and column of the point that is looked at.
    """

    title: str
    note: str
    rows: tuple[Row, ...]
    aspect: float
    sides: tuple[str, str]
    point: tuple[int, int]


def draw(sheet: Sheet, path: Path) -> None:
    """Write the sheet as PNG.

    Raises:
        OSError: The disk is full, the folder cannot be written to.
    """
    from matplotlib.figure import Figure

    shape = next(panel.image.shape for panel in sheet.rows[0].panels if panel is not None)
    heights = [_BARS if row.has_bars else _PANEL * sheet.aspect * shape[0] / shape[1] for row in sheet.rows]
    width = 2 * _EDGE + max(3, *(len(row.panels) for row in sheet.rows)) * (_PANEL + _GAP)
    height = _TITLE + sum(heights) + (_CAPTION + _AXIS) * len(heights)
    figure = Figure(figsize=(width, height))
    figure.text(_EDGE / width, 1 - 0.12 / height, f"{sheet.title}\n{sheet.note}", fontsize=10, va="top")
    top = height - _TITLE
    for row, inches in zip(sheet.rows, heights, strict=True):
        figure.text(_EDGE / width, top / height, f"{row.title}  ({row.source})", fontsize=9, va="top", weight="bold")
        bottom = top - _CAPTION - inches
        for column, panel in enumerate(row.panels):
            if panel is not None:
                left = _EDGE + column * (_PANEL + _GAP)
                axis = figure.add_axes((left / width, bottom / height, _PANEL / width, inches / height))
                axis.set_title(panel.title, fontsize=8, pad=3)
                _bars(axis, panel) if isinstance(panel, Bars) else _picture(axis, panel, sheet)
        top = bottom - _AXIS
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)


def _picture(axis: Any, panel: MapPanel, sheet: Sheet) -> None:
    low, high = _window(panel.image)
    axis.imshow(panel.image, cmap="gray", vmin=low, vmax=high, aspect="auto")
    if panel.overlay is not None:
        low, high = panel.limits or (None, None)
        shown = axis.imshow(panel.overlay, cmap=_MAP_COLORS, alpha=_OPACITY, vmin=low, vmax=high, aspect="auto")
        bar = axis.figure.colorbar(shown, cax=axis.inset_axes((1.03, 0.0, 0.045, 1.0)), format="%.3g")
        bar.solids.set_alpha(1)
        bar.ax.tick_params(labelsize=6)
    for (name, mask), color in zip(panel.outlines.items(), OUTLINES, strict=False):
        if mask.any() and not mask.all():
            axis.contour(mask, levels=[0.5], colors=color, linewidths=1.2)
        axis.plot([], [], color=color, label=name)
    row, column = sheet.point
    axis.plot(column, row, "+", color="#4cc9f0", markersize=7, markeredgewidth=1, label="point")
    if panel.outlines:
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    for x, align, letter in ((0.02, "left", sheet.sides[0]), (0.98, "right", sheet.sides[1])):
        axis.text(x, 0.5, letter, transform=axis.transAxes, ha=align, va="center", color="white", fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])


def _bars(axis: Any, panel: Bars) -> None:
    values = panel.values
    axis.bar(np.arange(values.size), values, width=1.0, color="#4a5a8a", linewidth=0)
    axis.axhline(values.mean(), color="#d1495b", linewidth=0.9)
    axis.set_ylim(0, max(1.0, 1.05 * float(values.max())))
    axis.set_xlim(-0.5, values.size - 0.5)
    axis.locator_params(axis="x", integer=True)
    axis.tick_params(labelsize=6)


def _window(image: np.ndarray) -> tuple[float, float]:
    """Gray values from black to white: soft tissue of a CT, the whole range of anything else."""
    return DISPLAY_WINDOW_HU if image.min() < 0 else (float(image.min()), float(image.max()))
