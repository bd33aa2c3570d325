"""What nnU-Net can do with labels and stages, with our trainers: regions, ignore label, the cascade, residual plans."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from .conftest import SHORT, assert_segment_agrees, prepare


def labels_in(folder):
    return set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(next(folder.glob("*.nii.gz"))))).tolist())


@pytest.mark.parametrize(("style", "heads"), [("regions", 2), ("ignore", 3)])
def test_regions_and_ignore_label(style, heads, tmp_path):
    """Trained, continued and predicted; as many heads as nnU-Net wants, and the ignore label is never predicted."""
    dataset = "Dataset902_Labels"
    place = prepare(tmp_path, dataset, configurations=["2d"], label_style=style)
    place.shorten(dataset, epochs=1)
    train = ("nnUNetv2_train", 902, "2d", 0, "-tr", "DPCNetTrainer", "-device", "cpu")
    place.quick(*train)
    fold = place.results / dataset / "DPCNetTrainer__nnUNetPlans__2d" / "fold_0"
    weights = torch.load(fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert weights["semcor.seg_layers.0.weight"].shape[0] == heads
    place.shorten(dataset, epochs=2)
    place.quick(*train, "--c")
    assert torch.load(fold / "checkpoint_final.pth", weights_only=False)["current_epoch"] == 2
    place.quick(
        *("nnUNetv2_predict", "-i", place.raw / dataset / "imagesTs", "-o", tmp_path / "out", "-device", "cpu"),
        *("-d", 902, "-c", "2d", "-f", 0, "-tr", "DPCNetTrainer"),
    )
    assert labels_in(tmp_path / "out") <= {0, 1, 2}
    predicted, images = next((tmp_path / "out").glob("*.nii.gz")), (place.raw / dataset / "imagesTs").iterdir()
    assert_segment_agrees(place.quick, fold.parent, images, predicted, tmp_path / "segment")


def test_cascade(prepared, workplace, tmp_path):
    """Low resolution, its predictions for the next stage, full resolution with them as further channels, prediction."""
    dataset = "Dataset901_Phantom"
    path = workplace.preprocessed / dataset / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    full = plans["configurations"]["3d_fullres"]
    low = json.loads(json.dumps(full)) | {
        "data_identifier": "nnUNetPlans_3d_lowres",
        "next_stage": "3d_cascade_fullres",
    }
    low["spacing"] = [spacing * 1.5 for spacing in full["spacing"]]
    plans["configurations"]["3d_lowres"] = low
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    path.write_text(json.dumps(plans))
    workplace.shorten(dataset, epochs=1)
    workplace.quick("nnUNetv2_preprocess", "-d", 901, "-c", "3d_lowres", "-np", 1)
    train = ("-tr", "DPCNetTrainer", "-device", "cpu")
    workplace.quick("nnUNetv2_train", 901, "3d_lowres", "all", *train)
    workplace.quick("nnUNetv2_train", 901, "3d_cascade_fullres", "all", *train)
    model = workplace.results / dataset / "DPCNetTrainer__nnUNetPlans__3d_cascade_fullres" / "fold_all"
    weights = torch.load(model / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert weights["encoder.stages.0.0.convs.0.conv.weight"].shape[1] == 1 + 2  # CT, liver, tumor
    images, chosen = workplace.raw / dataset / "imagesTs", ("-d", 901, "-f", "all", *train)
    workplace.quick("nnUNetv2_predict", "-i", images, "-o", tmp_path / "low", "-c", "3d_lowres", *chosen)
    previous = ("-prev_stage_predictions", tmp_path / "low")
    workplace.quick(
        "nnUNetv2_predict", "-i", images, "-o", tmp_path / "full", "-c", "3d_cascade_fullres", *chosen, *previous
    )
    assert labels_in(tmp_path / "full") <= {0, 1, 2}
    predicted = next((tmp_path / "full").glob("*.nii.gz"))
    assert_segment_agrees(workplace.quick, model.parent, images.iterdir(), predicted, tmp_path / "segment")


def test_residual_encoder_plans_and_two_phases(tmp_path):
    """nnU-Net's recommended planner, and a dataset with two channels."""
    dataset = "Dataset903_Phases"
    place = prepare(tmp_path, dataset, configurations=["3d_fullres"], phases=2)
    place.quick(
        "nnUNetv2_plan_experiment",
        "-d",
        903,
        "-pl",
        "nnUNetPlannerResEncM",
        "-gpu_memory_target",
        1,
        "-overwrite_plans_name",
        "ResEncPlans",
    )
    path = place.preprocessed / dataset / "ResEncPlans.json"
    plans = json.loads(path.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration["livseg"] = {"recipe": SHORT | {"epochs": 1}}
    configuration["batch_size"] = 2
    kwargs = configuration["architecture"]["arch_kwargs"]
    kwargs["features_per_stage"] = [min(width, 8) for width in kwargs["features_per_stage"]]
    kwargs["n_blocks_per_stage"] = [1] * kwargs["n_stages"]
    path.write_text(json.dumps(plans))
    place.quick("nnUNetv2_train", 903, "3d_fullres", 0, "-tr", "DPCNetTrainer", "-p", "ResEncPlans", "-device", "cpu")
    place.quick(
        *("nnUNetv2_predict", "-i", place.raw / dataset / "imagesTs", "-o", tmp_path / "out", "-device", "cpu"),
        *("-d", 903, "-c", "3d_fullres", "-f", 0, "-tr", "DPCNetTrainer", "-p", "ResEncPlans"),
    )
    assert labels_in(tmp_path / "out") <= {0, 1, 2}
    model = place.results / dataset / "DPCNetTrainer__ResEncPlans__3d_fullres"
    predicted, images = next((tmp_path / "out").glob("*.nii.gz")), (place.raw / dataset / "imagesTs").iterdir()
    assert_segment_agrees(place.quick, model, sorted(images), predicted, tmp_path / "segment")
