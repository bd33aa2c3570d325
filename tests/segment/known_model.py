"""Trained models, as nnU-Net leaves them, that see liver above 0 HU and tumor above a threshold."""

import json
from pathlib import Path

import numpy as np
import torch

TUMOR_HU = 130.0
LABELS = {"background": 0, "liver": 1, "tumor": 2}
REGIONS = {"background": 0, "liver": [1, 2], "tumor": 2}
_RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}


def weights(outputs, channels, threshold_hu, dim):
    """Lines that cross where one label takes over from the other (labels) or is 0 (regions)."""
    lines = {
        "labels": ([0, 1, 2], [0, 0, -threshold_hu]),
        "regions": ([1, 1], [0, -threshold_hu]),
        "tumor": ([0, 1], [0, -threshold_hu]),
        "liver": ([0, 1], [0, 0]),
    }[outputs]
    slope = torch.zeros(len(lines[0]), channels, *[1] * dim)
    slope[:, 0] = torch.tensor(lines[0]).float().view(-1, *[1] * dim)
    return {"lines.weight": slope / 50, "lines.bias": torch.tensor(lines[1]).float() / 50}


def make_model(
    folder,
    *,
    outputs="labels",
    thresholds_hu=(TUMOR_HU,),
    channels=("CT",),
    configuration="3d_fullres",
    spacing_mm=(2.5, 0.8, 0.7),
    transpose=(0, 1, 2),
    reader="SimpleITKIO",
    previous=None,
    dataset=None,
    strides=None,
):
    """A model folder with one fold per threshold; returns it."""
    dim = 2 if configuration == "2d" else 3
    model = Path(folder) / "Dataset301_Known" / f"nnUNetTrainer__nnUNetPlans__{configuration}"
    labels = {
        "labels": LABELS,
        "regions": REGIONS,
        "tumor": {"background": 0, "tumor": 1},
        "liver": {"background": 0, "liver": 1},
    }[outputs]
    content = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
        **(dataset or {}),
    }
    if outputs == "regions":
        content["regions_class_order"] = [1, 2]
    settings = {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 32, 32][-dim:],
        "spacing": [spacing_mm[axis] for axis in transpose][-dim:],
        "normalization_schemes": ["NoNormalization"] * len(channels),
        "use_mask_for_norm": [False] * len(channels),
        "batch_dice": False,
        "architecture": {
            "network_class_name": "known_network.Thresholds",
            "arch_kwargs": {"conv_op": f"torch.nn.modules.conv.Conv{dim}d"} | ({"strides": strides} if strides else {}),
            "_kw_requires_import": ["conv_op"],
        },
    }
    for what in ("data", "seg", "probabilities"):
        settings[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        settings[f"resampling_fn_{what}_kwargs"] = _RESAMPLING | {"is_seg": what == "seg"}
    if previous:
        settings["previous_stage"] = previous
    plans = {
        "dataset_name": "Dataset301_Known",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": list(transpose),
        "transpose_backward": np.argsort(transpose).tolist(),
        "configurations": {configuration: settings} | ({previous: settings} if previous else {}),
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): {} for i in range(len(channels))},
    }
    inputs = len(channels) + (2 if previous else 0)
    for fold, threshold in enumerate(thresholds_hu):
        (model / f"fold_{fold}").mkdir(parents=True)
        checkpoint = {
            "trainer_name": "nnUNetTrainer",
            "init_args": {"plans": plans, "configuration": configuration},
            "inference_allowed_mirroring_axes": tuple(range(dim)),
            "network_weights": weights(outputs, inputs, threshold, dim),
        }
        torch.save(checkpoint, model / f"fold_{fold}" / "checkpoint_final.pth")
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(content))
    return model


def drawing(shape=(12, 40, 48)):
    """HU ``(z, y, x)``: a liver of 60 with two tumors of 200, nothing symmetric, in fat and air; and its labels."""
    labels = np.zeros(shape, np.uint8)
    labels[2:10, 8:28, 6:26] = 1
    labels[3:6, 10:16, 8:13] = 2
    labels[7:9, 20:25, 15:24] = 2
    hu = np.full(shape, -100, np.int16)
    hu[:, :3] = -1000
    hu[labels == 1], hu[labels == 2] = 60, 200
    return hu, labels
