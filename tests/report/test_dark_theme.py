"""Reports on light and dark screens: words and marks stand out, and paper stays white, in a real browser."""

import re

import pytest

from nnunet_livseg.report import charts, page
from nnunet_livseg.report.patient_report import report_html

WORDS = """[...document.querySelectorAll('main *')].filter((element) =>
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
    && !element.closest('script, .pictures, .frame, svg:has(image), title')).map((element) => {
  let behind = element;
  const ground = () => getComputedStyle(behind).backgroundColor;
  while (ground() === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
  const style = getComputedStyle(element);
  return [element.textContent, element instanceof SVGElement ? style.fill : style.color, ground()];
})"""
MARKS = "[...document.querySelectorAll('circle')].map((mark) => getComputedStyle(mark).fill)"
SERIES = f"""[...Array({len(page.PALETTE)}).keys()].map((number) =>
    getComputedStyle(document.body).getPropertyValue(`--series-${{number}}`))"""


def luminance(color):
    """Of ``rgb(r, g, b)`` or ``#rrggbb``, as the Web Content Accessibility Guidelines define it."""
    parts = [int(two, 16) for two in re.findall("[0-9a-f]{2}", color)] if color[0] == "#" else re.findall(r"\d+", color)
    shares = [int(part) / 255 for part in parts[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return linear[0] * 0.2126 + linear[1] * 0.7152 + linear[2] * 0.0722


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A page with every kind of part."""
    names = [f"method {number}" for number in range(len(page.PALETTE))]
    dots = charts.distributions(
        {name: [0.5, 0.7] for name in names}, {name: ["a", "b"] for name in names}, title="Dice"
    )
    limits = charts.bland_altman([(12.0, 10.0, "a"), (24.0, 20.0, "b"), (36.0, 30.0, "c")], unit="ml")
    body = [
        page.section("Charts", page.figures(page.figure(dots, "Dice", "a note"), page.figure(limits)), lead="Two."),
        page.section("Table", page.table(["case", "Dice"], [["[1](#case-1)", "0.5 ± 0.1 (2 inf)"]])),
        page.warning("Skipped", [("a", "no reference")]),
        page.section("Terms", page.key_figures([("Dice", "0.5", "mean")]), page.definitions([("Dice", "overlap")])),
        page.folded("More", "words"),
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page.page("Report", kicker="above", facts=["fact"], body=body, footer="below"), encoding="utf-8")
    return path


def test_contrast_by_hand():
    assert contrast("#000000", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the gray that just fails


def test_words_in_a_series_color_stand_out_from_white():
    """Without a browser: Bland-Altman plots name their lines in the lines' color."""
    drawn = charts.bland_altman([(12.0, 10.0, "a"), (24.0, 20.0, "b")], unit="ml")
    colors = {page.PALETTE[int(number)] for number in re.findall(r"<text[^>]*var\(--series-(\d)\)", drawn)}
    assert colors and all(contrast(color, "#ffffff") >= 4.5 for color in colors)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_stand_out(browser, drawn, dark):
    browser.open(drawn, dark=dark)
    words = browser.value(WORDS)
    assert {"Report", "Skipped", "bias", "1", " ± 0.1", "2 inf", "a note", "fact"} <= {text for text, *_ in words}
    grounds = [luminance(ground) for *_, ground in words]
    assert max(grounds) < 0.03 if dark else min(grounds) > 0.9
    assert [word for word in words if contrast(*word[1:]) < 4.5] == []


def test_marks_stand_out_on_a_dark_screen(browser, drawn):
    browser.open(drawn, dark=True)
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    series = browser.value(SERIES)
    assert len(set(series)) == len(page.PALETTE)
    assert [color for color in series if contrast(color, ground) < 4.5] == []


def test_a_light_screen_has_the_palette_on_white(browser, drawn):
    browser.open(drawn)
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tuple(browser.value(SERIES)) == page.PALETTE
    assert luminance(browser.value(MARKS)[0]) == pytest.approx(luminance(page.PALETTE[0]))


def test_paper_is_white_whatever_the_screen(browser, drawn):
    found = []
    for scheme in ("light", "dark"):
        browser.open(drawn, dark=scheme == "dark")
        browser.call(
            "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        found.append((browser.value(WORDS), browser.value(MARKS)))
    browser.call("Emulation.setEmulatedMedia", media="")
    assert found[0] == found[1]
    assert {ground for _, _, ground in found[0][0]} == {"rgb(255, 255, 255)", "rgb(255, 246, 237)"}


def test_a_patients_report_is_dark_around_pictures_that_stay(browser, tmp_path, upright):
    path = tmp_path / "report.html"
    path.write_text(report_html(upright), encoding="utf-8")
    pictures = (
        "[...document.querySelectorAll('.pictures svg, .frame')].map((one) => getComputedStyle(one).backgroundColor)"
    )
    shown = []
    for dark in (False, True):
        browser.open(path, dark=dark)
        shown.append(browser.value(pictures))
        assert [word for word in browser.value(WORDS) if contrast(*word[1:]) < 4.5] == []
    assert shown[0] == shown[1] and len(shown[0]) > 2
