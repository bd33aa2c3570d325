"""MPU-Net's recipe: weights of the outputs by epoch, the best checkpoint, regions, presets."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.losses import LOSSES, MultiOutputLoss
from nnunet_livseg.networks.mpunet import MPUNet
from nnunet_livseg.networks.outputs import TrainingOutput
from nnunet_livseg.plans import KEY, Overrides, make_plans, training_setup
from nnunet_livseg.recipes import Recipe, is_best, is_best_so_far, learning_rate
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.trainers import LivSegTrainer
from nnunet_livseg.training.plans_for_dataset import plans_for_dataset
from nnunet_livseg.variants import find_variant

from .conftest import SIZE, geometry

MPUNET = find_variant("mpunet")
DECAY = {"every": 30, "factor": 0.8}
OUTPUTS = [TrainingOutput("fused", (1, 1), 1.0), TrainingOutput("p1", (1, 1), 0.4), TrainingOutput("p2", (1, 1), 0.2)]


# --- the weights of the outputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch", "alpha"), [(0, 0.4), (29, 0.4), (30, 0.32), (59, 0.32), (60, 0.256), (599, 0.4 * 0.8**19)]
)
def test_alpha_decays_every_30_epochs(epoch, alpha):
    """As the authors' ``if epoch % 30 == 0: alpha *= 0.8`` after each epoch, counted from 1."""
    loss = MultiOutputLoss(nn.L1Loss(), OUTPUTS, MPUNET.recipe.auxiliary_decay)
    loss.set_epoch(epoch)
    assert loss.weights[1] == pytest.approx(alpha)


def test_only_the_first_output_keeps_its_weight():
    loss = MultiOutputLoss(nn.L1Loss(), OUTPUTS, DECAY)
    outputs, targets = [torch.full((1, 1, 2, 2), value) for value in (1.0, 10.0, 100.0)], [torch.zeros(1, 1, 2, 2)]
    assert loss(outputs, targets).item() == pytest.approx(1 + 4 + 20)
    loss.set_epoch(65)
    assert loss(outputs, targets).item() == pytest.approx(1 + 0.64 * 4 + 0.64 * 20)
    loss.set_epoch(0)
    assert loss(outputs, targets).item() == pytest.approx(1 + 4 + 20)


def test_without_decay_nothing_changes():
    loss = MultiOutputLoss(nn.L1Loss(), OUTPUTS)
    loss.set_epoch(500)
    assert loss.weights == [1.0, 0.4, 0.2]


def test_a_continued_training_has_the_weights_of_its_epoch(monkeypatch):
    """After --c nnU-Net sets the epoch from the checkpoint; no state of ours is needed."""
    monkeypatch.setattr(nnUNetTrainer, "on_train_epoch_start", lambda self: None)
    trainer = object.__new__(LivSegTrainer)
    trainer.loss, trainer.current_epoch = MultiOutputLoss(nn.L1Loss(), OUTPUTS, DECAY), 90
    trainer.recipe = Recipe()
    trainer.on_train_epoch_start()
    assert trainer.loss.weights == pytest.approx([1.0, 0.4 * 0.8**3, 0.2 * 0.8**3])


def equation_19(fused, maps, labels):
    """As printed, of probabilities ``(K, N)`` and labels ``(N,)`` of one case; the readings are the page's."""
    truth = labels == np.arange(3)[:, None]
    index = []
    for p, g in zip(fused[1:], truth[1:], strict=True):
        hits, wrong, missed = p[g].sum(), p[~g].sum(), (1 - p[g]).sum()
        index.append((hits + 1) / (hits + 0.3 * wrong + 0.7 * missed + 1))
    entropy = sum(-np.where(truth, np.log(p), np.log(1 - p)).mean() for p in maps)
    return 1 - np.mean(index) + entropy


def test_preset_text_trains_equation_19(dim):
    """Tversky of the fused map once, cross-entropy of all four maps, and neither decays."""
    preset = MPUNET.presets["text"]
    options = {"dropout": 0.0, "supervision": preset.options["supervision"]}
    torch.manual_seed(0)
    network = MPUNet(1, 3, deep_supervision=True, **geometry(dim), **options).double()
    x = torch.randn(2, 1, *SIZE[:dim], dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 1, *SIZE[:dim]))
    outputs = network(x)
    assert len(outputs) == len(network.training_outputs()) == 5
    manager = LabelManager({"background": 0, "liver": 1, "tumor": 2}, None)
    loss = MultiOutputLoss(
        LOSSES[MPUNET.loss](manager, False, False), network.training_outputs(), preset.recipe.auxiliary_decay
    )
    loss.set_epoch(599)
    p = [output.softmax(1).flatten(2).detach().numpy() for output in outputs]
    np.testing.assert_allclose(p[0], np.mean(p[1:], 0), rtol=1e-6)
    expected = np.mean([equation_19(p[0][i], [m[i] for m in p[1:]], labels[i].flatten().numpy()) for i in range(2)])
    assert loss(outputs, [labels]).item() == pytest.approx(expected, rel=1e-5)


def test_learning_rate_halves_every_100_epochs():
    rates = [learning_rate(MPUNET.recipe, epoch, []) for epoch in (0, 99, 100, 250, 599)]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 2.5e-5, 1e-4 / 32])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"auxiliary_decay": {"every": 30}},
            r"auxiliary_decay is \{'every': 30\}, but must have the entries every and",
        ),
        ({"auxiliary_decay": {"every": 0, "factor": 0.8}}, "'every' must be at least 1 epoch"),
        ({"auxiliary_decay": {"every": 30, "factor": 0}}, "and 'factor' above 0"),
        ({"best": {"above": 0.9}}, "best is .* but must have the entries above and after"),
    ],
)
def test_bad_entries_of_the_recipe_are_refused(entries, message):
    with pytest.raises(UserError, match=message):
        Recipe().with_entries(entries)


def test_recipe_survives_the_plans_file():
    assert Recipe().with_entries(MPUNET.recipe.to_dict()) == MPUNET.recipe


# --- the best checkpoint ----------------------------------------------------------------------------------------------


def saved(rule, dices):
    return [epoch for epoch in range(len(dices)) if is_best(rule, dices[: epoch + 1])]


def test_best_is_the_highest_dice():
    assert saved({"above": 0.0, "after": 0}, [0.5, 0.4, 0.6, 0.6, 0.7, 0.1]) == [0, 2, 4]


def test_best_waits_for_epochs_above_a_dice():
    """The first is the fourth that is above 0.9, whatever came before."""
    dices = [0.91, 0.99, 0.5, 0.92, 0.93, 0.8, 0.94, 0.7, 0.935]
    assert saved({"above": 0.9, "after": 3}, dices) == [4, 6]
    assert saved({"above": 0.9, "after": 50}, dices) == []


def test_until_the_rule_applies_the_best_so_far_stands_in():
    """So that there is a best checkpoint from the first epoch on, as in nnU-Net, whatever the validation finds."""
    dices = [np.nan, 0.0, 0.5, 0.4, 0.91, 0.92, 0.2, 0.91, 0.93]
    rule = {"above": 0.9, "after": 2}
    assert [epoch for epoch in range(9) if is_best_so_far(rule, dices[: epoch + 1])] == [0, 1, 2, 4, 5, 7, 8]
    assert [epoch for epoch in range(9) if is_best(rule, dices[: epoch + 1])] == [7, 8]


@pytest.mark.parametrize(("dices", "expected"), [([0.5, 0.6], True), ([0.6, 0.5], False)])
def test_trainer_saves_the_best_by_the_recipe(monkeypatch, dices, expected):
    """nnU-Net saves where its moving average is above ``_best_ema``."""
    seen = []

    def stock(self):
        seen.append(self._best_ema is None or self._best_ema < 0.55)

    monkeypatch.setattr(nnUNetTrainer, "on_epoch_end", stock)
    trainer = object.__new__(LivSegTrainer)
    trainer.recipe, trainer._last_saved, trainer.num_epochs = MPUNET.recipe, 0.0, 600
    trainer.logger = SimpleNamespace(get_value=lambda name, step: dices if name == "mean_fg_dice" else [1.0, 0.9])
    trainer._best_ema, trainer.save_every, trainer.lr_scheduler = 0.1, 50, None
    trainer.on_epoch_end()
    assert seen == [expected]


# --- regions ----------------------------------------------------------------------------------------------------------


def test_regions_make_the_heads_sigmoid():
    configuration = stock_configuration(3)
    assert "heads" not in training_setup(MPUNET, configuration).architecture["arch_kwargs"]
    with_regions = configuration | {KEY: {"regions": True}}
    assert training_setup(MPUNET, with_regions).architecture["arch_kwargs"]["heads"] == "sigmoid"
    dpcnet = find_variant("dpcnet")
    assert training_setup(dpcnet, with_regions).architecture == training_setup(dpcnet, configuration).architecture


def test_trainer_writes_regions_into_the_models_plans():
    plans = {"plans_name": "X", "label_manager": "LabelManager", "configurations": {"2d": stock_configuration(2)}}
    plans["configurations"]["child"] = {"inherits_from": "2d"}
    plans["configurations"]["2d"][KEY] = {"variant": "mpunet", "loss": "tversky_ce"}
    labels = {"labels": {"background": 0, "liver": 1, "tumor": 2}}
    regions = {"labels": {"background": 0, "liver": [1, 2], "tumor": 2}, "regions_class_order": [1, 2]}
    trainer = {"variant": MPUNET, "channels": 1}
    assert plans_for_dataset(plans, "2d", labels, **trainer) is plans
    for name in ("2d", "child"):
        changed = plans_for_dataset(plans, name, regions, **trainer)
        assert changed["configurations"][name][KEY] == {"variant": "mpunet", "loss": "tversky_ce", "regions": True}
        again = plans_for_dataset(changed, name, labels, **trainer)  # plans of a shared model, for another dataset
        assert again["configurations"][name][KEY] == {"variant": "mpunet", "loss": "tversky_ce"}
    assert "regions" not in plans["configurations"]["2d"][KEY], "the plans that were passed in must stay as they are"


# --- presets ----------------------------------------------------------------------------------------------------------


def lits_plans():
    configuration = stock_configuration(3)
    configuration |= {
        "spacing": [1.0, 0.767578125, 0.767578125],
        "median_image_size_in_voxels": [432.0, 512.0, 512.0],
        "data_identifier": "nnUNetPlans_3d_fullres",
    }
    intensities = {"0": {"mean": 99.0, "std": 39.0, "percentile_00_5": -17.0, "percentile_99_5": 201.0}}
    return {
        "plans_name": "nnUNetPlans",
        "configurations": {"3d_fullres": configuration},
        "foreground_intensity_properties_per_channel": intensities,
    }


@pytest.mark.parametrize(
    ("variant", "preset", "total", "trained"),
    [
        ("mpunet", "paper", 21_507_255, 21_507_255),
        ("mpunet", "code", 22_557_009, 21_507_255),
        ("mpunet-unet", "paper", 2_326_638, 2_326_638),
        ("mpunet-unet", "code", 2_326_638, 2_326_638),
    ],
)
def test_presets_are_the_papers_numbers(variant, preset, total, trained):
    row = find_variant(variant)
    plans = make_plans(lits_plans(), row, preset=preset, name="X", overrides=Overrides())
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["patch_size"] == [48, 256, 256]
    assert configuration["batch_size"] == 1
    ct = plans["foreground_intensity_properties_per_channel"]["0"]
    values = np.array([-1000, -200, 0, 100, 200, 1000])
    clipped = np.clip(values, ct["percentile_00_5"], ct["percentile_99_5"])
    np.testing.assert_allclose((clipped - ct["mean"]) / ct["std"], np.clip(values, -200, 200) / 200)  # preprocess.py
    recipe = configuration[KEY]["recipe"]
    assert (recipe["epochs"], recipe["iterations"], recipe["validation_iterations"]) == (600, 88, 22)
    assert configuration[KEY]["loss"] == ("tversky_ce_code" if preset == "code" else "tversky_ce")
    with torch.device("meta"):
        network = build(configuration, row, channels=1, classes=2, initialize=False)
    assert sum(p.numel() for p in network.parameters()) == total
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trained


def test_text_preset_has_the_parts_that_the_count_lacks():
    plans = make_plans(lits_plans(), MPUNET, preset="text", name="X", overrides=Overrides())
    with torch.device("meta"):
        network = build(plans["configurations"]["3d_fullres"], MPUNET, classes=2, initialize=False)
    seen = []
    network.context.embed.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[2:]))
    network(torch.empty(1, 1, 48, 256, 256, device="meta"))
    assert tuple(network.context.embed.embedding.shape[2:]) == tuple(seen[0]) == (6, 32, 32)
    assert sum(p.numel() for p in network.parameters()) == 25_136_975
