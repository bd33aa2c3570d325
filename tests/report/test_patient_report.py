"""The report of one patient: whole, with the measured numbers, and silent about whose they are."""

import dataclasses
import re

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_livseg.data.dicom.reading import SeriesInfo
from nnunet_livseg.report.patient_report import report_html, write_preview, write_report

from .virtual_patient import LESIONS, figures, numbers_in, pixels, scan, section, segmented


@pytest.fixture(scope="module")
def html(upright):
    return report_html(upright)


# ---- numbers


def test_the_tables_hold_the_measurements(html, upright):
    rows = re.findall(r"<tr><td>(.*?)</td></tr>", section(html, "Lesions"))
    lesions = upright.measurements.lesions
    assert len(rows) == len(lesions) == 2
    for row, lesion in zip(rows, lesions, strict=True):
        number, volume, diameter, axial, index, density, _, confidence, agreement = re.sub(r"</?i>", "", row).split(
            "</td><td>"
        )
        assert number == f'<a href="#slice-{lesion.axial_diameter.slice_index}">{lesion.number}</a>'
        assert float(volume) == pytest.approx(lesion.volume_ml, rel=5e-3)
        assert float(diameter) == pytest.approx(lesion.diameter.length_mm, abs=0.05)
        assert float(axial) == pytest.approx(lesion.axial_diameter.length_mm, abs=0.05)
        assert int(index) == lesion.axial_diameter.slice_index
        assert density == f"{lesion.mean_hu:.0f} ± {lesion.sd_hu:.0f}"
        assert (confidence, agreement) == ("75%", "75%")
    assert f"<td>{upright.measurements.liver_ml:.1f}</td>" in section(html, "Structures")


def test_places_are_in_the_patients_directions(html):
    first, second = re.findall(r"<td>([RL] \d+ [AP] \d+ [SI] \d+)</td>", html)
    for text, wanted in zip((first, second), ("R 62 A 18 S 20", "R 22 P 14 I 18"), strict=True):
        assert text.split()[::2] == wanted.split()[::2]
        assert [int(n) for n in text.split()[1::2]] == pytest.approx([int(n) for n in wanted.split()[1::2]], abs=1)


def test_key_figures(html, upright):
    found = upright.measurements
    assert f"<dd>{found.liver_ml:.1f}" in html
    assert f"<dd>{found.tumor_burden:.1%}" in html
    assert f"<dd>{found.lesions[0].diameter.length_mm:.1f}<small>mm, lesion 1" in html


# ---- the page


def test_the_page_is_whole_and_says_once_what_it_is_not_for(check, html):
    text = check(html)
    assert text.count("Not for clinical use.") == 1
    assert "Not for clinical use." in html[html.index("<footer>") :]
    assert "DPCNetTrainer__DPCNetPlans__3d_fullres" in text
    assert "folds 0, 1" in text
    assert "Mind" not in text


def test_names_are_escaped(check, upright):
    evil = dataclasses.replace(upright, name="<script>alert(1)</script>", notes=("<b>&",))
    html = report_html(evil, identifiers={"Patient <": "Doe & Son"})
    check(html)
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;&amp;" in html
    assert "Doe &amp; Son" in html


def test_the_patient_is_named_only_on_demand(check, upright):
    series = SeriesInfo("1.2.3", "1.2", "4", "DOE JANE liver", "portal venous", "", (), (), ("12 slices were read",))
    read = dataclasses.replace(upright, series=series)
    text = check(report_html(read))
    assert "portal venous phase (guessed)" in text
    assert "12 slices were read" in text
    assert "DOE" not in text
    assert "1.2.3" not in text
    named = check(report_html(read, identifiers={"Patient": "Jane Doe"}))
    assert "DOE JANE liver" in named
    assert "Jane Doe" in named


def test_report_and_preview_are_written_whole(check, upright, tmp_path):
    assert write_report(upright, tmp_path) == tmp_path / "report.html"
    assert write_report(upright, tmp_path / "other.html") == tmp_path / "other.html"
    assert write_preview(upright, tmp_path) == tmp_path / "preview.png"
    check((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.html", "preview.png", "report.html"]
    preview = np.array(Image.open(tmp_path / "preview.png").convert("RGB")).astype(int)
    assert preview.shape[0] == 420
    assert 900 < preview.shape[1] < 2000
    third = preview.shape[1] // 3
    for part, least in ((preview[:, :third], 200), (preview[:, -third:], 2000)):  # outlines, then the solid
        orange = (part[..., 0] > 150) & (part[..., 2] < 110) & (part[..., 1] > 90)
        assert orange.sum() > least


# ---- unusual patients


def test_sixty_lesions_are_all_in_the_table_and_the_largest_have_pictures(check):
    rng = np.random.default_rng(0)
    image, labels = scan(lesions=())
    array = sitk.GetArrayFromImage(labels)
    free = np.argwhere(array[1:-2, 1:-2, 1:-2] == 1)[rng.permutation((array[1:-2, 1:-2, 1:-2] == 1).sum())] + 1
    chosen = []
    for voxel in free:
        if all(np.abs(voxel - other).max() > 3 for other in chosen):
            chosen.append(voxel)
        if len(chosen) == 60:
            break
    for rank, (z, y, x) in enumerate(chosen):
        array[z : z + 1 + rank % 2, y : y + 2, x : x + 1 + rank % 3 // 2] = 2
    crowded = sitk.GetImageFromArray(array)
    crowded.CopyInformation(labels)
    html = report_html(segmented(image, crowded))
    text = check(html)
    opened, folded = section(html, "Lesions").split("<details><summary>Lesions 21 to 60</summary>")
    assert (opened.count("<tr><td>"), folded.count("<tr><td>")) == (20, 40)
    titles = [int(n) for n in re.findall(r"<h3>Lesion (\d+):", html)]
    assert titles == list(range(1, 13))
    assert "the 12 largest of 60 lesions" in text
    front = numbers_in(figures(section(html, "Seen from outside"))[0])
    assert sorted(front) == list(range(1, 13))
    places = np.array(list(front.values()))
    apart = np.abs(places[:, None] - places[None]) / [8, 14]  # letters are 8 wide and 14 high
    assert (apart.max(axis=-1)[np.triu_indices(12, 1)] >= 1).all()


def test_nothing_found(check):
    image, labels = scan(lesions=())
    text = check(report_html(segmented(image, labels * 0)))
    assert "No liver found" in text
    assert "The model found no tumor" in text
    assert "Seen from outside" not in text
    assert "axial, slice 30" in text


def test_no_lesion_shows_the_liver(check):
    html = report_html(segmented(*scan(lesions=())))
    assert "The model found no tumor" in check(html)
    assert len(figures(section(html, "Key slices"))) == 2
    assert "longest diameter" not in section(html, "Key slices")


def test_a_model_without_tumors_or_without_liver_says_so(check):
    image, labels = scan()
    liver_only = check(report_html(segmented(image, labels, structures={"liver": (1, 2)})))
    assert "No label for tumors" in liver_only
    assert "Lesions" not in liver_only
    tumor_only = check(report_html(segmented(image, labels, structures={"tumor": (2,)})))
    assert "No label for the liver" in tumor_only
    assert "Tumor burden" not in tumor_only


def test_a_liver_at_the_border_is_called_cut_off(check):
    text = check(report_html(segmented(*scan(size=(70, 64, 27)))))
    assert "Liver cut off" in text
    assert "Tumor cut off" not in text


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_has_one_picture(check, tmp_path, axis):
    size = [70, 64, 60]
    size[axis] = 1
    thin = segmented(*scan(size=size, center_mm=LESIONS[0][0]))
    html = report_html(thin)
    check(html)
    assert len(figures(section(html, "Key slices"))) == 1
    assert "Seen from outside" not in html
    write_preview(thin, tmp_path)


@pytest.mark.parametrize("size", [(2, 2, 40), (2, 40, 2), (40, 2, 2)])
def test_an_extremely_narrow_image_has_a_preview(tmp_path, size):
    image, labels = scan(size=size, spacing_mm=(0.7, 0.8, 2.5), center_mm=LESIONS[0][0])
    narrow = segmented(image, sitk.Maximum(labels, 1))  # liver to its ends, so that pictures show all of it
    with Image.open(write_preview(narrow, tmp_path)) as preview:
        assert preview.height == 420


def test_values_that_are_no_hounsfield_units_are_shown_with_a_warning(check):
    image, labels = scan()
    gray = sitk.Cast(sitk.RescaleIntensity(image, 0, 255), sitk.sitkUInt8)
    result = segmented(gray, labels)
    html = report_html(result)
    assert "Probably not in Hounsfield units" in check(html)
    seen, _ = pixels(figures(section(html, "Key slices"))[0])
    assert seen.std() > 20


def test_no_uncertainty_is_said_or_left_out(html):
    image, labels = scan()
    certain = segmented(image, labels, uncertainty=sitk.Cast(labels, sitk.sitkFloat32) * 0)
    assert "Nowhere in this CT" in report_html(certain)
    assert "ncertainty" not in html
