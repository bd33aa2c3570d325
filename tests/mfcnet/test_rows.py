"""MFCNet's rows: presets into plans, recipe, options of the command line, weights in trainers."""

import pytest
import torch

from nnunet_livseg.cli.shared_options import options_of
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.plans import Overrides, make_plans, training_setup
from nnunet_livseg.recipes import Recipe, learning_rate, reason_to_stop
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.rows.mfcnet import RECIPE, ROWS
from nnunet_livseg.trainers import TRAINERS

ROW = {row.name: row for row in ROWS}


def _stock():
    configuration = stock_configuration(2) | {"data_identifier": "nnUNetPlans_2d"}
    configuration |= {"median_image_size_in_voxels": [512.0, 512.0], "spacing": [0.7676, 0.7676]}
    return {"plans_name": "nnUNetPlans", "configurations": {"2d": configuration}}


def _plans(row="mfcnet", preset="paper", **overrides):
    plans = make_plans(_stock(), ROW[row], preset=preset, name="XPlans", overrides=Overrides(**overrides))
    return plans["configurations"]["2d"]


def test_the_papers_preset():
    configuration = _plans()
    assert configuration["patch_size"] == [448, 448]
    assert configuration["batch_size"] == 8
    assert [round(448 * s / 512, 3) for s in configuration["spacing"]] == [0.767, 0.767]  # the whole slice of LiTS
    assert configuration["livseg"]["loss"] == "ce"
    assert training_setup(ROW["mfcnet"], configuration).recipe == RECIPE.replace(
        iterations=719, validation_iterations=180
    )


@pytest.mark.parametrize(("row", "count"), [("mfcnet-backbone", 29_003_093), ("mfcnet", 29_003_093 + 108_086)])
def test_the_papers_preset_has_the_papers_counts(row, count):
    with torch.device("meta"):
        network = build(_plans(row), ROW[row], channels=3, classes=1, initialize=False)
    assert sum(p.numel() for p in network.parameters()) == count
    sizes = [tuple(y.shape[2:]) for y in network.encoder(torch.empty(1, 3, 448, 448, device="meta"))]
    assert sizes == [(224, 224), (112, 112), (56, 56), (28, 28), (14, 14)]


def test_rows_differ_as_they_say():
    with torch.device("meta"):
        extractors = {
            name: [sorted(getattr(block, "extractors", {})) for block in build(_plans(name), row).context]
            for name, row in ROW.items()
            if row.network.endswith(".MFCNet")
        }
    both, none = [["channel", "spatial"]] * 3, [[]] * 3
    assert extractors == {
        "mfcnet": both,
        "mfcnet-backbone": none,
        "mfcnet-spatial": [["spatial"]] * 3,
        "mfcnet-senet": none,
        "mfcnet-channel": [["channel"]] * 3,
        "mfcnet-energy-danet": both,
        "mfcnet-energy-scaled": both,
    }


# --- recipe -----------------------------------------------------------------------------------------------------------


def test_rate_is_halved_after_ten_epochs_without_a_better_loss():
    losses = [1.0, *[2.0] * 30]
    rates = [learning_rate(RECIPE, epoch, losses) for epoch in (0, 11, 12, 22, 23)]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 1e-4, 5e-5])


def test_training_stops_after_20_epochs_without_a_better_loss():
    assert reason_to_stop(RECIPE, [1.0, *[2.0] * 19]) is None
    assert reason_to_stop(RECIPE, [1.0, *[2.0] * 20]) is not None


def test_training_stops_when_the_rate_is_too_small():
    losses = []
    for cycle in range(9):  # a better loss, then 11 epochs that halve the rate: 2e-4 / 2**9 < 5e-7 < 2e-4 / 2**8
        losses += [1 - cycle / 10, *[2.0] * 11]
    assert learning_rate(RECIPE, len(losses) - 1, losses) == pytest.approx(2e-4 / 2**8)
    assert reason_to_stop(RECIPE, losses[:-1]) is None
    assert reason_to_stop(RECIPE, losses) is not None
    assert reason_to_stop(RECIPE, losses) == "The learning rate would fall to 3.9e-07, below 5e-07"
    assert reason_to_stop(RECIPE.replace(stop_below=None), losses) is None
    at_its_end = Recipe(epochs=3, stop_below=1.0)  # nnU-Net's schedule is at 0 there, and the training over anyway
    assert reason_to_stop(at_its_end, [1.0, 1.0, 1.0]) is None


# --- options on the command line --------------------------------------------------------------------------------------


def test_options_of_the_network_go_into_the_plans():
    kwargs = _plans(options={"context_skips": [3], "channel_energy": "scaled"})["architecture"]["arch_kwargs"]
    assert kwargs["context_skips"] == [3]
    assert kwargs["channel_energy"] == "scaled"
    with pytest.raises(
        UserError, match=r"(?s)no option 'energy'\. Did you mean channel_energy.*It has spatial_context"
    ):
        _plans(options={"energy": "scaled"})


def test_reading_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet34.pth").touch()
    given = ["context_skips=[2, 3]", "spatial_context=false", "weights=imagenet"]
    assert options_of(given) == {"context_skips": [2, 3], "spatial_context": False, "weights": "imagenet"}
    assert options_of(["weights=resnet34.pth"]) == {"weights": str(tmp_path / "resnet34.pth")}
    with pytest.raises(UserError, match="--option weights has no value"):
        options_of(["weights"])


# --- weights in trainers ----------------------------------------------------------------------------------------------


class _Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.loads = 0

    def load_pretrained(self):
        self.loads += 1
        return "loaded"


@pytest.mark.parametrize("has_weights", [False, True])
def test_a_new_training_loads_weights_once_and_a_resumed_one_never(has_weights):
    trainer = object.__new__(TRAINERS["MFCNetTrainer"])
    trainer.network, trainer.recipe, trainer._has_weights = _Network(), RECIPE, has_weights
    log = []
    trainer.print_to_log_file = log.append
    trainer._load_initial_weights()
    trainer._load_initial_weights()
    assert trainer.network.loads == len(log) == (0 if has_weights else 1)
