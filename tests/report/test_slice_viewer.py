"""The slices in a patient's report: whole without a browser, and stepped through in a real one."""

import base64
import io
import json
import re

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_livseg.report import slice_viewer
from nnunet_livseg.report.key_slices import KeySlices
from nnunet_livseg.report.patient_report import report_html

from .virtual_patient import DIRECTIONS, scan, segmented


def content(html):
    return json.loads(re.search(r'id="slice-data">([^<]*)<', html)[1])


def picture(entry):
    return np.array(Image.open(io.BytesIO(base64.b64decode(entry["jpeg"]))))


def filled(path, shape):
    """The mask inside a path, by counting crossings: written without the viewer's own code."""
    inside = np.zeros(shape, bool)
    below = np.arange(shape[0]) + 0.6  # beside the pixels' middles, where corners lie
    for x, y, moves in re.findall(r"M(\d+) (\d+)l([^z]*)z", path):
        steps = np.array(moves.split(), int).reshape(-1, 2)
        corners = np.vstack([[int(x), int(y)], steps]).cumsum(axis=0) / 2
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            for row in np.flatnonzero((below > min(y0, y1)) & (below < max(y0, y1))):
                at = x0 + (x1 - x0) * (below[row] - y0) / (y1 - y0)
                inside[row, int(np.ceil(at - 0.5)) :] ^= True
    return inside


# ---- without a browser


@pytest.fixture(scope="module", params=DIRECTIONS)
def turned(request):
    """The slices of a result, and what the page holds of each."""
    slices = KeySlices(segmented(*scan(DIRECTIONS[request.param])))
    return slices, content(slice_viewer.viewer_section(slices))


def test_every_slice_is_there_with_its_own_number_and_outlines(turned):
    slices, entries = turned
    own = range(slices.view.shape[0])
    assert [entry["number"] for entry in entries] == list(own[::-1] if slices.view.flipped[0] else own)
    for entry, labels in zip(entries, slices.labels, strict=True):
        for name, values in (("liver", (1, 2)), ("tumor", (2,))):
            drawn = filled(entry[name], labels.shape)
            assert drawn.sum() == np.isin(labels, values).sum()


def test_outlines_lie_on_the_ct(turned):
    _, entries = turned
    levels = {"liver": 150, "lesion 1": 225, "lesion 2": 97}  # 100, 200 and 30 HU in the window -100 to 240
    found = {name: [] for name in levels}
    for entry in entries:
        gray = picture(entry)
        liver, tumor = (filled(entry[name], gray.shape) for name in ("liver", "tumor"))
        found["liver"] += gray[liver & ~tumor].tolist()
        if len(entry["lesions"]) == 1:
            found[f"lesion {entry['lesions'][0][0]}"] += gray[tumor].tolist()
    for name, values in found.items():
        assert len(values) > 100
        assert np.mean(np.abs(np.array(values) - levels[name]) < 25) > 0.93, name


def test_a_lesion_leads_to_the_slice_that_shows_it(turned):
    slices, entries = turned
    shown = {f"slice-{entry['number']}": [number for number, *_ in entry["lesions"]] for entry in entries}
    links = slice_viewer.lesion_links(slices)
    assert list(links) == [1, 2]
    assert all(number in shown[link] for number, link in links.items())
    assert list(links.values()) == [f"slice-{lesion.axial_diameter.slice_index}" for lesion in slices.pictured]


def test_a_number_stands_at_the_upper_right_of_its_lesion(turned):
    slices, entries = turned
    _, columns = picture(entries[0]).shape
    units = 320 / columns * np.array([1, slices.view.spacing_mm[1] / slices.view.spacing_mm[2]])
    for entry, lesions in zip(entries, slices.lesions, strict=True):
        for number, x, y in entry["lesions"]:
            column, row = np.array([x, y]) / units - [1, 0]
            rows_of_it, columns_of_it = np.nonzero(lesions == number)
            assert column - row == pytest.approx((columns_of_it - rows_of_it).max(), abs=0.5)
            assert np.hypot(columns_of_it - column, rows_of_it - row).min() < 0.5


def test_pictures_are_cut_to_the_body_and_hold_nothing_but_pixels():
    """Air around the body, and a table below it."""
    image, labels = scan(size=(120, 110, 30))
    image[:, 95:97, :] = 300
    entries = content(slice_viewer.viewer_section(KeySlices(segmented(image, labels))))
    seen = picture(entries[15])
    rows, columns = seen.shape
    assert 220 <= columns * 3.0 <= 220 + 12 * 3.0  # an ellipse of 220 by 180 mm, and up to twice six voxels
    assert 180 <= rows * 3.2 <= 180 + 12 * 3.2
    liver = filled(entries[15]["liver"], seen.shape) & ~filled(entries[15]["tumor"], seen.shape)
    assert liver.sum() > 500 and np.mean(np.abs(seen[liver].astype(int) - 150) < 25) > 0.95
    with Image.open(io.BytesIO(base64.b64decode(entries[0]["jpeg"]))) as found:
        assert set(found.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert not found.getexif()


def test_the_page_stays_small_whatever_the_ct(monkeypatch, upright):
    monkeypatch.setattr(slice_viewer, "_MOST_BYTES", 60_000)
    html = slice_viewer.viewer_section(KeySlices(upright))
    assert 30_000 < len(re.search(r'id="slice-data">([^<]*)<', html)[1]) <= 60_000 + 60 * 20
    assert len(content(html)) == 60


def test_images_that_are_no_ct_or_hold_nothing_are_shown_whole():
    image, labels = scan()
    gray = sitk.Cast(sitk.RescaleIntensity(image, 0, 255), sitk.sitkUInt8)
    for result in (segmented(gray, labels), segmented(image * 0 - 1000, labels * 0)):
        entries = content(slice_viewer.viewer_section(KeySlices(result)))
        assert picture(entries[0]).shape == (64, 70)
    assert {entry["liver"] + entry["tumor"] for entry in entries} == {""}


# ---- in Chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory, upright):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_html(upright), encoding="utf-8")
    return path


SHOWN = "document.querySelector('#slices output').textContent"
BOX = "document.querySelector('.frame').getBoundingClientRect()"
MIDDLE = f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({BOX})"


def shown(browser):
    return int(browser.value(SHOWN).split()[1].rstrip(","))


def middle(browser):
    browser.value("document.getElementById('slices').scrollIntoView()")
    return browser.value(MIDDLE)


@pytest.fixture
def page(browser, report):
    browser.open(report)
    return browser


def test_the_page_opens_on_the_largest_lesion_and_asks_the_network_for_nothing(page, report, upright):
    measured = upright.measurements.lesions[0].axial_diameter.slice_index
    assert page.value(SHOWN) == f"slice {measured}, lesion 1"
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert [event for event in page.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")] == []
    forbidden = "document.addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective))"
    asking = "fetch('http://127.0.0.1:9').catch(() => setTimeout(() => done('only failed'), 500))"
    assert page.value(f"new Promise((done) => {{ {forbidden}; {asking}; }})") == "connect-src"
    drawn = "[...document.querySelectorAll('.frame path')].every((path) => path.getBBox().width > 5)"
    assert page.value(drawn)
    page.value("document.querySelector('.frame img').decode()")
    assert page.value("document.querySelector('.frame img').naturalWidth") > 60


def test_keys_step(page):
    page.click(*middle(page))
    start = shown(page)
    found = {}
    for key in ("ArrowUp", "ArrowLeft", "PageDown", "ArrowRight", "ArrowDown", "PageUp", "Home", "ArrowDown", "End"):
        page.press(key)
        found.setdefault(key, []).append(shown(page) - start)
    assert found == {
        "ArrowUp": [1], "ArrowLeft": [0], "PageDown": [-10], "ArrowRight": [-9], "ArrowDown": [-10, -start],
        "PageUp": [0], "Home": [-start], "End": [59 - start],
    }  # fmt: skip


def test_a_screen_reader_hears_the_slice(page):
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    (slider,) = [node for node in tree if node.get("role", {}).get("value") == "slider"]
    assert slider["name"]["value"] == "Axial slice, from the feet to the head"
    said = "document.querySelector('#slices input').getAttribute('aria-valuetext')"
    assert page.value(said) == page.value(SHOWN)
    assert "checkbox" in [node.get("role", {}).get("value") for node in tree]


def test_the_wheel_scrolls_the_page_until_the_picture_is_chosen(page):
    x, y = middle(page)
    start, top = shown(page), page.value("scrollY")
    page.wheel(x, y, 100)
    assert page.value("new Promise((done) => setTimeout(() => done(scrollY), 300))") > top
    assert shown(page) == start
    x, y = middle(page)
    page.click(x, y)
    for _ in range(3):
        page.wheel(x, y, 100)
    page.wheel(x, y, -100)
    assert shown(page) == start - 2
    page.press("Escape")
    page.wheel(x, y, 100)
    assert shown(page) == start - 2


def test_a_link_in_the_table_leads_to_the_slice(page, upright):
    measured = upright.measurements.lesions[1].axial_diameter.slice_index
    for _ in range(2):  # the second time, the address does not change
        page.value("document.querySelector('a[href=\"#slice-%d\"]').click()" % measured)  # noqa: UP031
        assert page.value("new Promise((done) => setTimeout(() => done(document.activeElement.type), 50))") == "range"
        assert page.value(SHOWN) == f"slice {measured}, lesion 2"
        assert abs(page.value("document.getElementById('slices').getBoundingClientRect().top")) < 5
        page.press("Home")


def test_outlines_are_switched(page):
    visible = "getComputedStyle(document.querySelector('.outlines')).display"
    page.click(*middle(page))
    states = [page.value(visible)]
    for _ in range(2):
        page.press("o")
        states.append(page.value(visible))
    page.value("document.querySelector('#slices input[type=checkbox]').click()")
    assert [*states, page.value(visible)] == ["inline", "none", "inline", "none"]


def test_a_phone_swipes_and_fits(browser, report):
    browser.open(report, width=360, height=740, phone=True)
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    x, y = middle(browser)
    start = shown(browser)
    browser.swipe(x, y, 60)
    assert start + 5 <= shown(browser) <= start + 10
    assert browser.value("document.documentElement.scrollWidth") <= 360
    browser.call("Emulation.setTouchEmulationEnabled", enabled=False)


def test_print_shows_the_page_without_it_and_all_lesions(page):
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.value("getComputedStyle(document.getElementById('slices')).display") == "none"
    assert page.pdf().startswith(b"%PDF")
    page.call("Emulation.setEmulatedMedia", media="")


def test_without_scripts_the_page_says_so(browser, report):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(report)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "Scripts are switched off" in browser.value("document.getElementById('slices').innerText")
    assert browser.value("getComputedStyle(document.querySelector('.viewer')).display") == "none"
