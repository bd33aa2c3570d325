"""The figures of evaluations: distributions, Dice against size, detection by size, Bland-Altman, ranks, differences."""

import math
from collections.abc import Sequence

import numpy as np

from nnunet_livseg.report.page import SERIES
from nnunet_livseg.report.svg import INK, SOFT, Drawing, axis_margin, decades, linear, logarithmic, nice_ticks

W, H = 340, 230


def distributions(
    groups: dict[str, Sequence[float]], names: dict[str, Sequence[str]], *, title: str, unit: str = ""
) -> str:
    """Every case as a dot, with median and quartiles, one column per method.

    Args:
        groups: Method to values; what is not finite is counted above the column.
        names: Method to names of the cases, shown when the mouse rests on a dot.
        title: Of the axis.
        unit: Of the axis.
    """
    finite = [v for values in groups.values() for v in values if math.isfinite(v)]
    label = f"Distribution of {title} over cases"
    if not finite:
        return _nothing("no finite value", label)
    share = max(finite) <= 1 and min(finite) >= 0 and not unit
    ticks = nice_ticks(min(finite) if share else min(0.0, *finite), max(finite))
    ticks = [t for t in ticks if t <= 1] if share else ticks
    drawing = Drawing(W, H, left=axis_margin(ticks), top=20, bottom=24 if len(groups) > 1 else 8, label=label)
    y = linear(ticks[0], ticks[-1], drawing.y0, drawing.y1)
    drawing.y_axis(ticks, y, f"{title} [{unit}]" if unit else title)
    step = (drawing.x1 - drawing.x0) / len(groups)
    for index, (method, values) in enumerate(groups.items()):
        center, color = drawing.x0 + (index + 0.5) * step, SERIES[index % len(SERIES)]
        _column(drawing, center, min(step * 0.8, 150), y, values, names[method], color)
        if len(groups) > 1:
            drawing.text(center, H - 6, _short(method, int(step / 6)), anchor="middle", color=INK)
    return str(drawing)


def _column(drawing: Drawing, center: float, width: float, y, values, names, color: str) -> None:
    pairs = [(v, name) for v, name in zip(values, names, strict=True) if math.isfinite(v)]
    infinite = sum(math.isinf(v) for v in values)
    if infinite:
        drawing.text(center, 12, f"{infinite} infinite", anchor="middle", size=10)
    if not pairs:
        return
    q1, median, q3 = np.percentile([v for v, _ in pairs], [25, 50, 75])
    drawing.rect(center - width / 2, y(q3), width, y(q1) - y(q3), fill=color, opacity=0.13)
    drawing.line(center - width / 2, y(median), center + width / 2, y(median), color=color, width=2)
    for (value, name), offset in zip(pairs, _swarm([y(v) for v, _ in pairs], width), strict=True):
        drawing.dot(center + offset, y(value), color=color, title=f"{name}: {value:.3f}", radius=2.8)


def _swarm(places: Sequence[float], width: float) -> list[float]:
    """Sideways offsets that keep neighboring dots apart."""
    offsets, taken = [0.0] * len(places), []
    for index in sorted(range(len(places)), key=lambda i: places[i]):
        tries = [0.0] + [side * k * 5.5 for k in range(1, int(width / 11) + 1) for side in (1, -1)]
        free = (o for o in tries if all(abs(places[index] - p) > 5 or abs(o - q) > 5 for p, q in taken[-60:]))
        offsets[index] = next(free, 0.0)
        taken.append((places[index], offsets[index]))
    return offsets


def against_size(
    points: Sequence[tuple[float, float, str]], *, x_title: str, y_title: str, edges: Sequence[float] = ()
) -> str:
    """Score against lesion size, size on a logarithmic axis; lesions with score 0 are hollow.

    Args:
        points: (size, score, name) of each lesion.
        x_title: Title of the size axis.
        y_title: Title of the score axis.
        edges: Sizes at which a dashed line is drawn.
    """
    label = f"{y_title} against {x_title}"
    sizes = [size for size, _, _ in points]
    if not sizes:
        return _nothing("no lesion", label)
    drawing = Drawing(W, H, left=axis_margin([0.25]), label=label)
    ticks = decades(min(sizes), max(max(sizes), min(sizes) * 2))
    x = logarithmic(min(ticks[0], *sizes), max(ticks[-1], *sizes), drawing.x0 + 6, drawing.x1 - 6)
    y = linear(0, 1, drawing.y0, drawing.y1)
    drawing.y_axis([0, 0.25, 0.5, 0.75, 1], y, y_title)
    drawing.x_axis(ticks, x, x_title)
    for edge in edges:
        if min(sizes) < edge < max(sizes):
            drawing.line(x(edge), drawing.y0, x(edge), drawing.y1, color=SOFT, dash="3 3")
    for size, score, name in points:
        drawing.dot(
            x(size), y(score), color=SERIES[0] if score else SERIES[1], title=name, hollow=not score, opacity=0.8
        )
    return str(drawing)


def detection_by_size(groups: dict[str, Sequence[tuple[str, int, int]]]) -> str:
    """Share of found lesions per stratum with its 95 % interval (Wilson); (stratum, found, all) per method."""
    drawing = Drawing(
        W, H, left=46, top=22 if len(groups) > 1 else 12, bottom=38, label="Share of lesions found, by size"
    )
    y = linear(0, 1, drawing.y0, drawing.y1)
    drawing.y_axis([0, 0.25, 0.5, 0.75, 1], y, "recall")
    strata = next(iter(groups.values()))
    step = (drawing.x1 - drawing.x0) / len(strata)
    for column, (name, _, total) in enumerate(strata):
        center = drawing.x0 + (column + 0.5) * step
        drawing.text(center, drawing.y0 + 15, name, anchor="middle", color=INK)
        drawing.text(center, drawing.y0 + 28, f"n = {total}", anchor="middle", size=10)
    width = min(step * 0.7 / len(groups), 46)
    for index, (method, rows) in enumerate(groups.items()):
        color = SERIES[index % len(SERIES)]
        for column, (_, found, total) in enumerate(rows):
            left = drawing.x0 + (column + 0.5) * step + (index - len(groups) / 2) * width
            _bar(drawing, left, width, y, found, total, color)
        if len(groups) > 1:
            drawing.rect(drawing.x0 + index * 90, 4, 9, 9, fill=color)
            drawing.text(drawing.x0 + index * 90 + 13, 12, _short(method, 12), color=INK)
    return str(drawing)


def _bar(drawing: Drawing, left: float, width: float, y, found: int, total: int, color: str) -> None:
    if not total:
        drawing.text(left + width / 2, drawing.y0 - 5, "none", anchor="middle", size=10)
        return
    drawing.rect(left + 1, y(found / total), width - 2, drawing.y0 - y(found / total), fill=color, opacity=0.75)
    low, high = wilson(found, total)
    drawing.line(left + width / 2, y(low), left + width / 2, y(high), color=INK, width=1.2)


def wilson(found: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson's score interval)."""
    z, p = 1.959964, found / total
    middle, half = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(0.0, (middle - half) / (1 + z * z / total)), min(1.0, (middle + half) / (1 + z * z / total))


def bland_altman(pairs: Sequence[tuple[float, float, str]], *, unit: str) -> str:
    """Differences of volumes against their means, with bias and limits of agreement (1.96 sd).

    Args:
        pairs: (predicted, reference, name) of each case.
        unit: Of the volumes.
    """
    label = "Bland-Altman plot of volumes"
    if not pairs:
        return _nothing("no volume", label)
    means = [(p + r) / 2 for p, r, _ in pairs]
    differences = np.array([p - r for p, r, _ in pairs])
    bias, half = float(differences.mean()), 1.96 * float(differences.std(ddof=1)) if len(pairs) > 1 else 0.0
    ticks = nice_ticks(min(*differences, bias - half, 0.0), max(*differences, bias + half, 0.0))
    x_ticks = nice_ticks(min(means), max(means), 4)
    drawing = Drawing(W, H, left=axis_margin(ticks), right=44, label=label)
    x = linear(x_ticks[0], x_ticks[-1], drawing.x0 + 4, drawing.x1 - 4)
    y = linear(ticks[0], ticks[-1], drawing.y0, drawing.y1)
    drawing.y_axis(ticks, y, f"predicted − reference [{unit}]")
    drawing.x_axis(x_ticks, x, f"mean of both [{unit}]")
    drawing.line(drawing.x0, y(0), drawing.x1, y(0), color=SOFT)
    lines = ((bias, "bias"), (bias + half, "+1.96 sd"), (bias - half, "−1.96 sd"))
    for value, name in lines:
        dash = "" if name == "bias" else "4 3"
        drawing.line(drawing.x0, y(value), drawing.x1, y(value), color=SERIES[1], dash=dash)
    crowded = y(bias - half) - y(bias + half) < 40
    for value, name in lines[:1] if crowded else lines:
        drawing.text(drawing.x1 + 2, y(value) + 3.5, name, size=9, color=SERIES[1])
    for mean, difference, (_, _, name) in zip(means, differences, pairs, strict=True):
        drawing.dot(x(mean), y(difference), color=SERIES[0], title=f"{name}: {difference:+.2f} {unit}")
    return str(drawing)


def paired_scatter(points: Sequence[tuple[float, float, str]], *, x_title: str, y_title: str, better: str) -> str:
    """One method's values against another's, one dot per case; above the diagonal the second is larger."""
    label = f"{y_title} against {x_title}, case by case"
    finite = [(a, b, name) for a, b, name in points if math.isfinite(a) and math.isfinite(b)]
    if not finite:
        return _nothing("no case with two finite values", label)
    values = [v for a, b, _ in finite for v in (a, b)]
    ticks = nice_ticks(min(values), max(values))
    drawing = Drawing(W, 300, left=axis_margin(ticks), label=label)
    x = linear(ticks[0], ticks[-1], drawing.x0, drawing.x1)
    y = linear(ticks[0], ticks[-1], drawing.y0, drawing.y1)
    drawing.y_axis(ticks, y, y_title)
    drawing.x_axis(ticks, x, x_title)
    drawing.line(x(ticks[0]), y(ticks[0]), x(ticks[-1]), y(ticks[-1]), color=SOFT, dash="4 3")
    sign = {"higher": 1, "lower": -1}.get(better, 0)
    for a, b, name in finite:
        gain = (abs(a) - abs(b)) if not sign else sign * (b - a)
        color = SERIES[2] if gain > 0 else SERIES[1] if gain < 0 else SOFT
        drawing.dot(x(a), y(b), color=color, title=f"{name}: {a:.3f}, {b:.3f}", radius=3.4)
    return str(drawing)


def forest(
    rows: Sequence[tuple[str, float, tuple[float, float], bool]], *, title: str, floor: float | None = None
) -> str:
    """Differences with their intervals; filled where significant; the noise floor as a gray band.

    Args:
        rows: (name, difference, interval, significant) of each pair.
        title: Of the axis.
        floor: Half width of the band around 0 in which differences are noise.
    """
    height = 50 + 34 * len(rows)
    drawing = Drawing(W, height, left=14, right=14, top=4, bottom=40, label=title)
    bounds = [b for _, d, ci, _ in rows for b in (d, *ci) if math.isfinite(b)] + [0.0]
    bounds += [floor, -floor] if floor else []
    ticks = nice_ticks(min(bounds), max(bounds), 4)
    x = linear(ticks[0], ticks[-1], drawing.x0, drawing.x1)
    if floor:
        drawing.rect(x(-floor), drawing.y1, x(floor) - x(-floor), drawing.y0 - drawing.y1, fill=SOFT, opacity=0.14)
    drawing.line(x(0), drawing.y0, x(0), drawing.y1, color=SOFT)
    drawing.x_axis(ticks, x, title)
    for index, (name, difference, (low, high), significant) in enumerate(rows):
        y = drawing.y1 + 24 + 34 * index
        drawing.text(drawing.x0, y - 11, _short(name, 52), color=INK)
        if math.isfinite(difference):
            if math.isfinite(low):
                drawing.line(x(low), y, x(high), y, color=SERIES[0], width=2)
            drawing.dot(x(difference), y, color=SERIES[0], radius=4, opacity=1, hollow=not significant)
    return str(drawing)


def ranks(shares: dict[str, Sequence[float]], mean_ranks: dict[str, float]) -> str:
    """How often each method takes each rank when the cases are drawn again: area of the disc; mean rank over cases
    behind."""
    order = sorted(shares, key=lambda name: mean_ranks[name])
    drawing = Drawing(
        W, 34 + 34 * len(order), left=104, right=74, top=22, bottom=8, label="Ranks over bootstrap resamples"
    )
    places = len(order)
    x = linear(1, max(places, 2), drawing.x0 + 18, drawing.x1 - 18)
    for place in range(1, places + 1):
        drawing.text(x(place), 14, f"rank {place}" if places < 5 else str(place), anchor="middle", size=10)
    drawing.text(W - 4, 14, "mean rank", anchor="end", size=10)
    for index, name in enumerate(order):
        y = drawing.y1 + 19 + 34 * index
        drawing.line(drawing.x0, y, drawing.x1, y)
        drawing.text(drawing.x0 - 6, y + 4, _short(name, 17), anchor="end", color=INK)
        drawing.text(W - 4, y + 4, f"{mean_ranks[name]:.2f}", anchor="end", color=INK)
        for place, share in enumerate(shares[name], start=1):
            if share > 0:
                tip = f"{name}: rank {place} in {share:.1%} of resamples"
                drawing.dot(x(place), y, color=SERIES[0], radius=max(1.2, 14 * math.sqrt(share)), title=tip)
    return str(drawing)


def _nothing(text: str, label: str) -> str:
    drawing = Drawing(W, H, label=label)
    drawing.text(W / 2, H / 2, text, anchor="middle")
    return str(drawing)


def _short(name: str, letters: int) -> str:
    letters = max(letters, 3)
    return name if len(name) <= letters else name[: letters - 1] + "…"
