"""Pictures of one patient: the same virtual patient, scanned in any direction, must look the same."""

import re

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.report.key_slices import KeySlices
from nnunet_livseg.report.patient_report import report_html

from .virtual_patient import (
    DIRECTIONS,
    figures,
    measured_lines,
    middle,
    numbers_in,
    outline,
    pixels,
    scan,
    section,
    segmented,
)


@pytest.fixture(scope="module", params=DIRECTIONS)
def turned(request):
    return segmented(*scan(DIRECTIONS[request.param]))


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
        bar = r'd="M([\d.]+) [\d.]+L([\d.]+) [\d.]+" fill="none" stroke="#e8edf2"[^>]*><text[^>]*>(\d+) mm<'
        start, end, length_mm = map(float, re.search(bar, svg).groups())
        extent_mm = np.ptp(outline(svg, "lesion 1"), axis=0) / (end - start) * length_mm
        assert extent_mm == pytest.approx([32, 32], abs=4)


def test_one_slice_is_the_measured_one_and_the_diameter_lies_in_it(turned):
    lesion = turned.measurements.lesions[0]
    keys = list(KeySlices(turned).of_lesion(lesion))
    (key,) = [one for one in keys if one.caption.startswith("axial")]
    assert key.caption.endswith(f" {lesion.axial_diameter.slice_index}")
    (line,) = measured_lines(key.picture.svg())
    assert all(measured_lines(one.picture.svg()) == [] for one in keys if one is not key)
    ends = np.array(line, dtype=float).reshape(2, 2)
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


def test_thick_slices_keep_their_height():
    thick = segmented(*scan(size=(140, 128, 25), spacing_mm=(1.5, 1.6, 8.0)))
    _, coronal = (one.picture for one in KeySlices(thick).of_lesion(thick.measurements.lesions[0]))
    rows, columns = coronal.pixels.shape
    assert coronal.height / 320 == pytest.approx(rows * 8.0 / (columns * 1.5))


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
    colored = np.ptp(seen.astype(int), axis=-1) > 60
    assert colored.sum() == 100  # ten by ten pixels
    assert len(figures(html)) == 2  # the slice and its scale
