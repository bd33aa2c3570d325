"""Tiny networks of every row, and model folders as nnU-Net leaves them, without a training."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.trainers import TRAINERS
from nnunet_livseg.variants import VARIANTS, find_variant

ROWS = [(variant, dim) for variant in VARIANTS for dim in variant.dims]
PATCH = (16, 32, 48)  # unequal sizes: a swapped axis cannot pass
WIDTHS = (4, 6, 8, 10, 12)


@pytest.fixture(autouse=True)
def _narrow(narrow_networks):
    """Every network here is small."""


@pytest.fixture(params=ROWS, ids=lambda row: f"{row[0].name}-{row[1]}d")
def row(request):
    """A variant and a number of dimensions that it exists in."""
    return request.param


def small(name, dim, *, strides=None):
    """A row's network on two channels, with weights that are not at their start (gates of 0 show nothing)."""
    configuration = stock_configuration(dim, patch=PATCH[:dim], features=WIDTHS)
    if strides:
        configuration["architecture"]["arch_kwargs"]["strides"] = strides
    torch.manual_seed(0)
    return build(configuration, find_variant(name), channels=2).eval()


def scan(dim):
    return torch.randn(1, 2, *PATCH[:dim], generator=torch.Generator().manual_seed(1))


def plans(configuration, *, channels=1, order=(0, 1, 2)):
    """nnU-Net's plans with one configuration."""
    dim = len(configuration["patch_size"])
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    functions = {f"resampling_fn_{of}": "resample_data_or_seg_to_shape" for of in ("data", "seg", "probabilities")}
    options = {f"resampling_fn_{of}_kwargs": resampling for of in ("data", "seg", "probabilities")}
    whole = configuration | functions | options
    whole |= {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "normalization_schemes": ["CTNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "batch_dice": True,
    }
    window = {"mean": 0.0, "std": 100.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}
    return {
        "dataset_name": "Dataset001_Test",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(order),
        "transpose_backward": [int(i) for i in np.argsort(order)],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(c): window for c in range(channels)},
        "configurations": {"3d_fullres" if dim == 3 else "2d": whole},
    }


def model_folder(folder, name, dim, *, channels=1, order=(0, 1, 2), spacing_mm=(5.0, 2.0, 2.0), trainer=None):
    """A folder TRAINER__PLANS__CONFIGURATION with the weights of a fresh network."""
    configuration = stock_configuration(dim, patch=PATCH[-dim:], features=WIDTHS)
    configuration["spacing"] = list(spacing_mm[-dim:])
    content = plans(configuration, channels=channels, order=order)
    dataset = {
        "channel_names": {str(c): "CT" for c in range(channels)},  # as real sets call all their phases
        "labels": {"background": 0, "liver": 1, "tumor": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (key,) = content["configurations"]
    trainer = trainer or find_variant(name).trainer
    model = folder / f"{trainer}__nnUNetPlans__{key}"
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(content))
    (model / "dataset.json").write_text(json.dumps(dataset))
    torch.manual_seed(0)
    manager = PlansManager(content)
    make = TRAINERS[find_variant(name).trainer].build_network_architecture
    network = make(manager, manager.get_configuration(key), channels, 3, False)
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": trainer,
        "init_args": {"configuration": key},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, model / "fold_0" / "checkpoint_final.pth")
    return model


OBLIQUE = (0.96, -0.28, 0, -0.28, -0.96, 0, 0, 0, -1)  # turned about z, front to back and head to feet


def ct(shape=(20, 60, 70), *, spacing_mm=(5.0, 1.5, 1.0), seed=0, border=0):
    """Noise in HU on an oblique, flipped grid; a border of 0, which preprocessing crops."""
    voxels = np.random.default_rng(seed).normal(40, 100, shape).astype(np.float32)
    if border:
        inner = np.zeros(shape, bool)
        inner[(slice(border, -border),) * 3] = True
        voxels[~inner] = 0
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin((-10.0, 20.0, 300.0))
    image.SetDirection(OBLIQUE)
    return image
