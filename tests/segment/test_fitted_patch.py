"""A patch that fits the image: fewer voxels are computed, and a network of local thresholds gives the same labels."""

import math
from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import as_image
from known_model import drawing, make_model
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

from nnunet_livseg.core.dataset_json import read_dataset_json
from nnunet_livseg.inference.case_predictor import takes_any_patch
from nnunet_livseg.inference.quality import PRESETS, Quality, quality_of
from nnunet_livseg.inference.segmenter import Segmenter
from nnunet_livseg.inference.starter_model import starter_liver_model, starter_model
from nnunet_livseg.multiscale import fitted_patch

HALVED = [1, 2, 2, 2, 2]
THICK = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
PLANNED = Quality("planned", all_folds=False, mirroring=True, step_size=0.5)
FITTED = Quality("fitted", all_folds=False, mirroring=True, step_size=0.5, fits_patch=True)


def computed(size, patch, step):
    """Voxels that the network sees."""
    sizes = tuple(max(n, p) for n, p in zip(size[-len(patch) :], patch, strict=True))
    return math.prod(map(len, compute_steps_for_sliding_window(sizes, patch, step))) * math.prod(patch)


@pytest.mark.parametrize(
    ("size", "patch", "strides", "step", "expected"),
    [
        ((60, 80, 80), (64, 80, 80), HALVED, 0.5, (64, 80, 80)),  # nothing to gain
        ((76, 120, 130), (64, 80, 80), HALVED, 0.5, (80, 80, 96)),  # 4 patches in place of 12
        ((153, 240, 280), (128, 128, 128), [1] + [2] * 5, 0.75, (160, 160, 160)),  # 4 in place of 18
        ((20, 70, 90), (64, 64), HALVED, 0.5, (80, 96)),  # 2D: one patch for each slice
        ((20, 70, 90), (16, 64, 64), THICK, 0.5, (20, 72, 64)),  # thick slices: 2 in place of 8
        ((153, 240, 280), (128, 128, 128), (), 0.75, (128, 128, 128)),  # a network without strides
    ],
)
def test_known_patches(size, patch, strides, step, expected):
    assert fitted_patch(size, patch, strides=strides, step=step) == expected


def test_it_fits_the_network_and_costs_least():
    for size in product((40, 100, 150), (90, 210), (130, 333)):
        for patch, strides, step in product(((64, 80, 80), (96, 64, 128)), (HALVED, [[1] * 3, [1, 2, 2]]), (0.3, 0.75)):
            found = fitted_patch(size, patch, strides=strides, step=step)
            multiples = [
                math.prod(np.atleast_1d(stage)[axis % np.size(stage)] for stage in strides) for axis in (0, 1, 2)
            ]
            assert all((f - p) % m == 0 and p <= f <= 2 * p for f, p, m in zip(found, patch, multiples, strict=True))
            assert math.prod(found) <= 2 * math.prod(patch)
            assert computed(size, found, step) <= computed(size, patch, step)


@pytest.fixture(scope="module")
def image():
    hu = drawing()[0]
    return as_image((hu + np.random.default_rng(0).integers(-30, 30, hu.shape)).astype(np.int16))


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_the_network_sees_less_and_says_the_same(tmp_path, image, configuration):
    model = make_model(
        tmp_path, configuration=configuration, strides=[1, 2, 2], dataset={"livseg": {"any_patch": True}}
    )
    found = []
    for quality in (PLANNED, FITTED):
        segmenter, shapes = Segmenter(model, quality=quality, device="cpu"), []
        network = segmenter.predictor.nnunet.network
        network.register_forward_pre_hook(lambda module, inputs, shapes=shapes: shapes.append(inputs[0].shape))
        result = segmenter.segment(image)
        found.append((sitk.GetArrayFromImage(result.labels), shapes, result.provenance.settings))
    (labels, planned, before), (same, fitted, after) = found
    assert len(np.unique(labels)) == 3 and np.mean(labels != same) < 1e-4  # where logits tie
    assert sum(map(math.prod, fitted)) < sum(map(math.prod, planned)) and len(set(fitted)) == 1
    assert after["patch"].startswith(" x ".join(map(str, fitted[0][2:]))) and "patch" not in before
    assert tuple(segmenter.predictor.nnunet.configuration_manager.patch_size) == tuple(planned[0][2:])


def test_a_model_that_does_not_allow_it_keeps_its_patches(tmp_path, image):
    """Most lose accuracy: what their attention learned depends on the size of the patch."""
    model = make_model(tmp_path, strides=[1, 2, 2])
    result = Segmenter(model, quality=FITTED, device="cpu").segment(image)
    assert "patch" not in result.provenance.settings
    for stage in (starter_model, starter_liver_model):
        assert takes_any_patch(read_dataset_json(stage()).content)


def test_standard_is_nnunets_and_the_shortcuts_of_balanced_cost_no_accuracy():
    assert [name for name, preset in PRESETS.items() if preset.fits_patch] == ["fast", "balanced"]
    assert not quality_of("balanced", fits_patch=False).fits_patch
    standard, balanced = PRESETS["standard"], PRESETS["balanced"]
    for same in ("all_folds", "mirroring", "step_size"):
        assert getattr(standard, same) == getattr(balanced, same)
