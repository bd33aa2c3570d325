"""How trainings went: validation Dice of every epoch, one line per method."""

import itertools
import math
from collections.abc import Mapping, Sequence

from nnunet_livseg.report.page import SERIES
from nnunet_livseg.report.svg import INK, Drawing, axis_margin, linear, nice_ticks

WIDTH, PLOT = 520, 230
LINE = 16  # height of a line of the legend


def learning_curves(groups: Mapping[str, Sequence[Mapping[int, float]]], *, title: str) -> str:
    """Mean over trainings at each epoch that all trainings of a method have reached, as SVG.

    Args:
        groups: Method to the curves of its trainings: epoch to value.
        title: Title of the vertical axis.
    """
    lines = {name: mean_curve(curves) for name, curves in groups.items()}
    epochs = [epoch for line in lines.values() for epoch in line]
    values = [value for line in lines.values() for value in line.values()]
    legend = LINE * len(lines)
    ticks = nice_ticks(min([0.0, *values]), max([*values, 0.1]))
    drawing = Drawing(WIDTH, PLOT + legend, left=axis_margin(ticks), bottom=36 + legend, label=f"{title} by epoch")
    if not epochs:
        drawing.text(WIDTH / 2, PLOT / 2, "no epoch yet", anchor="middle")
        return str(drawing)
    x = linear(0, max(1, *epochs), drawing.x0, drawing.x1)
    y = linear(ticks[0], ticks[-1], drawing.y0, drawing.y1)
    drawing.y_axis(ticks, y, title)
    drawing.x_axis([tick for tick in nice_ticks(0, max(1, *epochs)) if tick <= max(1, *epochs)], x)
    drawing.text((drawing.x0 + drawing.x1) / 2, drawing.y0 + 30, "epoch", anchor="middle")
    for index, (name, line) in enumerate(lines.items()):
        color = SERIES[index % len(SERIES)]
        points = sorted(line.items())
        for (a, b), (c, d) in itertools.pairwise(points):
            drawing.line(x(a), y(b), x(c), y(d), color=color, width=1.6)
        for epoch, value in points[-1:]:
            drawing.dot(x(epoch), y(value), color=color, title=f"{name}: {value:.3f}")
        row = PLOT + LINE * index + 8
        drawing.line(drawing.x0, row - 4, drawing.x0 + 18, row - 4, color=color, width=2)
        drawing.text(drawing.x0 + 24, row, name, color=INK)
    return str(drawing)


def mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Mean over curves at the epochs that all of them have, without values that are not finite."""
    curves = [curve for curve in curves if curve]
    common = set.intersection(*map(set, curves)) if curves else set()
    means = {}
    for epoch in sorted(common):
        values = [curve[epoch] for curve in curves if math.isfinite(curve[epoch])]
        if values:
            means[epoch] = sum(values) / len(values)
    return means
