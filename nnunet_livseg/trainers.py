"""The classes that ``nnUNetv2_train -tr NAME`` finds: one with behaviour, and one per row of the table.

Everything that is not here is nnU-Net's: data loading, augmentation, sliding window, validation, export.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import autocast, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_livseg.data.dataset import channel_names
from nnunet_livseg.elastic import with_elastic
from nnunet_livseg.errors import UserError
from nnunet_livseg.files import atomic_path
from nnunet_livseg.inference.multiscale import checked_scales, nnunet_predicts_at
from nnunet_livseg.losses import LOSSES, MultiOutputLoss, target_strides
from nnunet_livseg.phases import require_phases
from nnunet_livseg.plans import KEY, Settings, settings
from nnunet_livseg.recipes import Recipe, is_best, learning_rate, reason_to_stop
from nnunet_livseg.transfer import load_matching
from nnunet_livseg.variants import VARIANTS, Variant

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
MOST_BAD_STEPS = 10  # in a row, before a training stops


class LivSegTrainer(nnUNetTrainer):
    """nnU-Net's trainer with the network, loss and recipe of a row of the table.

    Raises:
        UserError: The plans hold another variant, a geometry that the network does not exist in, or a bad recipe.
    """

    variant: Variant

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net reads this signature by inspection
    ) -> None:
        plans = self._with_regions(plans, configuration, dataset_json)
        chosen = self._settings(  # refuses before files are made
            PlansManager(plans), PlansManager(plans).get_configuration(configuration)
        )
        LOSSES[chosen.loss](PlansManager(plans).get_label_manager(dataset_json), False, False)  # so does the loss
        checked_scales(chosen.recipe.validation_scales)
        if self.variant.phases:
            require_phases(self.variant, chosen.architecture, channel_names(dataset_json))
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.recipe, self.loss_name = chosen.recipe, chosen.loss
        self.initial_lr = self.recipe.learning_rate
        self.weight_decay = self.recipe.weight_decay
        self.num_epochs = self.recipe.epochs
        self.num_iterations_per_epoch = self.recipe.iterations
        self.num_val_iterations_per_epoch = self.recipe.validation_iterations
        self.oversample_foreground_percent = self.recipe.foreground
        self.probabilistic_oversampling = self.recipe.probabilistic_oversampling
        self._last_saved = monotonic()
        self._bad_steps = 0
        self._has_weights = False  # from a checkpoint or from the recipe

    @classmethod
    def _settings(cls, plans_manager: PlansManager, configuration_manager: ConfigurationManager) -> Settings:
        return settings(cls.variant, configuration_manager.configuration, plans_manager.plans)

    @classmethod
    def _with_regions(cls, plans: dict, configuration: str, dataset_json: dict) -> dict:
        """Plans that say whether the dataset has regions; they stay with the model, where prediction finds them."""
        manager = PlansManager(plans)
        if not manager.get_label_manager(dataset_json).has_regions:
            return plans
        resolved = manager.get_configuration(configuration).configuration
        ours = {**resolved.get(KEY, {}), "regions": True}
        changed = {**plans["configurations"][configuration], KEY: ours}
        return {**plans, "configurations": {**plans["configurations"], configuration: changed}}

    # --- network ------------------------------------------------------------------------------------------------------

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The variant's network at the plans' geometry; nnU-Net calls this for training and for prediction."""
        architecture = cls._settings(plans_manager, configuration_manager).architecture
        return get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            num_input_channels,
            num_output_channels,
            allow_init=True,
            deep_supervision=enable_deep_supervision,
        )

    def bare_network(self) -> nn.Module:
        """The network without the wrappers of DDP and torch.compile."""
        network = self.network
        while isinstance(network, (DistributedDataParallel, OptimizedModule)):
            network = network.module if isinstance(network, DistributedDataParallel) else network._orig_mod
        return network

    def initialize(self) -> None:
        """As nnU-Net's; then the recipe's initial weights, unless a checkpoint is about to be loaded."""
        super().initialize()
        if not self.logger.resume:
            self._load_initial_weights()

    def _load_initial_weights(self) -> None:
        load_pretrained = getattr(self.bare_network(), "load_pretrained", None)  # not when predicting
        if not self._has_weights and load_pretrained is not None and (loaded := load_pretrained()):
            self.print_to_log_file(loaded)
        if self.recipe.init is not None and not self._has_weights:
            report = load_matching(self.bare_network(), Path(self.recipe.init), map_location=self.device)
            self.print_to_log_file(report.summary())
        self._has_weights = True

    # --- loss and recipe ----------------------------------------------------------------------------------------------

    def _get_deep_supervision_scales(self) -> list[list[float]]:
        strides = target_strides(self.bare_network().training_outputs())
        return [[1 / s for s in stride] for stride in strides]

    def _build_loss(self) -> nn.Module:
        loss = LOSSES[self.loss_name](self.label_manager, self.configuration_manager.batch_dice, self.is_ddp)
        return MultiOutputLoss(loss, self.bare_network().training_outputs(), self.recipe.auxiliary_decay)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, "RecipeSchedule"]:
        """Optimiser and schedule of the recipe."""
        make = OPTIMIZERS[self.recipe.optimizer]
        options: Mapping[str, Any] = self.recipe.optimizer_options
        optimizer = make(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay, **options)
        return optimizer, RecipeSchedule(optimizer, self.recipe, lambda: self.logger.get_value("val_losses", step=None))

    # --- data ---------------------------------------------------------------------------------------------------------

    def _set_batch_size_and_oversample(self) -> None:
        """As nnU-Net's; where chance decides about each patch, the share is the same in every process."""
        share = self.oversample_foreground_percent
        super()._set_batch_size_and_oversample()
        if self.probabilistic_oversampling:
            self.oversample_foreground_percent = share

    def get_dataloaders(self) -> tuple:
        """As nnU-Net's, with the recipe's elastic deformation in the training."""
        if self.recipe.elastic is not None:  # on the instance: for nnU-Net and subclasses the method stays a static one
            make = self.get_training_transforms
            self.get_training_transforms = with_elastic(make, self.recipe.elastic, self.print_to_log_file)
        return super().get_dataloaders()

    # --- training -----------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """As nnU-Net's; ``--c`` without a checkpoint starts a new training, from the recipe's initial weights."""
        if not self.was_initialized:
            self.initialize()
        self._load_initial_weights()
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        """As nnU-Net's; the weights of the outputs are those of this epoch."""
        super().on_train_epoch_start()
        self.loss.set_epoch(self.current_epoch)

    def train_step(self, batch: dict) -> dict:
        """As nnU-Net's, but a step whose loss or gradient is not finite changes nothing and is logged.

        Raises:
            UserError: ``MOST_BAD_STEPS`` such steps in a row.
        """
        data = batch["data"].to(self.device, non_blocking=True)
        target = [t.to(self.device, non_blocking=True) for t in batch["target"]]
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type, enabled=True) if self.device.type == "cuda" else dummy_context():
            loss = self.loss(self.network(data), target)
        if self.grad_scaler is not None:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
        else:
            loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        # without a scaler the gradient decides as well; with one, its first steps overflow by design and it skips them
        finite = bool(torch.isfinite(loss)) and (self.grad_scaler is not None or bool(torch.isfinite(norm)))
        self._count_bad_steps(finite, batch)
        if self.grad_scaler is not None:
            self.grad_scaler.step(self.optimizer)  # skips by itself where gradients are not finite
            self.grad_scaler.update()
        elif finite:
            self.optimizer.step()
        return {"loss": loss.detach().cpu().numpy() if finite else np.array(np.nan)}

    def _count_bad_steps(self, finite: bool, batch: dict) -> None:
        self._bad_steps = 0 if finite else self._bad_steps + 1
        if finite:
            return
        cases = ", ".join(map(str, batch.get("keys", ["unknown"])))
        self.print_to_log_file(f"Step skipped: loss or gradient is not finite (cases {cases}).")
        if self._bad_steps >= MOST_BAD_STEPS:
            raise UserError(
                f"{MOST_BAD_STEPS} training steps in a row had no finite loss or gradient; the last one on {cases}."
                "\n  Check these images (livseg check), or lower the learning rate (livseg plan --learning-rate)."
                "\n  The last checkpoint is from before: continue with --c."
            )

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """As nnU-Net's, over the steps that were not skipped."""
        super().on_train_epoch_end([o for o in train_outputs if np.isfinite(o["loss"])] or train_outputs)

    def on_epoch_end(self) -> None:
        """As nnU-Net's; the latest checkpoint is never older than the recipe's minutes and an epoch."""
        due = monotonic() - self._last_saved >= 60 * self.recipe.checkpoint_minutes
        self.save_every = 1 if due else self.num_epochs
        if self.recipe.best is not None:  # nnU-Net saves where its moving average beats _best_ema
            best = is_best(self.recipe.best, self.logger.get_value("mean_fg_dice", step=None))
            self._best_ema = None if best else np.inf
        super().on_epoch_end()
        self._stop_where_due()

    def _stop_where_due(self) -> None:
        if reason := reason_to_stop(self.recipe, self.logger.get_value("val_losses", step=None)):
            raise _EarlyStop(reason)

    def run_training(self) -> None:
        """As nnU-Net's; ends early where the recipe says so, at once where a continued training had ended."""
        try:
            self._stop_where_due()
            super().run_training()
        except _EarlyStop as stop:
            self.print_to_log_file(f"{stop}: training ends here.")
            self.on_train_end()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """As nnU-Net's, at the recipe's scales."""
        with nnunet_predicts_at(self.recipe.validation_scales, module=sys.modules[nnUNetTrainer.__module__]):
            super().perform_actual_validation(save_probabilities)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        """As nnU-Net's, but whole or not at all: a kill or a full disk leaves the previous checkpoint.

        Raises:
            UserError: The checkpoint could not be written.
        """
        if self.local_rank != 0 or self.disable_checkpointing:
            return super().save_checkpoint(filename)
        try:
            with atomic_path(filename) as temporary:
                super().save_checkpoint(str(temporary))
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise UserError(
                f"the checkpoint {filename} could not be written: {error}"
                "\n  The previous checkpoint is untouched. Free space or mend the permissions, then continue with --c."
            ) from error
        self._last_saved = monotonic()
        return None

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """As nnU-Net's; the recipe's initial weights are not loaded any more."""
        self._has_weights = True
        super().load_checkpoint(filename_or_checkpoint)


class RecipeSchedule:
    """Sets the learning rate of an epoch; nnU-Net calls ``step(epoch)`` before it.

    Args:
        optimizer: Whose learning rate is set.
        recipe: The schedule.
        validation_losses: Returns those of all epochs so far.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, recipe: Recipe, validation_losses: Callable[[], list[float]]
    ) -> None:
        self.optimizer, self.recipe, self.validation_losses = optimizer, recipe, validation_losses

    def step(self, epoch: int) -> None:
        """Set the learning rate of ``epoch`` (from 0)."""
        rate = learning_rate(self.recipe, epoch, self.validation_losses())
        for group in self.optimizer.param_groups:
            group["lr"] = rate


class _EarlyStop(Exception):
    """Leaves nnU-Net's training loop."""


def _trainer_for(variant: Variant) -> type[LivSegTrainer]:
    doc = f"{variant.name}: {variant.paper.citation}; {variant.reproduces}."
    return type(variant.trainer, (LivSegTrainer,), {"variant": variant, "__doc__": doc, "__module__": __name__})


TRAINERS = {variant.trainer: _trainer_for(variant) for variant in VARIANTS}
globals().update(TRAINERS)  # nnU-Net asks modules for the class by name
