"""A training with a seed gives the same weights however often it was interrupted."""

from pathlib import Path

import pytest
import torch

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.plans import Overrides, make_plans
from nnunet_livseg.recipes import NNUNET
from nnunet_livseg.trainers import TRAINERS
from nnunet_livseg.variants import find_variant

from .conftest import make, plans


class Power(Exception):
    """Goes out."""


def trained(content, *, cut_in=None, resume=False):
    """Weights after a training with nnU-Net's own loader; the power goes out in epoch ``cut_in``."""

    class Trainer(TRAINERS["DPCNetTrainer"]):
        def on_train_start(self):
            super().on_train_start()
            self.logger.plot_progress_png = lambda folder: None

        def validation_step(self, batch):
            if self.current_epoch == cut_in:
                raise Power
            return super().validation_step(batch)

    trainer = make(Trainer, content, resume=resume)
    if resume:
        trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    trainer.run_training()
    return {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}


@pytest.mark.parametrize("seed", [0, None])
def test_an_interrupted_training_with_a_seed_ends_in_the_same_weights(place, monkeypatch, seed):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    content = plans(epochs=3, seed=seed, checkpoint_minutes=0)
    whole = trained(content)
    with pytest.raises(Power):
        trained(content, cut_in=2)
    continued = trained(content, resume=True)
    same = all(torch.equal(whole[name], continued[name]) for name in whole)
    assert same == (seed is not None)


def test_seeds_differ_in_the_recipe_alone_and_share_preprocessed_data():
    stock = plans()
    for configuration in stock["configurations"].values():
        del configuration["livseg"]
        configuration["median_image_size_in_voxels"] = [10.0, 24.0, 20.0]
    of_seed = [
        make_plans(
            stock,
            find_variant("dpcnet"),
            preset="default",
            name=f"APlansSeed{seed}",
            overrides=Overrides(seed=seed, spacing_mm=(3.0, 2.0, 2.0), configurations=("3d_fullres",)),
        )["configurations"]["3d_fullres"]
        for seed in (1, 2)
    ]
    assert of_seed[0]["data_identifier"] == of_seed[1]["data_identifier"] == "APlans_3d_fullres"
    seeds = [configuration["livseg"]["recipe"].pop("seed") for configuration in of_seed]
    assert seeds == [1, 2] and of_seed[0] == of_seed[1]


def test_a_seed_is_a_whole_number():
    with pytest.raises(UserError, match=r"the seed is 1.5, but must be a whole number"):
        NNUNET.replace(seed=1.5)
