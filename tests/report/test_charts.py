"""Figures: marks where the numbers say."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest

from nnunet_livseg.report import charts
from nnunet_livseg.report.svg import decades, linear, logarithmic, nice_ticks, tick_text


def circles(svg):
    return [
        (float(c.get("cx")), float(c.get("cy")), float(c.get("r")))
        for c in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}circle")
    ]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.713, 0.93), (-41.3, 7), (1e-4, 3e-4), (0, 12345), (5, 5)])
def test_ticks_enclose_the_values_in_round_steps(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 12
    steps = {round(b - a, 9) for a, b in itertools.pairwise(ticks)}
    assert len(steps) == 1
    assert re.fullmatch(r"[125]0*(\.0)?|0\.0*[125]", f"{steps.pop():.10f}".rstrip("0").rstrip("."))


def test_logarithmic_ticks():
    assert decades(3, 60) == [2, 5, 10, 20, 50, 100]
    assert decades(0.01, 900) == [0.01, 0.1, 1, 10, 100, 1000]


def test_scales():
    assert linear(0, 10, 100, 0)(2.5) == 75
    assert logarithmic(1, 100, 0, 200)(10) == pytest.approx(100)
    assert tick_text(-0.5) == "−0.5"


def test_better_cases_are_higher_and_infinite_ones_counted():
    svg = charts.distributions({"m": [0.2, 0.9, math.inf, math.nan]}, {"m": list("abcd")}, title="DSC")
    low, high = sorted(circles(svg), key=lambda c: -c[1])
    assert high[1] < low[1]
    assert "1 infinite" in svg
    assert "<title>b: 0.900</title>" in svg


def test_dots_of_equal_values_do_not_hide_each_other():
    svg = charts.distributions({"m": [0.5] * 12}, {"m": list("abcdefghijkl")}, title="DSC")
    assert len({(x, y) for x, y, _ in circles(svg)}) == 12


def test_wilson_by_hand():
    """8 of 10: the textbook interval 0.490 to 0.943."""
    assert charts.wilson(8, 10) == pytest.approx((0.490, 0.943), abs=5e-4)
    assert charts.wilson(0, 5)[0] == 0
    assert charts.wilson(5, 5)[1] == 1


def test_bland_altman_draws_bias_and_limits():
    pairs = [(12.0, 10.0, "a"), (24.0, 20.0, "b"), (36.0, 30.0, "c")]  # differences 2, 4, 6: bias 4, sd 2
    svg = charts.bland_altman(pairs, unit="ml")
    dots = circles(svg)
    lines = [float(y) for y in re.findall(r'y1="([\d.]+)" x2="[\d.]+" y2="[\d.]+" stroke="var\(--series-1\)"', svg)]
    per_ml = (dots[0][1] - dots[2][1]) / 4
    assert lines[0] == pytest.approx(dots[1][1], abs=0.11)
    assert (lines[2] - lines[1]) / per_ml == pytest.approx(2 * 1.96 * 2, rel=0.02)


def test_missed_lesions_are_hollow():
    svg = charts.against_size(
        [(5.0, 0.0, "missed"), (30.0, 0.8, "found")], x_title="mm", y_title="Dice", edges=(10, 20)
    )
    assert svg.count('fill="var(--paper)"') == 1
    (x_small, y_missed, _), (x_large, y_found, _) = circles(svg)
    assert x_small < x_large
    assert y_missed > y_found
    assert svg.count("stroke-dasharray") == 2


def test_winners_lie_on_their_side_of_the_diagonal():
    points = [(0.5, 0.7, "second better"), (0.7, 0.5, "first better")]
    higher = charts.paired_scatter(points, x_title="a", y_title="b", better="higher")
    lower = charts.paired_scatter(points, x_title="a", y_title="b", better="lower")
    colors = [re.findall(r'<circle[^>]*fill="([^"]+)"', svg) for svg in (higher, lower)]
    assert colors[0] == ["var(--series-2)", "var(--series-1)"]
    assert colors[1] == ["var(--series-1)", "var(--series-2)"]


def test_differences_are_filled_where_significant_and_noise_is_gray():
    rows = [("a - b", 0.1, (0.05, 0.15), True), ("a - c", 0.02, (-0.1, 0.2), False)]
    svg = charts.forest(rows, title="difference", floor=0.06)
    assert svg.count('fill="var(--paper)"') == 1
    assert "<rect" in svg
    assert "<rect" not in charts.forest(rows, title="difference")


def test_the_area_of_a_disc_is_the_share_of_a_rank():
    svg = charts.ranks({"a": [0.8, 0.2], "b": [0.2, 0.8]}, {"a": 1.2, "b": 1.8})
    (_, _, often), (_, _, seldom), *_ = circles(svg)
    assert often**2 / seldom**2 == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize(
    "svg",
    [
        charts.distributions({"m": [math.nan]}, {"m": ["a"]}, title="DSC"),
        charts.against_size([], x_title="mm", y_title="Dice"),
        charts.bland_altman([], unit="ml"),
        charts.bland_altman([(1.0, 1.0, "only")], unit="ml"),
        charts.detection_by_size({"m": [("< 10 mm", 0, 0), ("> 10 mm", 1, 2)]}),
        charts.paired_scatter([(math.inf, 1.0, "a")], x_title="a", y_title="b", better="lower"),
        charts.forest([("a - b", math.nan, (math.nan, math.nan), False)], title="d"),
        charts.against_size([(8.0, 0.5, "one")], x_title="mm", y_title="Dice"),
    ],
)
def test_hardly_any_data_is_still_a_picture(svg):
    assert "nan" not in svg
    assert ET.fromstring(svg).tag.endswith("svg")
