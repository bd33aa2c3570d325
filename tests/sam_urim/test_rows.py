"""Rows, presets, recipe, and the refusal of datasets with too few phases."""

import json
import re

import pytest
import torch

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.phases import require_phases
from nnunet_livseg.plans import Overrides, make_plans, training_setup
from nnunet_livseg.recipes import learning_rate
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.rows.sam_urim import PRESETS, RECIPE, ROWS
from nnunet_livseg.trainers import TRAINERS
from nnunet_livseg.variants import find_variant

from .small import count

TWO = ("sam-urim", "sam-urim-no-urim", "sam-urim-add", "sam-urim-ilf", "sam-urim-dlf", "sam-urim-mw", "sam-urim-pa")


def plans(channels=2):
    """Plans as nnU-Net writes them, with a cascade."""
    common = {"median_image_size_in_voxels": [60, 300, 300], "data_identifier": "x", "batch_dice": False}
    full = stock_configuration(3, patch=(32, 64, 64), features=(4, 6, 8, 8)) | common
    window = {"mean": 99.5, "std": 39.4, "percentile_00_5": -15.0, "percentile_99_5": 197.0}
    return {
        "dataset_name": "Dataset009_Phases",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "continue_training": False,
        "configurations": {
            "2d": stock_configuration(2, patch=(256, 256), features=(4, 6, 8, 8, 8, 8)) | common,
            "3d_fullres": full,
            "3d_lowres": stock_configuration(3, patch=(32, 64, 64), features=(4, 6, 8, 8))
            | common
            | {"next_stage": "3d_cascade_fullres"},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "foreground_intensity_properties_per_channel": {str(i): dict(window) for i in range(channels)},
    }


def dataset_json(*names):
    return {
        "labels": {"background": 0, "liver": 1, "tumor": 2},
        "channel_names": {str(i): name for i, name in enumerate(names)},
        "file_ending": ".nii.gz",
    }


# --- presets and recipe -----------------------------------------------------------------------------------------------


def made(preset, name="sam-urim"):
    return make_plans(plans(), find_variant(name), preset=preset, name="P", overrides=Overrides())


def test_code_preset_is_the_authors_network_but_for_its_slices():
    """nnU-Net's 2D has one slice per phase, the authors' stem three: 64 * 7 * 7 * 2 weights fewer."""
    content = made("code")
    assert list(content["configurations"]) == ["2d"]
    with torch.device("meta"):
        network = build(content["configurations"]["2d"], channels=2, classes=2, initialize=False)
    assert count(network) == 147_873_604 - 64 * 7 * 7 * 2
    assert network.pretrained == "imagenet"


def test_three_adjacent_slices_come_as_channels():
    """As docs/papers/sam_urim.md says; with them the authors' network is complete."""
    overrides = Overrides(options={"channels_per_phase": 3})
    for preset, total in (("code", 147_873_604), ("paper", None)):
        content = make_plans(plans(channels=6), find_variant("sam-urim"), preset=preset, name="P", overrides=overrides)
        with torch.device("meta"):
            network = build(content["configurations"]["2d"], channels=6, classes=2, initialize=False)
        assert (network.phases, network.stream_channels) == (2, 3)
        assert total in (None, count(network))


@pytest.mark.parametrize("preset", ["paper", "code", "resnet50", "unet"])
def test_presets_of_the_paper_have_its_numbers(preset):
    content = made(preset)
    configuration = content["configurations"]["2d"]
    assert configuration["patch_size"] == [224, 224] and configuration["batch_size"] == 8
    assert configuration["livseg"]["loss"] == "ce"
    for channel in content["foreground_intensity_properties_per_channel"].values():
        assert (channel["percentile_00_5"], channel["percentile_99_5"]) == (-70, 180)
    backbone = {"paper": "resnext50", "code": "resnext50"}.get(preset, preset)
    assert configuration["architecture"]["arch_kwargs"]["backbone"] == backbone


def test_the_paper_divides_the_rate_by_ten_every_fifty_epochs():
    rates = [learning_rate(RECIPE, epoch, []) for epoch in (0, 49, 50, 99, 100, 199)]
    assert rates == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5, 5e-6, 5e-7])
    assert RECIPE.optimizer == "sgd"
    assert PRESETS["code"].recipe.optimizer == "adam"
    assert learning_rate(PRESETS["code"].recipe, 400, []) == 5e-4


def test_the_ablation_adds_one_thing_per_row():
    names = ["sam-urim-single", "sam-urim-add", "sam-urim-no-urim", "sam-urim"]
    sizes = [count(build(plans()["configurations"]["2d"], find_variant(name), channels=2)) for name in names]
    assert sizes[0] == sizes[1] < sizes[2] < sizes[3]  # adding phases needs no parameters


# --- phases -----------------------------------------------------------------------------------------------------------


def test_plans_say_which_channels_are_the_images():
    for configuration in made("default")["configurations"].values():
        if "architecture" in configuration:
            assert configuration["architecture"]["arch_kwargs"]["image_channels"] == 2


@pytest.fixture
def make_trainer(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return lambda trainer, content, *names, configuration="2d": TRAINERS[trainer](
        content, configuration, 0, dataset_json(*names), torch.device("cpu")
    )


def test_with_stock_plans_the_trainer_says_which_channels_are_the_images(make_trainer):
    """The cascade: two phases, and one-hot liver and tumor of the previous stage."""
    trainer = make_trainer("SAMURIMTrainer", plans(), "CT", "CT", configuration="3d_cascade_fullres")
    network = trainer.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 4, 3)
    assert network.phases == 2 and network.stream_channels == 3


@pytest.mark.parametrize("name", TWO)
def test_one_channel_for_a_two_phase_trainer_is_refused_before_anything_is_written(name, make_trainer, tmp_path):
    trainer = find_variant(name).trainer
    message = rf"{trainer} needs at least 2 contrast phases, but the images have 1 channel \(CT\).*-tr SAMURIMSingle"
    with pytest.raises(UserError, match=re.compile(message, re.DOTALL)):
        make_trainer(trainer, plans(1), "CT")
    assert not list((tmp_path / "results").iterdir())


def test_single_phase_rows_take_any_number_of_phases(make_trainer):
    for content, names in ((plans(1), ["CT"]), (plans(3), ["CT"] * 3)):
        trainer = make_trainer("SAMURIMSingleURIMTrainer", content, *names)
        network = trainer.build_network_architecture(
            trainer.plans_manager, trainer.configuration_manager, len(names), 3
        )
        assert network.phases == 1 and network.stream_channels == 1
    assert {row.name for row in ROWS if row.phases == 1} == {"sam-urim-single", "sam-urim-single-urim"}


def test_slices_of_one_phase_are_not_phases():
    architecture = training_setup(find_variant("sam-urim"), plans()["configurations"]["2d"]).architecture
    architecture["arch_kwargs"]["channels_per_phase"] = 3
    with pytest.raises(UserError, match="the images have 3 channels"):
        require_phases(find_variant("sam-urim"), architecture, ["CT"] * 3)
    require_phases(find_variant("sam-urim"), architecture, ["CT"] * 6)


def test_livseg_plan_refuses_one_channel(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "Dataset009_Phases"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans(1)))
    (folder / "dataset.json").write_text(json.dumps(dataset_json("CT")))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    assert main(["plan", "-d", "9", "-m", "sam-urim"]) == 1
    assert "the images have 1 channel (CT)" in capsys.readouterr().err
    assert not (folder / "SAMURIMPlans.json").exists()
    assert main(["plan", "-d", "9", "-m", "sam-urim-single-urim"]) == 0


def test_the_trainer_tells_the_network_of_regions(make_trainer, monkeypatch):
    """Also at prediction, which builds the network from the plans that were saved with the model."""
    trainer = make_trainer("SAMURIMTrainer", plans(), "CT", "CT")
    described = dataset_json("CT", "CT") | {
        "labels": {"background": 0, "liver": [1, 2], "tumor": 2},
        "regions_class_order": [1, 2],
    }
    with_regions = TRAINERS["SAMURIMTrainer"](plans(), "2d", 0, described, torch.device("cpu"))
    for made_trainer, expected in ((trainer, False), (with_regions, True)):
        saved = made_trainer.plans_manager
        network = type(made_trainer).build_network_architecture(saved, saved.get_configuration("2d"), 2, 2)
        assert network.urim.regions == expected
