"""One phantom: reproducible, radiologically right, and its truth is what the voxels say."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.phantom import TUMOR_TYPES, make_case, phantom_case
from nnunet_livseg.data.phantom.layers import TISSUE_CODES
from nnunet_livseg.data.phantom.tissues import TISSUES, TUMOR_TISSUES

SMALL = (20, 36, 40)


@pytest.fixture(scope="module")
def scan():
    """Both phases, all tumor types, fine enough to look into organs."""
    return make_case(3, (72, 128, 144), phases=2, tumors=(5, 5), tumor_diameter_mm=(24, 36))


@pytest.fixture(scope="module")
def noiseless():
    return make_case(3, (72, 128, 144), phases=2, tumors=(5, 5), tumor_diameter_mm=(24, 36), noise_hu=0.0)


def inside(mask, depth=1):
    return ndimage.binary_erosion(mask, iterations=depth)


def test_same_seed_same_voxels_other_seed_other_patient():
    first, second, other = (make_case(seed, SMALL, phases=2) for seed in (5, 5, 6))
    assert np.array_equal(first.image, second.image) and np.array_equal(first.label, second.label)
    assert first.tumors == second.tumors
    assert not np.array_equal(first.label, other.label)


def test_result_does_not_depend_on_the_slabs_it_is_painted_in(monkeypatch):
    whole = make_case(1, SMALL)
    monkeypatch.setattr(phantom_case, "SLAB_VOXELS", 3 * SMALL[1] * SMALL[2])
    slabs = make_case(1, SMALL)
    assert np.array_equal(whole.label, slabs.label)
    assert np.abs(whole.image.astype(int) - slabs.image).max() <= 1


def test_one_phase_is_the_portal_venous_channel_of_two():
    assert np.array_equal(make_case(4, SMALL).image[0], make_case(4, SMALL, phases=2).image[0])


@pytest.mark.parametrize(
    "tissue", ["liver", "spleen", "muscle", "fat", "lung", "gallbladder", "kidney cortex", "spinal canal"]
)
def test_hounsfield_units_of_organs_in_both_phases(scan, tissue):
    mask = scan.tissue == TISSUE_CODES[tissue]
    mask = inside(mask & (scan.lesion == 0), 1)
    assert mask.sum() > 20
    expected = TISSUES[tissue]
    for image, hu in zip(scan.image, (expected.portal, expected.arterial), strict=True):
        assert np.median(image[mask]) == pytest.approx(hu, abs=3 * expected.spread + 6)


def test_aorta_is_brighter_in_the_arterial_phase_and_veins_in_the_portal_phase(scan):
    aorta = inside(scan.tissue == TISSUE_CODES["blood in arteries"])
    portal_vein = scan.tissue == TISSUE_CODES["blood in portal veins"]
    assert np.median(scan.image[1][aorta]) > np.median(scan.image[0][aorta]) + 100
    assert np.median(scan.image[0][portal_vein]) > np.median(scan.image[1][portal_vein]) + 25


@pytest.mark.parametrize("kind", [kind for kind in TUMOR_TYPES if kind != "hemangioma"])  # which has two parts
def test_tumors_have_the_hounsfield_units_of_their_type(noiseless, kind):
    tumor = next(t for t in noiseless.tumors if t.type == kind)
    mask = inside(noiseless.lesion == tumor.lesion)
    values = [image[mask] for image in noiseless.image]
    expected = TUMOR_TISSUES[kind]
    for inner, hu in zip(values, (expected.portal, expected.arterial), strict=True):
        near = np.abs(inner - hu) < 3 * expected.spread + 3 * expected.texture + 6
        assert near.mean() > 0.5


def test_tumor_types_enhance_as_radiology_says(noiseless):
    liver = [np.median(image[noiseless.label == 1]) for image in noiseless.image]
    portal, arterial = ({t.type: t.mean_hu[phase] - liver[phase] for t in noiseless.tumors} for phase in (0, 1))
    assert arterial["FNH"] > 40 and abs(portal["FNH"]) < 25  # bright, then like the liver
    assert arterial["HCC"] > 25 and portal["HCC"] < -8  # bright, then washed out
    assert portal["metastasis"] < -25  # poor in vessels
    assert portal["cyst"] < -75 and arterial["cyst"] < -40
    hemangioma = next(t for t in noiseless.tumors if t.type == "hemangioma")
    mask = noiseless.lesion == hemangioma.lesion
    core, edge = inside(mask, 3), mask & ~inside(mask, 2)
    assert np.median(noiseless.image[1][core]) == pytest.approx(TUMOR_TISSUES["hemangioma"].arterial, abs=20)
    assert np.median(noiseless.image[0][mask]) > 115  # most of it has filled
    assert np.percentile(noiseless.image[1][edge], 90) > noiseless.image[1][core].mean() + 80  # nodules at the edge


def test_case_table_is_what_the_label_map_says(scan):
    voxel_mm3 = float(np.prod(scan.grid.spacing_mm))
    components, count = ndimage.label(scan.label == 2, np.ones((3, 3, 3)))
    assert count == len(scan.tumors) == 5
    for tumor in scan.tumors:
        mask = scan.lesion == tumor.lesion
        assert len(np.unique(components[mask])) == 1
        assert tumor.voxels == mask.sum()
        assert tumor.volume_ml == pytest.approx(mask.sum() * voxel_mm3 / 1000)
        assert np.pi / 6 * tumor.diameter_mm**3 / 1000 == pytest.approx(tumor.volume_ml)
        assert tumor.center_voxel == pytest.approx(ndimage.center_of_mass(mask))
        assert 15 < tumor.diameter_mm < 45
        for image, hu in zip(scan.image, tumor.mean_hu, strict=True):
            assert image[mask].mean() == pytest.approx(hu)
    assert np.array_equal(scan.lesion > 0, scan.label == 2)


def test_label_map_fits_the_image(noiseless):
    cyst = next(t for t in noiseless.tumors if t.type == "cyst")
    mask = noiseless.lesion == cyst.lesion
    ring = ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_dilation(mask) & (noiseless.label == 1)
    assert noiseless.image[0][inside(mask)].max() < 40 < np.percentile(noiseless.image[0][ring], 2)
    bones = noiseless.image[0] > 350
    assert not (bones & (noiseless.label > 0)).any()
    assert not ((noiseless.image[0] < -300) & inside(noiseless.label > 0)).any()


def test_tumors_lie_in_the_liver(scan):
    liver = ndimage.binary_dilation(scan.label == 1, iterations=1)
    for tumor in scan.tumors:
        shell = ndimage.binary_dilation(scan.lesion == tumor.lesion) & (scan.lesion == 0)
        assert liver[shell].mean() > 0.75


def test_patient_lies_on_the_back_with_the_liver_on_the_right(scan):
    def center_mm(mask):
        index = ndimage.center_of_mass(mask)
        return [o + i * s for o, i, s in zip(scan.grid.origin_mm, index, scan.grid.spacing_mm, strict=True)]

    def of(name):
        return center_mm(scan.tissue == TISSUE_CODES[name])

    liver, spleen, marrow, lung = center_mm(scan.label > 0), of("spleen"), of("spinal canal"), of("lung")
    assert liver[2] < -25 < 50 < spleen[2]  # x runs to the patient's left
    assert marrow[1] > liver[1] + 40  # y to the back
    assert lung[0] > liver[0] + 40  # z to the head
    assert 900 < (scan.label > 0).sum() * scan.grid.voxel_ml < 2600


def test_another_grid_samples_the_same_patient():
    fine = make_case(8, (96, 144, 160), (2.4, 2.4, 2.4), tumor_diameter_mm=(20, 40))
    thick = make_case(8, (48, 96, 106), (4.8, 3.6, 3.6226415), tumor_diameter_mm=(20, 40))
    liver_fine, liver_thick = ((c.label > 0).sum() * c.grid.voxel_ml for c in (fine, thick))
    assert liver_thick == pytest.approx(liver_fine, rel=0.03)
    assert [t.type for t in fine.tumors] == [t.type for t in thick.tumors]
    for a, b in zip(fine.tumors, thick.tumors, strict=True):
        assert b.volume_ml == pytest.approx(a.volume_ml, rel=0.15)
        assert b.center_mm == pytest.approx(a.center_mm, abs=2.0)


def test_boundaries_have_values_between_the_tissues(noiseless):
    cyst = next(t for t in noiseless.tumors if t.type == "cyst")
    mask = noiseless.lesion == cyst.lesion
    edge = ndimage.binary_dilation(mask) & ~inside(mask) & (noiseless.label > 0)
    between = (noiseless.image[0][edge] > 25) & (noiseless.image[0][edge] < 85)
    assert between.mean() > 0.3


def test_arterial_only_tumors_leave_no_trace_in_the_portal_phase():
    options = {"size": (40, 64, 64), "phases": 2, "noise_hu": 0.0}
    without = make_case(2, tumors=(0, 0), **options)
    hidden = make_case(2, tumors=(3, 3), arterial_only=1.0, tumor_diameter_mm=(20, 40), **options)
    assert np.array_equal(without.image[0], hidden.image[0])
    assert {t.visible_in for t in hidden.tumors} == {"arterial phase"}
    gain = (hidden.image[1].astype(int) - without.image[1])[inside(hidden.label == 2)]
    assert gain.mean() == pytest.approx(60, abs=20)
    assert without.tumors == [] and not (without.label == 2).any()


def test_every_type_is_used_once_before_one_is_used_twice():
    found = [t.type for t in make_case(0, (40, 64, 64), tumors=(4, 4), tumor_types=("cyst", "HCC")).tumors]
    assert sorted(found) == ["HCC", "HCC", "cyst", "cyst"]


@pytest.mark.parametrize(
    ("size", "spacing_mm"),
    [((16, 24, 24), None), ((17, 61, 33), None), ((80, 96, 96), (1.5, 1.5, 1.5)), ((30, 128, 128), (7.0, 1.2, 1.2))],
)
def test_any_grid_shows_liver_and_tumor(size, spacing_mm):
    found = make_case(0, size, spacing_mm, tumor_diameter_mm=(24, 40))
    assert found.image.shape == (1, *size)
    assert set(np.unique(found.label)) == {0, 1, 2}
    assert found.image.min() < -900


def test_noise_is_grainy_and_thin_slices_are_noisier():
    def noise(size, spacing):
        pair = [make_case(0, size, spacing, noise_hu=hu, tumors=(0, 0)) for hu in (10.0, 0.0)]
        difference = (pair[0].image[0].astype(float) - pair[1].image[0])[pair[1].label == 1]
        return difference.std(), pair

    thick, _ = noise((24, 96, 96), (8.0, 2.0, 2.0))
    thin, pair = noise((44, 160, 160), (1.5, 0.75, 0.75))
    assert thin > 1.3 * thick > 0
    field = pair[0].image[0].astype(float) - pair[1].image[0]
    field = np.where(pair[1].label == 1, field, 0)
    neighbors = (field[:, :, 1:] * field[:, :, :-1]).sum() / (field**2).sum()
    slices = (field[1:] * field[:-1]).sum() / (field**2).sum()
    assert neighbors > 0.15 > 0.05 > abs(slices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (8, 64, 64)}, r"size is \(8, 64, 64\) voxels .* too small to show a liver"),
        ({"size": SMALL, "spacing_mm": (5.0, 0.0, 5.0)}, r"spacing is \(5.0, 0.0, 5.0\) mm.*above 0"),
        ({"size": SMALL, "spacing_mm": (5.0, -1.0, 5.0)}, "above 0 and at most 16 mm"),
        ({"size": SMALL, "spacing_mm": (1.0, 1.0, 1.0)}, "cover 20 x 36 x 40 mm, too little"),
        ({"size": SMALL, "spacing_mm": (float("nan"), 5.0, 5.0)}, "above 0"),
        ({"size": SMALL, "phases": 3}, "3 phases were asked for"),
        ({"size": SMALL, "tumors": (4, 2)}, "number of tumors is 4 to 2"),
        ({"size": SMALL, "tumor_types": ("adenoma",)}, "no tumor type 'adenoma'. The phantom has cyst, FNH"),
        ({"size": SMALL, "tumor_types": ()}, "no tumor type is named"),
        ({"size": SMALL, "tumor_diameter_mm": (40.0, 20.0)}, "tumor diameters are"),
        ({"size": SMALL, "arterial_only": 1.5}, "share of arterial-only tumors is 1.5"),
        ({"size": SMALL, "noise_hu": -1.0}, "noise is -1.0 HU"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        make_case(0, **arguments)


def test_the_table_in_the_docs_is_the_table_in_the_code():
    docs = Path(__file__).parents[2] / "docs" / "phantom.md"
    if not docs.is_file():
        pytest.skip("the docs are not beside the tests")
    rows = re.findall(r"^\| ([^|]+) \| (-?\d+) \| (-?\d+) \|", docs.read_text(encoding="utf-8"), re.MULTILINE)
    written = {name: (float(portal), float(arterial)) for name, portal, arterial in rows}
    known = {name: (t.portal, t.arterial) for name, t in {**TISSUES, **TUMOR_TISSUES}.items()}
    assert written == {name: known[name] for name in written}
    assert written.keys() >= TUMOR_TISSUES.keys()
