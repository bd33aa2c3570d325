"""Each step against its definition, written out voxel by voxel without shared code."""

import itertools
from collections import deque

import numpy as np
import pytest
from scipy import ndimage

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import Structures, structures_from_labels, structures_from_values
from nnunet_livseg.postprocessing import LargestLiver, SmallestLesion, TumorInLiver, apply, parse_step
from nnunet_livseg.postprocessing.steps import as_dict, as_text, from_dict

BOTH = structures_from_values((1,), (2,))
SPACING_MM = (5.0, 0.8, 0.7)


def random_labels(seed, ndim):
    """Liver and tumor in pieces, some at the image's border, with a third structure 3 between them."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((9, 14, 17)[-ndim:]), 1.1)
    labels = np.digitize(noise, np.quantile(noise, [0.6, 0.8])).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.04] = 2
    labels[rng.random(labels.shape) < 0.04] = 3
    return labels


def faces(index, shape):
    for axis, step in itertools.product(range(len(shape)), (-1, 1)):
        other = list(index)
        other[axis] += step
        if 0 <= other[axis] < shape[axis]:
            yield axis, tuple(other)


def corners(index, shape):
    for step in itertools.product((-1, 0, 1), repeat=len(shape)):
        other = tuple(i + s for i, s in zip(index, step, strict=True))
        if any(step) and all(0 <= o < n for o, n in zip(other, shape, strict=True)):
            yield None, other


def parts(labels, values, neighbors):
    """Sets of voxels that hang together, in the order of their first voxel."""
    left = {index for index in np.ndindex(labels.shape) if labels[index] in values}
    found = []
    for start in np.ndindex(labels.shape):
        if start not in left:
            continue
        left.remove(start)
        part, queue = {start}, deque([start])
        while queue:
            for _, other in neighbors(queue.popleft(), labels.shape):
                if other in left:
                    left.remove(other)
                    part.add(other)
                    queue.append(other)
        found.append(part)
    return found


def main_liver(labels):
    return max(parts(labels, {1, 2}, corners), key=len)


def area(axis, spacing):
    return np.prod([s for i, s in enumerate(spacing) if i != axis])


def brute_largest_liver(labels, spacing):
    kept = main_liver(labels)
    return np.array([v if v == 3 or i in kept else 0 for i, v in np.ndenumerate(labels)]).reshape(labels.shape)


def brute_tumor_in_liver(labels, spacing, share):
    result, organ = labels.copy(), {i for i in main_liver(labels) if labels[i] == 1}
    for tumor in parts(labels, {2}, faces):
        touching = around = 0.0
        for index in tumor:
            for axis, other in faces(index, labels.shape):
                around += area(axis, spacing) * (other not in tumor)
                touching += area(axis, spacing) * (other in organ)
        if touching == 0 or touching / around < share:
            for index in tumor:
                result[index] = 0
    return result


def brute_smallest_lesion(labels, spacing, volume):
    result = labels.copy()
    for tumor in parts(labels, {2}, faces):
        if len(tumor) * np.prod(spacing) < volume:
            liver = any(labels[other] == 1 for index in tumor for _, other in faces(index, labels.shape))
            for index in tumor:
                result[index] = 1 if liver else 0
    return result


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_steps_do_what_they_say(seed, ndim):
    labels, spacing = random_labels(seed, ndim), SPACING_MM[-ndim:]
    voxel = float(np.prod(spacing))
    expected = {
        LargestLiver(): brute_largest_liver(labels, spacing),
        TumorInLiver(): brute_tumor_in_liver(labels, spacing, 0.0),
        TumorInLiver(0.37): brute_tumor_in_liver(labels, spacing, 0.37),
        SmallestLesion(3.5 * voxel): brute_smallest_lesion(labels, spacing, 3.5 * voxel),
    }
    before = labels.copy()
    for step, wanted in expected.items():
        found, changes = apply(labels, spacing, BOTH, [step])
        np.testing.assert_array_equal(found, wanted, err_msg=as_text(step))
        assert not np.array_equal(wanted, labels), "the drawing does not test this step"
        assert found.dtype == labels.dtype
        n_changed = int((found != labels).sum())
        assert len(changes) == 1 and changes[0].startswith(as_text(step)) and f"({n_changed} voxel" in changes[0]
    np.testing.assert_array_equal(labels, before)  # the input stays


@pytest.mark.parametrize("seed", range(3))
def test_steps_follow_each_other_in_the_order_given(seed):
    labels = random_labels(seed, 3)
    first, _ = apply(labels, SPACING_MM, BOTH, [SmallestLesion(20.0)])
    second, _ = apply(first, SPACING_MM, BOTH, [LargestLiver()])
    np.testing.assert_array_equal(apply(labels, SPACING_MM, BOTH, [SmallestLesion(20.0), LargestLiver()])[0], second)


def test_the_surface_is_measured_in_mm_not_in_voxels():
    """On thick slices the faces within the slice are narrow, those above and below are wide or the reverse."""
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[2, 2, 2], labels[1, 2, 2], labels[0] = 2, 1, 1  # healthy liver above it only
    share = 1 / (1 + 1 + 4 * 5)  # voxels of 1 x 1 x 5 mm: two faces of 1 mm2, four of 5 mm2
    found, _ = apply(labels, (5.0, 1.0, 1.0), BOTH, [TumorInLiver(share - 1e-6)])
    assert found[2, 2, 2] == 2
    found, _ = apply(labels, (5.0, 1.0, 1.0), BOTH, [TumorInLiver(share + 1e-6)])
    assert found[2, 2, 2] == 0


def test_a_tumor_in_a_false_piece_of_liver_goes_although_it_touches_that():
    labels = np.zeros((3, 6, 20), np.uint8)
    labels[:, :, :9], labels[1, 2:4, 3:5] = 1, 2
    labels[:, :, 14:], labels[1, 3, 16] = 1, 2
    found, changes = apply(labels, (1.0, 1.0, 1.0), BOTH, [TumorInLiver()])
    assert (found[1, 2:4, 3:5] == 2).all() and found[1, 3, 16] == 0
    assert (found[:, :, 14:].sum()) == 3 * 6 * 6 - 1  # the liver piece itself stays
    assert changes == ["tumor-in-liver=0: 1 tumor outside the liver became background (1 voxel)"]


def test_where_no_healthy_liver_was_predicted_tumors_stay():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1:3, 1:3, 1:3] = 2
    found, changes = apply(labels, (1.0, 1.0, 1.0), BOTH, [TumorInLiver(0.5)])
    np.testing.assert_array_equal(found, labels)
    assert changes == []


def test_a_lesion_of_the_smallest_volume_stays():
    labels = np.ones((4, 6, 6), np.uint8)
    labels[1, 1, 1:4] = 2
    assert (apply(labels, (2.0, 5.0, 1.0), BOTH, [SmallestLesion(30.0)])[0] == labels).all()
    assert (apply(labels, (2.0, 5.0, 1.0), BOTH, [SmallestLesion(30.1)])[0] == 1).all()


@pytest.mark.parametrize(("most", "least"), [(4, 7), (7, 4)])
def test_small_lesions_take_the_liver_value_that_they_border_most(most, least):
    """Liver segments 4 and 7, tumor 9."""
    labels = np.full((3, 3, 6), least, np.uint8)
    labels[:, :, 3:] = most
    labels[1, 1, 3] = 9  # five faces to one segment, one to the other
    structures = Structures({"liver": (4, 7, 9), "tumor": (9,)})
    found, _ = apply(labels, (1.0, 1.0, 1.0), structures, [SmallestLesion(5.0)])
    assert found[1, 1, 3] == most


def test_regions_of_nnunet_are_understood():
    structures = structures_from_labels({"background": 0, "liver": [1, 2], "tumor": 2})
    labels = random_labels(1, 3)
    for step in (LargestLiver(), TumorInLiver(), SmallestLesion(30.0)):
        expected, _ = apply(labels, SPACING_MM, BOTH, [step])
        np.testing.assert_array_equal(apply(labels, SPACING_MM, structures, [step])[0], expected)


@pytest.mark.parametrize("value", [0, 1, 2])
@pytest.mark.parametrize("ndim", [2, 3])
def test_uniform_label_maps_stay(value, ndim):
    labels = np.full((3, 4, 5)[:ndim], value, np.uint8)
    found, changes = apply(labels, SPACING_MM[:ndim], BOTH, [LargestLiver(), TumorInLiver(0.5), SmallestLesion(1.0)])
    np.testing.assert_array_equal(found, labels)
    assert changes == []


def test_tumor_alone_can_lose_small_lesions_but_not_more():
    structures = structures_from_values(tumor=(1,))
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 1, 1], labels[2, 2:4, 2:5] = 1, 1
    found, _ = apply(labels, (1.0, 1.0, 1.0), structures, [SmallestLesion(2.0)])
    assert found[1, 1, 1] == 0 and found.sum() == 6
    with pytest.raises(UserError, match="largest-liver needs a label for liver, but given label values only has tumor"):
        apply(labels, (1.0, 1.0, 1.0), structures, [LargestLiver()])


@pytest.mark.parametrize("text", ["largest-liver", "tumor-in-liver=0.25", "smallest-lesion=30"])
def test_steps_survive_text_and_json(text):
    step = parse_step(text)
    assert as_text(step) == text
    assert from_dict(as_dict(step)) == step


def test_touching_is_what_tumor_in_liver_asks_for_without_a_number():
    assert parse_step("tumor-in-liver") == TumorInLiver(0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("larges-liver", "there is no rule 'larges-liver'. Did you mean largest-liver"),
        ("smallest-lesion", r"'smallest-lesion' cannot be read.\n  Write smallest-lesion=NUMBER \(volume_mm3\)"),
        ("smallest-lesion=ten", r"'smallest-lesion=ten' cannot be read"),
        ("largest-liver=3", "Write largest-liver, without a number"),
        ("smallest-lesion=0", "the volume is 0 mm3; give a number above 0"),
        ("smallest-lesion=nan", "the volume is nan mm3; give a number above 0"),
        ("tumor-in-liver=1.5", "the share of the surface is 1.5; give a number from 0 to 1"),
    ],
)
def test_wrong_steps_are_explained(text, message):
    with pytest.raises(UserError, match=message):
        parse_step(text)


def test_wrong_parameters_in_a_record_are_explained():
    with pytest.raises(UserError, match=r"takes the number volume_mm3, but was given {'volume': 3}"):
        from_dict({"step": "smallest-lesion", "volume": 3})
    with pytest.raises(UserError, match=r"takes no parameters, but was given {'volume': 3}"):
        from_dict({"step": "largest-liver", "volume": 3})
