"""Schedules against torch's and nnU-Net's own, and recipes that make no sense."""

import json

import numpy as np
import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.recipes import Recipe, is_best, learning_rate, reason_to_stop

LOSSES = [1.0, 0.9, 0.95, 0.91, 0.9, 0.89999, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86]


def optimizer(rate):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)


def test_poly_is_nnunets():
    sgd = optimizer(0.01)
    schedule = PolyLRScheduler(sgd, 0.01, 50)
    for epoch in (0, 1, 17, 49):
        schedule.step(epoch)
        assert learning_rate(Recipe(epochs=50), epoch, []) == pytest.approx(sgd.param_groups[0]["lr"])


def test_plateau_is_torchs():
    sgd = optimizer(0.1)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, factor=0.5, patience=1)
    recipe = Recipe(learning_rate=0.1, schedule="plateau", schedule_options={"factor": 0.5, "patience": 1})
    for epoch, loss in enumerate(LOSSES):
        assert learning_rate(recipe, epoch, LOSSES[:epoch]) == pytest.approx(sgd.param_groups[0]["lr"]), epoch
        torchs.step(loss)


def test_plateau_after_a_continued_training_is_the_same():
    """Only the past losses decide, and a checkpoint holds them; the loss of the running epoch is not read."""
    recipe = Recipe(schedule="plateau", schedule_options={"factor": 0.5, "patience": 0})
    assert learning_rate(recipe, 5, LOSSES[:5]) == learning_rate(recipe, 5, LOSSES)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_loss_that_is_no_number_is_beaten_by_every_other(odd):
    recipe = Recipe(stop_after=3, schedule="plateau", schedule_options={"factor": 0.5, "patience": 1})
    losses = [odd, 1.0, odd, 0.9, odd, 0.8]
    assert reason_to_stop(recipe, losses) is None
    assert learning_rate(recipe, 6, losses) == recipe.learning_rate
    assert is_best({"above": 0.0, "after": 0}, [0.5, np.nan, 0.9]) and not is_best({"above": 0.0, "after": 0}, [np.nan])


def test_step_decay():
    recipe = Recipe(learning_rate=1.0, schedule="step", schedule_options={"every": 50, "factor": 0.1})
    assert [learning_rate(recipe, epoch, []) for epoch in (0, 49, 50, 100)] == pytest.approx([1, 1, 0.1, 0.01])


def test_early_stopping():
    recipe = Recipe(stop_after=3)
    assert reason_to_stop(recipe, [1.0, 0.9, 0.95, 0.93]) is None
    assert reason_to_stop(recipe, [1.0, 0.9, 0.95, 0.93, 0.92]) is not None
    assert reason_to_stop(Recipe(), [1.0] * 500) is None


def test_plans_hold_a_recipe_whole():
    recipe = Recipe(
        optimizer="adam", optimizer_options={}, schedule="step", schedule_options={"every": 2, "factor": 0.5}
    )
    assert Recipe().with_entries(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 5}, "unknown entries epoch; known entries:"),
        ({"schedule": "cosine"}, "schedule 'cosine' is unknown; known: constant, poly"),
        ({"epochs": 0}, "epochs is 0, but a training needs a whole number of at least 1"),
        ({"iterations": 2.5}, "iterations is 2.5, but a training needs a whole number"),
        ({"learning_rate": -1.0}, "the learning rate is -1.0, but must be above 0"),
        ({"optimizer": "sdg"}, "optimizer 'sdg' is unknown; known: adam, adamw, sgd"),
    ],
)
def test_recipes_without_sense_are_refused(content, message):
    with pytest.raises(UserError, match=message):
        Recipe().with_entries(content)
