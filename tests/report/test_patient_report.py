"""The report of one patient: the same virtual patient, scanned in any direction, must look the same."""

import base64
import dataclasses
import io
import math
import re

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_livseg.data.dicom.reading import SeriesInfo
from nnunet_livseg.patient.measure import measure
from nnunet_livseg.patient.result import Provenance, Segmentation
from nnunet_livseg.report.key_slices import KeySlices
from nnunet_livseg.report.patient import report_html, write_preview, write_report

STRUCTURES = {"liver": (1, 2), "tumor": (2,)}
MADE = Provenance(
    "Dataset003_Liver/DPCNetTrainer__DPCNetPlans__3d_fullres", ("0", "1"), "checkpoint_final.pth", "standard",
    {"mirroring": "on"}, "cpu", 12.3, {"nnunetv2": "2.8.1"},
)  # fmt: skip

# LPS mm and HU: the liver lies on the right; lesion 1 in front, on the right and above lesion 2
LIVER, LIVER_MM, LIVER_HU = (-40, 0, 0), (62, 50, 55), 100
LESIONS = (((-62, -18, 20), 16, 200), ((-22, 14, -18), 10, 30))
STOMACH = (60, -10, 20)  # full of contrast medium, on the left

UPRIGHT = np.eye(3)
TURN = np.array([[math.cos(0.3), -math.sin(0.3), 0], [math.sin(0.3), math.cos(0.3), 0], [0, 0, 1]])
TILT = np.array([[1, 0, 0], [0, math.cos(0.2), -math.sin(0.2)], [0, math.sin(0.2), math.cos(0.2)]])
CORONAL_SCAN = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # columns to the left, rows to the feet, slices to the back
DIRECTIONS = {
    "upright": UPRIGHT,
    "ras": np.diag([-1, -1, 1]),
    "head first": np.diag([1, 1, -1]) @ np.diag([1, -1, 1]),
    "oblique": TURN @ TILT,
    "oblique and flipped": TURN @ TILT @ np.diag([-1, 1, -1]),
    "coronal scan": CORONAL_SCAN,
}


def scan(direction=UPRIGHT, *, size=(70, 64, 60), spacing_mm=(3.0, 3.2, 3.5), lesions=LESIONS, center_mm=(0, 0, 0)):
    """CT and label map (2 tumor) of the virtual patient; size and spacing (x, y, z) of the image's own axes."""
    image = sitk.Image(size, sitk.sitkInt16)
    image.SetSpacing(spacing_mm)
    image.SetDirection(np.asarray(direction, float).ravel().tolist())
    half = (np.array(size) - 1) * spacing_mm / 2
    image.SetOrigin((np.array(center_mm) - direction @ half).tolist())
    index = np.indices(size).reshape(3, -1)
    points = (direction @ (index * np.array(spacing_mm)[:, None]) + np.array(image.GetOrigin())[:, None]).T

    def within(center, radii):
        return (np.square((points - center) / radii).sum(axis=1) < 1).reshape(size).T

    hu = np.where(within((0, 0, 0), (110, 90, 200)), 0, -1000).astype(np.int16)
    hu[within(STOMACH, (28, 60, 28))] = 1000
    labels = within(LIVER, LIVER_MM).astype(np.uint8)
    hu[labels > 0] = LIVER_HU
    for center, radius, density in lesions:
        labels[within(center, radius)], hu[within(center, radius)] = 2, density
    found = []
    for array in (hu, labels):
        found.append(sitk.GetImageFromArray(array))
        found[-1].CopyInformation(image)
    return found


def segmented(image, labels, *, structures=STRUCTURES, name="case_001", probability=None, **more):
    measurements, lesions = measure(image, labels, structures, tumor_probability=probability, tumor_votes=probability)
    return Segmentation(name, image, labels, structures, lesions, measurements, MADE, **more)


@pytest.fixture(scope="module", params=DIRECTIONS)
def turned(request):
    return segmented(*scan(DIRECTIONS[request.param]))


@pytest.fixture(scope="module")
def upright():
    image, labels = scan()
    certain = np.where(sitk.GetArrayViewFromImage(labels) == 2, 0.75, 0).astype(np.float32)
    return segmented(image, labels, probability=certain)


@pytest.fixture(scope="module")
def html(upright):
    return report_html(upright)


def outline(svg, structure):
    """Corners of an outline (n, 2), (x, y) in the picture's units."""
    (path,) = re.findall(rf'<path d="([^"]+)"[^>]*data-structure="{structure}"', svg)
    return np.array(re.findall(r"([\d.-]+) ([\d.-]+)", path), dtype=float)


def middle(points):
    return (points.min(axis=0) + points.max(axis=0)) / 2


def pixels(svg):
    """The PNG of a picture, and the units per pixel (x, y)."""
    found = np.array(Image.open(io.BytesIO(base64.b64decode(re.search(r'base64,([^"]+)"', svg)[1]))).convert("RGB"))
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    return found, np.array([width / found.shape[1], height / found.shape[0]])


def numbers_in(svg):
    """Where the lesions' numbers stand, (x, y)."""
    found = re.findall(r'<text x="([\d.-]+)" y="([\d.-]+)"[^>]*>(\d+)</text>', svg)
    return {int(text): np.array([float(x), float(y)]) for x, y, text in found}


def section(html, title):
    return re.search(rf"<h2>{title}</h2>.*?</section>", html, re.DOTALL)[0]


def figures(html):
    return re.findall(r"<svg.*?</svg>", html, re.DOTALL)


# ---- left, right, up and down


def test_the_patient_looks_the_same_however_it_was_scanned(turned):
    axial, coronal = (one.picture.svg() for one in KeySlices(turned).of_lesion(turned.measurements.lesions[0]))
    for svg in (axial, coronal):  # lesion 1 lies on the right, in front and above: left of the liver's middle and upper
        assert (middle(outline(svg, "lesion 1")) < middle(outline(svg, "liver")) - 5).all()
    for svg in (axial, coronal):
        seen, scale = pixels(svg)
        stomach = np.argwhere(seen[..., 0] > 250)[:, ::-1] * scale
        assert stomach[:, 0].min() > middle(outline(svg, "liver"))[0] + 60


def test_outlines_lie_around_what_the_ct_shows(turned):
    for one in KeySlices(turned).of_lesion(turned.measurements.lesions[0]):
        svg = one.picture.svg()
        seen, scale = pixels(svg)
        bright = np.argwhere((seen[..., 0] > 200) & (seen[..., 0] < 250))[:, ::-1]  # lesion 1 alone has 200 HU
        corners = outline(svg, "lesion 1") / scale
        assert corners.min(axis=0) == pytest.approx(bright.min(axis=0), abs=0.1)
        assert corners.max(axis=0) == pytest.approx(bright.max(axis=0) + 1, abs=0.1)


def test_pictures_keep_the_patients_proportions(turned):
    """Lesion 1 is a ball of 32 mm, cut within half a voxel of its middle."""
    for one in KeySlices(turned).of_lesion(turned.measurements.lesions[0]):
        svg = one.picture.svg()
        length_mm, units = re.search(r'h([\d.]+)" stroke="#e8edf2".*?>(\d+) mm<', svg).groups()[::-1]
        extent_mm = np.ptp(outline(svg, "lesion 1"), axis=0) / float(units) * float(length_mm)
        assert extent_mm == pytest.approx([32, 32], abs=4)


def test_one_slice_is_the_measured_one_and_the_diameter_lies_in_it(turned):
    lesion = turned.measurements.lesions[0]
    slices = KeySlices(turned)
    keys = list(slices.of_lesion(lesion))
    (key,) = [one for one in keys if f"slice {lesion.axial_diameter.slice_index}" in one.caption]
    assert key.caption.startswith("axial" if slices.view.slices_are_axial else "coronal")
    drawn = [re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"[^>]*"#ffffff"', one.picture.svg())
             for one in keys]  # fmt: skip
    assert [len(lines) for lines in drawn] == [int(one is key) for one in keys]
    ends = np.array(sum(drawn, [])[0], dtype=float).reshape(2, 2)
    _, scale = pixels(key.picture.svg())
    length_mm = np.linalg.norm((ends[1] - ends[0]) / scale * key.picture.spacing[::-1])
    assert length_mm == pytest.approx(lesion.axial_diameter.length_mm, abs=0.1)
    corners = outline(key.picture.svg(), "lesion 1")
    for end in ends:
        assert np.linalg.norm(corners - end, axis=1).min() < scale.max()


def test_the_projections_show_the_lesions_in_their_places(turned):
    """Lesion 1 is right of, in front of and above lesion 2."""
    front, right, below = map(numbers_in, figures(section(report_html(turned), "Seen from outside")))
    assert (front[1] < front[2] - 10).all()
    assert right[1][0] > right[2][0] + 10  # seen from the right, front is on the right
    assert right[1][1] < right[2][1] - 10
    assert (below[1] < below[2] - 10).all()


def test_lesions_shine_through_where_their_numbers_stand(upright):
    front, *_ = figures(section(report_html(upright), "Seen from outside"))
    seen, scale = pixels(front)
    redness = seen[..., 0].astype(int) - seen[..., 2]
    for number, place in numbers_in(front).items():
        column, row = ((place - [0, 4.7]) / scale).astype(int)  # a text stands on its lower edge
        assert redness[row, column] > 0, number
    liver = seen[(seen < 250).any(axis=-1)].astype(int)
    assert (liver[:, 2] > liver[:, 0]).mean() > 0.6  # most of it is blue


def test_a_lesion_of_one_voxel_is_seen_in_the_projection():
    image, labels = scan(lesions=())
    x, y, z = labels.TransformPhysicalPointToIndex((-40, -35, 0))
    labels[x, y, z] = 2
    found = report_html(segmented(image, labels))
    seen, _ = pixels(figures(section(found, "Seen from outside"))[0])
    assert (seen[..., 0].astype(int) > seen[..., 2]).sum() > 4


# ---- numbers


def test_the_tables_hold_the_measurements(html, upright):
    rows = re.findall(r"<tr><td>(.*?)</td></tr>", section(html, "Lesions"))
    lesions = upright.measurements.lesions
    assert len(rows) == len(lesions) == 2
    for row, lesion in zip(rows, lesions, strict=True):
        number, volume, diameter, axial, index, density, _, confidence, agreement = re.sub(r"</?i>", "", row).split(
            "</td><td>"
        )
        assert int(number) == lesion.number
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
    assert len(re.findall(r"<tr><td>", section(html, "Lesions"))) == 60
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


def test_thick_slices_keep_their_height():
    thick = segmented(*scan(size=(140, 128, 25), spacing_mm=(1.5, 1.6, 8.0)))
    _, coronal = (one.picture for one in KeySlices(thick).of_lesion(thick.measurements.lesions[0]))
    rows, columns = coronal.pixels.shape
    assert coronal.height / 320 == pytest.approx(rows * 8.0 / (columns * 1.5))


def test_values_that_are_no_hounsfield_units_are_shown_with_a_warning(check):
    image, labels = scan()
    grey = sitk.Cast(sitk.RescaleIntensity(image, 0, 255), sitk.sitkUInt8)
    result = segmented(grey, labels)
    html = report_html(result)
    assert "Probably not in Hounsfield units" in check(html)
    seen, _ = pixels(figures(section(html, "Key slices"))[0])
    assert seen.std() > 20


def test_uncertainty_is_shown_in_the_slice_that_holds_most_of_it(check):
    image, labels = scan(DIRECTIONS["oblique and flipped"])
    uncertainty = sitk.Cast(labels, sitk.sitkFloat32) * 0
    uncertainty[20:30, 20:30, 40] = 0.9
    uncertainty[30:32, 30:32, 10] = 1.0
    doubtful = segmented(image, labels, uncertainty=uncertainty)
    html = report_html(doubtful)
    assert "entropy of the averaged prediction, from 0" in check(html)
    html = section(html, "Uncertainty")
    assert "axial, slice 40" in html
    seen, _ = pixels(figures(html)[0])
    coloured = np.ptp(seen.astype(int), axis=-1) > 60
    assert coloured.sum() == 100  # ten by ten pixels
    assert len(figures(html)) == 2  # the slice and its scale


def test_no_uncertainty_is_said_or_left_out(html):
    image, labels = scan()
    certain = segmented(image, labels, uncertainty=sitk.Cast(labels, sitk.sitkFloat32) * 0)
    assert "Nowhere in this CT" in report_html(certain)
    assert "ncertainty" not in html
