"""The fast lane's resampling of logits, slice by slice, against nnU-Net's own of the whole by torch."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from io_samples import as_image
from known_model import drawing, make_model
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

from nnunet_livseg.inference.coarse_grid import first_largest, nearest_axis, resampled_slices
from nnunet_livseg.inference.ct_input import read_ct
from nnunet_livseg.inference.quality import PRESETS, Quality, quality_of
from nnunet_livseg.inference.segmenter import Segmenter

CPU = torch.device("cpu")
BY_TORCH = Quality("torch", all_folds=False, mirroring=False, step_size=0.75, torch_resampling=True)
BY_PLANS = Quality("plans", all_folds=False, mirroring=False, step_size=0.75)
KWARGS = {"is_seg": False, "force_separate_z": None}


@pytest.mark.parametrize("shape", [(33, 40, 50), (9, 14, 61), (12, 17, 20)], ids=["finer", "mixed", "the same"])
@pytest.mark.parametrize("thick", [None, 0, 1, 2])
def test_slices_are_those_of_the_whole(shape, thick):
    logits = 5 * torch.randn(3, 12, 17, 20, generator=torch.Generator().manual_seed(0))
    spacing = [5.0 if axis == thick else 1.0 for axis in range(3)]
    whole = resample_torch_fornnunet(logits.half(), shape, spacing, [1.0] * 3, num_threads=1)
    axis = nearest_axis(KWARGS, spacing, [1.0] * 3)
    assert axis == thick
    slices = torch.stack(list(resampled_slices(logits.half(), shape, nearest=axis, device=CPU)), dim=1)
    assert slices.shape == whole.shape
    assert torch.allclose(slices, whole.float(), atol=1e-4)
    assert torch.equal(first_largest(slices).long(), whole.float().argmax(0))


def test_the_first_of_equal_logits_is_taken():
    logits = torch.tensor([[1.0, 0, 2, 5], [1, 3, 2, 5], [0, 3, 3, 6]])
    assert torch.equal(first_largest(logits).long(), logits.argmax(0))


def by_nnunet(model):
    """The same model with nnU-Net's torch resampling of logits in its plans."""
    plans = json.loads((model / "plans.json").read_text())
    for configuration in plans["configurations"].values():
        configuration["resampling_fn_probabilities"] = "resample_torch_fornnunet"
        configuration["resampling_fn_probabilities_kwargs"] = KWARGS
    (model / "plans.json").write_text(json.dumps(plans))
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"outputs": "regions", "transpose": (2, 0, 1)},
        {"configuration": "2d"},
        {"configuration": "3d_cascade_fullres", "previous": "3d_lowres"},
        {"spacing_mm": (8.0, 1.2, 1.0)},
    ],
    ids=["labels", "regions", "2d", "cascade", "thick"],
)
def test_every_sort_of_model_gives_what_its_plans_would_give_with_torch(tmp_path, options):
    options = {"spacing_mm": (2.0, 1.1, 0.9)} | options
    if "previous" in options:
        by_nnunet(make_model(tmp_path, configuration="3d_lowres", spacing_mm=(5.0, 1.6, 1.4)))
    model = by_nnunet(make_model(tmp_path, **options))
    hu = drawing()[0]
    image = as_image((hu + np.random.default_rng(0).integers(-30, 30, hu.shape)).astype(np.int16))
    wishes = {"device": "cpu", "crop": False, "probabilities": True, "uncertainty": True}
    ours, theirs = (Segmenter(model, quality=quality, **wishes).segment(image) for quality in (BY_TORCH, BY_PLANS))
    assert_same_labels(*(sitk.GetArrayFromImage(one.labels) for one in (ours, theirs)))
    assert ours.provenance.settings["resampling of the logits"] == "by torch, linear"
    assert "resampling of the logits" not in theirs.provenance.settings
    for name, volume in ours.probabilities.items():
        difference = sitk.GetArrayFromImage(volume) - sitk.GetArrayFromImage(theirs.probabilities[name])
        assert np.abs(difference).max() < 2e-3, name
    uncertain = [sitk.GetArrayFromImage(one.uncertainty) for one in (ours, theirs)]
    assert np.abs(uncertain[0] - uncertain[1]).max() < 0.011  # steps of 0.01
    largest = [one.measurements.lesions[0].agreement for one in (ours, theirs)]
    assert largest[0] == pytest.approx(largest[1], abs=0.001)


def assert_same_labels(ours, theirs):
    assert len(np.unique(theirs)) == 3
    assert np.mean(ours != theirs) < 1e-4  # where logits tie


def test_of_a_real_ct(real_data, tmp_path):
    ct = read_ct(sitk.ReadImage(real_data / "ircad17" / "ct.nii.gz")[150:300, 150:300, 50:75])
    model = by_nnunet(make_model(tmp_path, spacing_mm=(2.3, 1.1, 1.0)))
    ways = (Segmenter(model, quality=quality, device="cpu", crop=False) for quality in (BY_TORCH, BY_PLANS))
    assert_same_labels(*(way.label_map(ct)[0] for way in ways))


def test_fast_alone_resamples_by_torch_unless_asked():
    assert [name for name, preset in PRESETS.items() if preset.torch_resampling] == ["fast", "balanced"]
    assert quality_of("standard", torch_resampling=True).torch_resampling
    assert not quality_of("fast", torch_resampling=False).torch_resampling
