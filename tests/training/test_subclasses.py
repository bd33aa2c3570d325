"""What a subclass may set and override of nnU-Net's trainer does the same on top of ours: nnU-Net is the oracle."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerCELoss import nnUNetTrainerCELoss
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerDiceLoss import nnUNetTrainerDiceLoss
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainer_warmup import nnUNetTrainer_warmup
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainerCosAnneal import nnUNetTrainerCosAnneal
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (
    nnUNetTrainerNoDeepSupervision,
)
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam
from nnunetv2.training.nnUNetTrainer.variants.sampling.nnUNetTrainer_probabilisticOversampling import (
    nnUNetTrainer_probabilisticOversampling,
)
from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import nnUNetTrainer_1epoch

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.reference_networks import stock_configuration
from nnunet_livseg.trainers import TRAINERS
from nnunet_livseg.variants import VARIANTS, is_installed

from .conftest import WithRandomBatches, dataset_json, make, plans

CPU = torch.device("cpu")
HOW_LONG = {"num_epochs": 3, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1}


class Recorded(WithRandomBatches):
    """Goes before a trainer; keeps what came of its attributes."""

    def __init__(self, plans, configuration, fold, dataset_json, device=CPU):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.saved, self.steps = [], {"train": 0, "validation": 0}

    def save_checkpoint(self, filename):
        self.saved.append((filename.rsplit("/", 1)[1], self.current_epoch))
        super().save_checkpoint(filename)

    def train_step(self, batch):
        self.steps["train"] += 1
        return super().train_step(batch)

    def validation_step(self, batch):
        self.steps["validation"] += 1
        return super().validation_step(batch)


def sets(**attributes):
    """A class that sets these after ``super().__init__``, as people do."""

    class Setting:
        def __init__(self, plans, configuration, fold, dataset_json, device=CPU):
            super().__init__(plans, configuration, fold, dataset_json, device)
            for name, value in {**HOW_LONG, **attributes}.items():
                setattr(self, name, value)

    return Setting


SUBCLASSES = {
    "nothing": [sets()],
    "rate and length": [sets(initial_lr=1e-3, num_epochs=4)],
    "steps": [sets(num_iterations_per_epoch=3, num_val_iterations_per_epoch=2)],
    "weight decay": [sets(weight_decay=0.1)],
    "foreground": [sets(oversample_foreground_percent=0.9)],
    "latest often": [sets(save_every=1)],
    "latest at every second": [sets(save_every=2, num_epochs=6)],
    "no checkpoints": [sets(disable_checkpointing=True)],
    "no deep supervision": [sets(enable_deep_supervision=False)],
    "NoDeepSupervision": [sets(), nnUNetTrainerNoDeepSupervision],
    "Adam": [sets(), nnUNetTrainerAdam],
    "CosAnneal": [sets(), nnUNetTrainerCosAnneal],
    "warmup": [sets(), nnUNetTrainer_warmup],
    "DiceLoss": [sets(), nnUNetTrainerDiceLoss],
    "CELoss": [sets(), nnUNetTrainerCELoss],
    "BN": [sets(), nnUNetTrainerBN],
    "probabilistic": [sets(), nnUNetTrainer_probabilisticOversampling],
    "1epoch": [nnUNetTrainer_1epoch, sets()],
}


def trained(parts, base):
    """Train a subclass of ``base`` to its end; returns what came of it."""
    trainer = make(type(f"Mine{base.__name__}", (Recorded, *parts, base), {}), plans(iterations=7, epochs=7))
    trainer.run_training()
    log = trainer.logger.get_checkpoint()
    folder = Path(trainer.output_folder)
    (group,) = trainer.optimizer.param_groups
    best = {epoch for name, epoch in trainer.saved if name == "checkpoint_best.pth"}
    return trainer, {
        "lrs": log["lrs"],
        "epochs": len(log["train_losses"]),
        "steps": trainer.steps,
        "optimizer": (type(trainer.optimizer), group["weight_decay"], group.get("momentum")),
        "schedule": type(trainer.lr_scheduler).__name__.replace("RecipeSchedule", "PolyLRScheduler"),
        "foreground": (trainer.oversample_foreground_percent, trainer.probabilistic_oversampling),
        "latest and final": [one for one in trainer.saved if one[0] != "checkpoint_best.pth"],
        "there is a best": 0 in best,
        "files": sorted(path.name for path in folder.glob("*.pth")),
        "finite": bool(np.isfinite(log["train_losses"] + log["val_losses"]).all()),
        "deep supervision": trainer.dataloader_train.scales is not None,
        "wrapped": isinstance(trainer.loss, DeepSupervisionWrapper),
        "in debug.json": json.loads((folder / "debug.json").read_text())["initial_lr"],
    }


@pytest.mark.parametrize("parts", SUBCLASSES.values(), ids=SUBCLASSES)
def test_a_subclass_of_ours_does_what_one_of_nnunets_does(place, parts):
    _, theirs = trained(parts, nnUNetTrainer)
    ours_trained, ours = trained(parts, TRAINERS["DPCNetTrainer"])
    if "_build_loss" not in {name for part in parts for name in vars(part)}:
        del theirs["wrapped"], ours["wrapped"]  # the wrapper of ours is another one
    assert ours == theirs
    assert all(torch.isfinite(p).all() for p in ours_trained.network.parameters())


@pytest.mark.parametrize("variant", [row for row in VARIANTS if is_installed(row)], ids=lambda variant: variant.name)
def test_every_network_trains_without_deep_supervision(place, narrow_networks, variant):
    dim, channels = min(variant.dims), max(1, variant.phases)
    content = plans(channels=channels)
    configuration = stock_configuration(dim, patch=(32,) * dim, features=(4, 6, 8, 10, 12))
    content["configurations"]["2d"] |= {key: configuration[key] for key in ("patch_size", "architecture")}
    trainer = make(TRAINERS[variant.trainer], content, described=dataset_json(channels=channels))
    trainer.enable_deep_supervision = False
    trainer.network = trainer.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, channels, 3, trainer.enable_deep_supervision
    )
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
    trainer.loss = trainer._build_loss()
    assert trainer._get_deep_supervision_scales() is None
    shape = (2, channels, *[32] * dim)
    batch = {"data": torch.randn(shape), "target": torch.randint(0, 3, (2, 1, *shape[2:])), "keys": []}
    assert np.isfinite(trainer.train_step(batch)["loss"])
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(batch)["loss"])


@pytest.mark.parametrize("name", ["MPUNetUNetTrainer", "DPCNetTrainer"])
def test_a_loss_of_ones_own_gets_a_target_for_every_output(place, name):
    """As in nnU-Net, whose losses go through outputs and targets side by side; here several have the same size."""

    class Halved(torch.nn.Module):
        def __init__(self, ours):
            super().__init__()
            self.ours = ours

        def forward(self, outputs, targets):
            assert [o.shape[2:] for o in outputs] == [t.shape[2:] for t in targets]
            return self.ours(outputs, targets) / 2

    class Own:
        def _build_loss(self):
            return Halved(super()._build_loss())

    trainer = make(type("OwnTrainer", (WithRandomBatches, sets(num_epochs=1), Own, TRAINERS[name]), {}))
    trainer.run_training()
    outputs = trainer.network.training_outputs()
    assert len(trainer._get_deep_supervision_scales()) == len(outputs) > len(set(trainer.loss.ours.target_of))
    assert np.isfinite(trainer.logger.get_value("train_losses", step=None)).all()


def test_a_loss_that_weighs_nothing_is_refused_at_the_start(place):
    trainer = make(type("OneOutputTrainer", (nnUNetTrainerDiceLoss, TRAINERS["DPCNetUNetTrainer"]), {}))
    with pytest.raises(UserError, match=r"OneOutputTrainer skips the last output.*only one.\n.*= False in its"):
        trainer.initialize()
