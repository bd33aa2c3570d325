"""One DPC-Net through all of nnU-Net's commands, as a user goes."""

import json
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from .conftest import Workplace, assert_segment_agrees, once_for_all_workers

DATASET = "Dataset901_Phantom"
TRAINER = "DPCNetTrainer"


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """Two configurations trained on stock plans, with probabilities of the validation; 2D by nnU-Net's workers.

    Trained once for all processes of pytest; each has its own copy, because commands write into results.
    """

    def make(folder):
        place = Workplace(folder).with_dataset(prepared, DATASET)
        place.env["nnUNet_n_proc_DA"] = "2"
        place.run("nnUNetv2_train", 901, "2d", 0, "-tr", TRAINER, "-device", "cpu", "--npz")
        place.quick("nnUNetv2_train", 901, "3d_fullres", 0, "-tr", TRAINER, "-device", "cpu", "--npz")

    shared = once_for_all_workers(tmp_path_factory, "trained", make)
    return Workplace(shutil.copytree(shared.folder, tmp_path_factory.mktemp("own") / "trained"))


def model_folder(place, configuration="3d_fullres", trainer=TRAINER, plans="nnUNetPlans"):
    return place.results / DATASET / f"{trainer}__{plans}__{configuration}"


def predict(place, out, *args, run=Workplace.quick):
    run(place, "nnUNetv2_predict", "-i", place.raw / DATASET / "imagesTs", "-o", out, "-device", "cpu", *args)
    return next(out.glob("*.nii.gz"))


def assert_on_the_grid_of_the_image(prediction, place):
    image = sitk.ReadImage(next((place.raw / DATASET / "imagesTs").glob("*_0000.nii.gz")))
    labels = sitk.ReadImage(prediction)
    assert labels.GetSize() == image.GetSize()
    assert labels.GetSpacing() == pytest.approx(image.GetSpacing())
    assert labels.GetDirection() == pytest.approx(image.GetDirection())
    assert set(np.unique(sitk.GetArrayFromImage(labels)).tolist()) <= {0, 1, 2}


@pytest.mark.smoke
def test_training_on_stock_plans_leaves_what_nnunet_leaves(trained):
    fold = model_folder(trained) / "fold_0"
    assert (fold / "checkpoint_final.pth").is_file()
    assert not (fold / "checkpoint_latest.pth").exists()
    assert not list(fold.glob(".incomplete-*"))
    assert (fold / "progress.png").is_file()
    assert "mean" in json.loads((fold / "validation" / "summary.json").read_text())
    assert list((fold / "validation").glob("*.npz"))


def test_validation_alone(trained):
    trained.quick("nnUNetv2_train", 901, "2d", 0, "-tr", TRAINER, "-device", "cpu", "--val")


@pytest.mark.smoke
def test_prediction_by_dataset_and_by_model_folder_agree(trained, tmp_path):
    chosen = ("-d", 901, "-c", "3d_fullres", "-f", 0, "-tr", TRAINER)
    by_name = predict(trained, tmp_path / "a", *chosen, run=Workplace.run)
    assert_on_the_grid_of_the_image(by_name, trained)
    trained.run(
        *("nnUNetv2_predict_from_modelfolder", "-i", trained.raw / DATASET / "imagesTs", "-o", tmp_path / "b"),
        *("-m", model_folder(trained), "-f", 0, "-device", "cpu", "-npp", 1, "-nps", 1),
    )
    assert next((tmp_path / "b").glob("*.nii.gz")).read_bytes() == by_name.read_bytes()
    images = (trained.raw / DATASET / "imagesTs").iterdir()
    assert_segment_agrees(trained.quick, model_folder(trained), images, by_name, tmp_path / "segment")


def test_attention_of_a_trained_model(trained, tmp_path):
    image = next((trained.raw / DATASET / "imagesTs").glob("*_0000.nii.gz"))
    trained.quick("livseg", "attention", image, "-m", model_folder(trained), "-o", tmp_path / "out")
    table = json.loads((tmp_path / "out" / "attention.json").read_text())
    assert {row["title"] for row in table["maps"]} >= {"SpaCor: spatial attention", "SemCor: channel attention"}
    assert_on_the_grid_of_the_image(tmp_path / "out" / "prediction.nii.gz", trained)
    assert (tmp_path / "out" / "attention.png").stat().st_size > 10_000


def test_best_configuration_and_ensemble(trained, tmp_path):
    found = trained.quick(
        *("nnUNetv2_find_best_configuration", 901, "-c", "2d", "3d_fullres", "-tr", TRAINER, "-f", 0, "-np", 1)
    )
    assert TRAINER in found
    for configuration in ("2d", "3d_fullres"):
        predict(
            trained,
            tmp_path / configuration,
            *("-d", 901, "-c", configuration, "-f", 0, "-tr", TRAINER, "--save_probabilities"),
        )
    folders = [tmp_path / "2d", tmp_path / "3d_fullres"]
    trained.quick("nnUNetv2_ensemble", "-i", *folders, "-o", tmp_path / "both", "-np", 1)
    assert_on_the_grid_of_the_image(next((tmp_path / "both").glob("*.nii.gz")), trained)


def test_export_and_install_elsewhere(trained, workplace, tmp_path):
    archive = tmp_path / "model.zip"
    trained.quick(
        *("nnUNetv2_export_model_to_zip", "-d", 901, "-o", archive, "-c", "3d_fullres", "-tr", TRAINER, "-f", 0),
        *("-p", "nnUNetPlans"),
    )
    workplace.quick("nnUNetv2_install_pretrained_model_from_zip", archive)
    here = predict(trained, tmp_path / "here", "-d", 901, "-c", "3d_fullres", "-f", 0, "-tr", TRAINER)
    there = predict(workplace, tmp_path / "there", "-d", 901, "-c", "3d_fullres", "-f", 0, "-tr", TRAINER)
    assert here.read_bytes() == there.read_bytes()


def test_a_recipient_without_the_package_is_told_the_trainers_name(trained, tmp_path):
    """nnU-Net's own message; docs/sharing.md quotes it beside the remedy."""
    trained.env["LIVSEG_NO_AUTOREGISTER"] = "1"
    try:
        said = trained.run(
            *("nnUNetv2_predict", "-i", trained.raw / DATASET / "imagesTs", "-o", tmp_path, "-device", "cpu"),
            *("-d", 901, "-c", "3d_fullres", "-f", 0, "-tr", TRAINER),
            status=1,
        )
    finally:
        del trained.env["LIVSEG_NO_AUTOREGISTER"]
    assert f"Could not find requested nnunet trainer {TRAINER}" in said


def test_pretrained_weights_from_one_training_to_the_next(trained, workplace):
    checkpoint = model_folder(trained) / "fold_0" / "checkpoint_final.pth"
    said = workplace.quick(
        *("nnUNetv2_train", 901, "3d_fullres", 0, "-tr", TRAINER, "-device", "cpu", "-pretrained_weights", checkpoint)
    )
    assert "spacor.modules_per_level.0.g.weight" in said


def test_initial_weights_from_a_stock_training_fill_the_whole_unet(trained, workplace):
    """A stock checkpoint, as nnU-Net saves it, from a network of its own class."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = json.loads((workplace.preprocessed / DATASET / "nnUNetPlans.json").read_text())
    manager = PlansManager(plans)
    stock = nnUNetTrainer.build_network_architecture(manager, manager.get_configuration("2d"), 1, 3)
    checkpoint = workplace.folder / "stock.pth"
    torch.save({"network_weights": stock.state_dict()}, checkpoint)
    workplace.without_recipe(DATASET)
    workplace.quick(
        *("livseg", "plan", "-d", 901, "-m", "dpcnet", "-c", "2d", "--init", checkpoint),
        *("--epochs", 2, "--iterations", 1, "--validation-iterations", 1),
    )
    train = ("nnUNetv2_train", 901, "2d", 0, "-tr", TRAINER, "-p", "DPCNetInitPlans", "-device", "cpu")
    said = workplace.quick(*train)
    count = len(dict(stock.named_parameters()))
    assert re.search(rf"Initial weights from .*stock.pth: {count} of \d+ tensors loaded", said)
    assert "new: spacor.modules_per_level.0.g.weight" in said
    assert "new: encoder" not in said and "new: decoder" not in said
    checkpoint.unlink()
    assert "Initial weights" not in workplace.quick(*train, "--c")


def test_kill_and_continue_equals_an_uninterrupted_training(workplace):
    recipe = {"epochs": 4, "schedule": "poly", "checkpoint_minutes": 0}
    workplace.shorten(DATASET, **recipe)
    workplace.slow_down()
    train = ("nnUNetv2_train", 901, "2d", 0, "-tr", "DPCNetSemCorTrainer", "-device", "cpu")
    fold = model_folder(workplace, "2d", "DPCNetSemCorTrainer") / "fold_0"
    process = workplace.start(*train, start_new_session=True)
    deadline = time.monotonic() + 300
    while not (fold / "checkpoint_latest.pth").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (fold / "checkpoint_final.pth").exists()
    latest = torch.load(fold / "checkpoint_latest.pth", weights_only=False)
    begun = latest["logging"]["epoch_start_timestamps"]
    workplace.quick(*train, "--c")
    log = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert log["current_epoch"] == 4
    assert {len(values) for values in log["logging"].values()} == {4}
    assert log["logging"]["lrs"] == pytest.approx([1e-4 * (1 - epoch / 4) ** 0.9 for epoch in range(4)])
    times = log["logging"]["epoch_start_timestamps"]
    assert times == sorted(times)
    assert begun and times[: latest["current_epoch"]] == begun[: latest["current_epoch"]], "an epoch was trained again"


def test_plans_of_another_variant_are_refused_before_anything_is_written(workplace):
    workplace.without_recipe(DATASET)
    workplace.quick("livseg", "plan", "-d", 901, "-m", "dpcnet-ag", "--epochs", 1)
    said = workplace.run(
        "nnUNetv2_train", 901, "2d", 0, "-tr", TRAINER, "-p", "DPCNetAGPlans", "-device", "cpu", status=1
    )
    assert "these plans hold the variant dpcnet-ag, but trainer DPCNetTrainer builds dpcnet" in said
    assert "Train with -tr DPCNetAGTrainer" in said.splitlines()[-1] and "Traceback" not in said
    assert not list(workplace.results.iterdir())


def test_stock_trainer_trains_our_plans(workplace):
    """Plans name the network by import path, and its first outputs are at nnU-Net's scales."""
    workplace.without_recipe(DATASET)
    workplace.quick("livseg", "plan", "-d", 901, "-m", "dpcnet", "-c", "2d", "--batch", 2)
    script = (
        "from nnunetv2.run.run_training import get_trainer_from_args; import torch;"
        "t = get_trainer_from_args('901', '2d', 0, 'nnUNetTrainer_1epoch', 'DPCNetPlans', device=torch.device('cpu'));"
        "t.num_iterations_per_epoch = t.num_val_iterations_per_epoch = 1; t.run_training()"
    )
    workplace.run("python", "-c", script)
    assert (
        model_folder(workplace, "2d", "nnUNetTrainer_1epoch", "DPCNetPlans") / "fold_0/checkpoint_final.pth"
    ).is_file()
