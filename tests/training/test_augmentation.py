"""Augmentation for other CTs: what each step may change, and that a recipe switches it on."""

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

from nnunet_livseg.training.augmentation import (
    Contrast,
    CutFieldOfView,
    ExtrahepaticMass,
    OralContrast,
    ScannerNoise,
    ThickSlices,
    Window,
    after_the_spatial,
    ct_variation,
)

WINDOW = Window(low=0.0, high=4.0, per_hu=0.02)
STEPS = [CutFieldOfView(), ThickSlices(), Contrast(WINDOW), ScannerNoise(WINDOW)]


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def patch(request):
    """A third of it is air, a third soft tissue, a third bone; everything is liver."""
    torch.manual_seed(0)
    image = torch.rand(1, *(12, 15, 18)[: request.param]) * 2 + 1
    image[..., :6], image[..., 12:] = 0, 4
    return {"image": image, "segmentation": torch.ones_like(image, dtype=torch.int16)}


@pytest.fixture(params=[(96, 96), (32, 48, 48)], ids=["2d", "3d"])
def beside_liver(request):
    """Two channels of soft tissue; the liver begins at the last axis' voxel 20."""
    torch.manual_seed(0)
    image = torch.rand(2, *request.param) * 2 + 1
    liver = torch.zeros(1, *request.param, dtype=torch.int16)
    liver[..., 20:] = 1
    return {"image": image, "segmentation": liver}


def changed(step, patch):
    return step(**{key: tensor.clone() for key, tensor in patch.items()})


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_values_stay_in_the_window_and_patches_differ(step, patch):
    seen = [changed(step, patch)["image"] for _ in range(20)]
    assert all(image.shape == patch["image"].shape and image.isfinite().all() for image in seen)
    assert min(image.min() for image in seen) >= 0 and max(image.max() for image in seen) <= 4
    assert len({image.square().sum().item() for image in seen}) > 2


def test_air_stays_black(patch):
    for step in (Contrast(WINDOW), ScannerNoise(WINDOW)):
        assert not changed(step, patch)["image"][..., :6].any()


def test_noise_and_contrast_are_in_hu(patch):
    patch["image"][:] = 2.0
    noise = ScannerNoise(WINDOW)
    for smooth in (False, True):
        noisy = noise._apply_to_image(patch["image"].clone(), sigma=0.4, smooth=smooth)
        assert (noisy - 2).std().item() == pytest.approx(0.4, rel=0.15)
    found = Contrast(WINDOW)._apply_to_image(patch["image"], shift=0.3, factor=0.5)
    assert found.mean().item() == pytest.approx((2.0 - 2.8) * 0.5 + 2.8 + 0.3)


def test_a_cut_field_of_view_takes_image_and_label_from_the_ends(patch):
    ends = set()
    for _ in range(60):
        cut = changed(CutFieldOfView(), patch)
        kept = cut["segmentation"].flatten(2).any(2)[0]
        inside = np.flatnonzero(kept)
        assert len(inside) >= 0.4 * len(kept) and kept[inside[0] : inside[-1] + 1].all()
        torch.testing.assert_close(cut["image"][:, kept], patch["image"][:, kept])
        assert not cut["image"][:, ~kept].any()
        ends.add((inside[0] > 0, inside[-1] < len(kept) - 1))
    assert ends >= {(True, False), (False, True), (True, True)}


@pytest.mark.parametrize("step", [OralContrast, ExtrahepaticMass])
def test_a_part_of_the_background_beside_the_liver_is_filled_and_no_label_changes(step, beside_liver):
    before, beside = beside_liver, 0
    image, liver = before["image"], before["segmentation"]
    for _ in range(20):
        after = changed(step(WINDOW, (2.0,) * (image.ndim - 1)), before)
        assert torch.equal(after["segmentation"], liver)
        filled = (after["image"] != image).any(0)
        assert filled.any() and not filled[liver[0] == 1].any()
        assert after["image"].min() >= WINDOW.low and after["image"].max() <= WINDOW.high
        beside += bool(filled[..., 19].any())
    assert beside > 10


@pytest.mark.parametrize("step", [OralContrast, ExtrahepaticMass])
def test_what_is_filled_needs_tissue_in_the_background(step, patch):
    torch.testing.assert_close(changed(step(WINDOW, (2, 2, 2)), patch), patch, rtol=0, atol=0)  # all liver
    patch["image"][:], patch["segmentation"][:] = 0, 0
    torch.testing.assert_close(changed(step(WINDOW, (2, 2, 2)), patch), patch, rtol=0, atol=0)  # all air


def test_oral_contrast_is_bright_with_darker_food(beside_liver):
    image, bright, dark = beside_liver["image"], [], 0
    for _ in range(20):
        after = changed(OralContrast(WINDOW, (2.0,) * (image.ndim - 1)), beside_liver)
        values = after["image"][:, (after["image"] != image).any(0)]
        bright.append((values > 3.9).float().mean().item())
        dark += bool((values < 1).any())
    assert np.median(bright) > 0.5 and dark


def test_a_mass_is_soft_tissue_with_noise_and_at_times_a_darker_core():
    torch.manual_seed(0)
    radius = torch.linspace(-1, 1, 40).abs().expand(40, 40)
    values = [ExtrahepaticMass(WINDOW, (2, 2)).filling(radius) for _ in range(40)]
    means, noise = (torch.stack([f(one[:, :3]) for one in values]) for f in (torch.mean, torch.std))
    assert 0.8 < means.min() < 2 and 2.5 < means.max() < 3.5 and noise.min() > 0.02
    darker = [(one[:, :3].mean() - one[:, 18:22].mean()).item() for one in values]
    assert 5 < sum(difference > 0.1 for difference in darker) < 30


def test_thick_slices_are_means(patch):
    thick = ThickSlices()._apply_to_image(patch["image"].clone(), thickness=3, start=1)
    torch.testing.assert_close(thick[:, 1:4].unique(dim=1)[:, 0], patch["image"][:, 1:4].mean(1))
    torch.testing.assert_close(thick.mean(), patch["image"].mean())


@pytest.mark.parametrize("trainer", [nnUNetTrainer, nnUNetTrainerDA5], ids=["nnU-Net", "DA5"])
@pytest.mark.parametrize("flat", [False, True], ids=["volumes", "slices of thick CTs"])
def test_ours_see_patches_that_the_spatial_transform_has_made(trainer, flat):
    theirs = trainer.get_training_transforms((8, 16, 16), (-0.5, 0.5), None, (0, 1, 2), flat)
    ours = ct_variation(WINDOW, (5, 2, 2))
    assert all(isinstance(t, RandomTransform) for t in ours)
    steps = after_the_spatial(theirs, ours).transforms
    at = steps.index(ours[0])
    assert steps[at : at + len(ours)] == ours and [t for t in steps if t not in ours] == theirs.transforms
    assert {type(t).__name__ for t in steps[:at]} == {"SpatialTransform"} | (
        {"Convert3DTo2DTransform", "Convert2DTo3DTransform"} if flat else set()
    )
    for step in ours:
        step.apply_probability = 1
    patch = {"image": torch.rand(2, 8, 24, 24) * 4, "segmentation": torch.zeros(1, 8, 24, 24, dtype=torch.int16)}
    assert after_the_spatial(theirs, ours)(**patch)["image"].shape == (2, 8, 16, 16)


def test_a_trainer_without_a_spatial_transform_gets_ours_first():
    theirs, ours = nnUNetTrainer.get_validation_transforms(None), ct_variation(WINDOW, (2, 2, 2))
    assert after_the_spatial(theirs, ours).transforms == [*ours, *theirs.transforms]
