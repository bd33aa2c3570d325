"""Drawn tumors: where they may lie, what they may change, and which data they need."""

import pytest
import torch

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import structures_from_labels
from nnunet_livseg.recipes import Recipe
from nnunet_livseg.training.augmentation import SyntheticTumors, Window, ct_steps

WINDOW = Window(low=0.0, high=4.0, per_hu=0.02)  # -40 to 160 HU
LABELS = {"background": 0, "liver": 1, "tumor": 2}
LIVER_HU, NOISE_HU = 100, 15
SPACING_MM = (2.5, 2.0, 2.0)
OTHER_LABELS = {
    "regions": {"background": 0, "liver": [1, 2], "tumor": 2},
    "other values": {"background": 0, "tumor": 2, "vessel": 3, "liver": 1},
}


def patch(dims=3, channels=1, seed=0):
    """Liver of 100 HU with noise, a tumor, a vessel and, at the end of the last axis, background."""
    torch.manual_seed(seed)
    size = (24, 48, 56)[-dims:]
    image = (LIVER_HU + 40 + NOISE_HU * torch.randn(channels, *size)) * WINDOW.per_hu
    labels = torch.ones(1, *size, dtype=torch.int16)
    labels[..., 40:], labels[..., :6, :6], labels[..., 10:12, :] = 0, 2, 3
    return {"image": image.clamp(WINDOW.low, WINDOW.high), "segmentation": labels}


def draw(before, labels=LABELS):
    spacing_mm = SPACING_MM[-(before["image"].ndim - 1) :]
    step = SyntheticTumors(WINDOW, spacing_mm, structures_from_labels(labels))
    return step(**{key: tensor.clone() for key, tensor in before.items()})


@pytest.mark.parametrize("labels", [LABELS, *OTHER_LABELS.values()], ids=["labels", *OTHER_LABELS])
@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (3, 1), (3, 2)])
def test_only_healthy_liver_changes(dims, channels, labels):
    drawn = 0
    for seed in range(12):
        before = patch(dims, channels, seed)
        after = draw(before, labels)
        healthy = before["segmentation"] == 1
        torch.testing.assert_close(after["segmentation"][~healthy], before["segmentation"][~healthy])
        assert set(after["segmentation"][healthy].tolist()) <= {1, 2}
        for old, new in zip(before["image"], after["image"], strict=True):
            torch.testing.assert_close(new[~healthy[0]], old[~healthy[0]])
        assert WINDOW.low <= after["image"].min() and after["image"].max() <= WINDOW.high
        tumor = (after["segmentation"] == 2) & healthy
        drawn += bool(tumor.any())
        changed = after["image"] != before["image"]
        assert not tumor.any() or changed[:, tumor[0]].any(dim=1).all()
    assert drawn >= 10


def test_tumors_are_darker_than_the_liver_with_its_noise_and_of_all_sizes(monkeypatch):
    monkeypatch.setattr("nnunet_livseg.training.augmentation.MOST", 1)
    contrasts, noises, volumes_ml = [], [], []
    for seed in range(80):
        before = patch(seed=seed)
        before["segmentation"][:] = 1
        after = draw(before)
        tumor = after["segmentation"] == 2
        if tumor.sum() < 30:
            continue
        values = after["image"][tumor] / WINDOW.per_hu - 40
        contrasts.append(values.mean().item() - LIVER_HU)
        noises.append(values.std().item())
        volumes_ml.append(tumor.sum().item() * 0.01)
    assert len(contrasts) > 60
    assert sum(contrast < -5 for contrast in contrasts) > 0.8 * len(contrasts)
    assert any(contrast > 5 for contrast in contrasts)
    assert min(contrasts) > -1.8 * 80 and max(contrasts) < 1.8 * 50  # cores have more contrast
    assert NOISE_HU * 0.7 < sorted(noises)[len(noises) // 2] < NOISE_HU * 2
    assert min(volumes_ml) < 1 and max(volumes_ml) > 20


def test_a_patch_without_liver_stays():
    before = patch()
    before["segmentation"][before["segmentation"] == 1] = 0
    torch.testing.assert_close(draw(before), before, rtol=0, atol=0)


def test_seeds_repeat_tumors():
    drawn = []
    for seed in (1, 1, 2):
        before = patch()
        torch.manual_seed(seed)
        drawn.append(draw(before)["image"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("labels", "scheme", "message"),
    [
        ({"background": 0, "liver": 1}, "CTNormalization", "does not have a liver and exactly one kind of tumor"),
        ({"background": 0, "tumor": 1}, "CTNormalization", "does not have a liver and exactly one kind of tumor"),
        (LABELS | {"cyst": 3, "HCC": 4}, "CTNormalization", "does not have a liver and exactly one kind of tumor"),
        (LABELS, "ZScoreNormalization", r"not treat channel 0 as a CT \(ZScoreNormalization\)"),
    ],
)
def test_data_without_a_liver_a_tumor_or_hu_are_rejected(labels, scheme, message):
    hu = {"mean": 90.0, "std": 40.0, "percentile_00_5": -20.0, "percentile_99_5": 200.0}
    plans = {"foreground_intensity_properties_per_channel": {"0": hu}}
    configuration = {"normalization_schemes": [scheme], "spacing": [2, 2, 2]}
    with pytest.raises(UserError, match=message):
        ct_steps(Recipe(synthetic_tumors=0.5), plans, configuration, labels)
