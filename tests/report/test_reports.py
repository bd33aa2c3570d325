"""Reports: whole documents, self-contained, with the numbers of the evaluation and the right pictures."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nnunet_livseg.evaluation.comparison import compare, compare_results
from nnunet_livseg.report.case_pictures import CaseView, pictures
from nnunet_livseg.report.comparison_report import comparison_html
from nnunet_livseg.report.evaluation_report import report_html, write_report


@pytest.fixture(scope="session")
def html(result):
    return report_html(result)


def test_the_page_is_whole_and_fetches_nothing(check, html):
    text = check(html)
    assert html.startswith("<!doctype html>")
    assert "@media print" in html
    assert "Lesions found" in text


def test_its_numbers_are_those_of_the_summary(html, result):
    tumor = result.summary["structures"]["tumor"]
    assert f"<dd>{tumor['dice_per_case']:.3f}" in html
    assert f"<dd>{tumor['dice_global']:.3f}" in html
    assert "3 of 5" in html
    assert "1 inf" in html
    assert "Tumor: 1 missed entirely, 1 without it on both sides." in html


def test_what_was_left_out_stands_at_the_top(html):
    assert "1 case skipped, and not in any number below" in html
    assert html.index("has a prediction, but no reference") < html.index("<h2>Structures")


def test_names_are_escaped(html):
    assert "missed &lt;&amp;&gt;" in html
    assert "missed <&>" not in html


def test_the_worst_cases_come_first_with_pictures_of_the_ct(html):
    worst = html[html.index("<h2>Worst cases") : html.index("<h2>All cases")]
    assert worst.index("missed &lt;") < worst.index("half") < worst.index("good")
    pictures_found = re.findall(r'href="data:image/png;base64,([^"]+)"', worst)
    assert len(pictures_found) == 6  # three cases with tumor, axial and coronal each
    gray = np.array(Image.open(io.BytesIO(base64.b64decode(pictures_found[0]))))
    assert gray.ndim == 2
    assert gray.std() > 20


def test_every_definition_is_on_the_page(html, result):
    from html import unescape

    from nnunet_livseg.evaluation.metrics import metric_table

    for row in metric_table(result.options).values():
        assert row.definition in unescape(html)


def test_a_report_is_written_whole(check, result, tmp_path):
    write_report(result, tmp_path / "report.html")
    check((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_vanished_file_costs_the_picture_only(check, study, tmp_path):
    import shutil

    from nnunet_livseg.evaluation.folder_evaluation import evaluate_folder

    shutil.copytree(study / "pred", tmp_path / "pred")
    found = evaluate_folder(tmp_path / "pred", study / "labelsTr", out=tmp_path / "out", workers=1)
    (tmp_path / "pred" / "half.nii.gz").write_bytes(b"")
    text = check(report_html(found))
    assert "No picture: half.nii.gz cannot be read" in text


@pytest.fixture(scope="session")
def comparison(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare")
    return compare([study / "pred", study / "other"], study / "labelsTr", out=out, workers=1)


def test_the_comparison_is_whole_and_says_what_it_shows(check, comparison):
    text = check(comparison_html(comparison))
    assert "pred and other" in text
    assert "ranking" in text
    assert "not evidence, significant or not" in text
    assert "4 common cases" in text
    assert "<b>" not in comparison_html(comparison).split("<h2>Liver")[0].split("<h2>Tumor")[1]  # 4 cases prove nothing


def test_of_many_methods_the_figure_has_those_against_the_first(result):
    methods = [replace(result, inputs=replace(result.inputs, method=f"way{n}")) for n in range(7)]
    few, many = (comparison_html(compare_results(methods[:count])) for count in (6, 7))
    drawn = [set(re.findall(r">(way\d − way\d)</text>", text)) for text in (few, many)]
    assert len(drawn[0]) == 15 and "way1 − way2" in drawn[0]
    assert drawn[1] == {f"way0 − way{n}" for n in range(1, 7)}
    assert "Pairs with way0 only" in many and "Pairs with" not in few
    assert "way1 − way2" in many, "no test is lost"


# ---- pictures


def scene(**changes):
    reference, predicted = np.zeros((10, 30, 40), np.uint8), np.zeros((10, 30, 40), np.uint8)
    reference[2:8, 5:25, 5:35] = predicted[2:8, 5:25, 5:35] = 1
    reference[6, 10:14, 10:14] = 2
    predicted[6, 10:14, 12:16] = 2
    values = {"liver": (1, 2), "tumor": (2,)}
    return CaseView(**({"predicted": predicted, "reference": reference, "structures": values, "focus": "tumor",
                     "spacing_mm": (5.0, 1.0, 1.0), "ct": None} | changes))  # fmt: skip


def paths(svg, color):
    return [
        np.array(re.findall(r"([\d.-]+) ([\d.-]+)", d), dtype=float)
        for d in re.findall(rf'<path d="([^"]+)"[^>]*stroke="{color}"', svg)
    ]


def test_the_slices_are_those_that_differ_most():
    axial, coronal = pictures(scene())
    assert axial.caption == "axial, slice 6"
    assert coronal.caption.startswith("coronal, row 1")


def test_outlines_lie_on_the_voxels_edges():
    """The crop starts at 0 (margin 12 mm) and is 40 columns of 1 mm wide, drawn 320 wide: 8 units per mm."""
    axial, _ = pictures(scene())
    liver, tumor = paths(axial.svg, "#4cc9f0")
    assert (liver[:, 0].min(), liver[:, 0].max()) == (5 * 8, 35 * 8)
    assert (tumor[:, 0].min(), tumor[:, 0].max()) == (10 * 8, 14 * 8)
    assert (tumor[:, 1].min(), tumor[:, 1].max()) == (10 * 8, 14 * 8)
    _, predicted = paths(axial.svg, "#ffb000")
    assert (predicted[:, 0].min(), predicted[:, 0].max()) == (12 * 8, 16 * 8)


def test_coronal_slices_stand_upright_and_keep_their_proportions():
    """Slice 6 of 10 is nearer to the head; 10 slices of 5 mm are higher than 40 columns of 1 mm are wide."""
    _, coronal = pictures(scene())
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', coronal.svg).groups())
    assert height / width == pytest.approx(50 / 40)
    _, tumor = paths(coronal.svg, "#4cc9f0")
    assert (tumor[:, 1].min(), tumor[:, 1].max()) == (3 * 5 * 8, 4 * 5 * 8)


def test_a_single_image_is_one_picture():
    one = scene()
    (picture,) = pictures(scene(predicted=one.predicted[6], reference=one.reference[6], spacing_mm=(1.0, 1.0)))
    assert picture.caption == "the image"
    assert ">R</text>" not in picture.svg


def test_a_single_voxel_is_shown_with_its_surroundings():
    labels = np.zeros((40, 300, 300), np.uint8)
    labels[20, 150, 150] = 1
    axial, _ = pictures(
        scene(predicted=labels * 0, reference=labels, structures={"tumor": (1,)}, spacing_mm=(2.0, 1.0, 1.0))
    )
    (tumor,) = paths(axial.svg, "#4cc9f0")
    assert np.ptp(tumor[:, 0]) == pytest.approx(320 / 91, abs=0.11)  # one of 91 mm, in tenths
