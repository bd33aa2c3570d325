"""The classes that ``nnUNetv2_train -tr NAME`` finds: one with behavior, and one per row of the table.

Everything that is not here is nnU-Net's: data loading, augmentation, sliding window, validation, export.
"""

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, autocast, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_livseg.core.allocator import keep_pages
from nnunet_livseg.core.dataset_json import channel_names, read_splits, require_trainable
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import remove_leftovers
from nnunet_livseg.losses import LOSSES, MultiOutputLoss, target_strides
from nnunet_livseg.multiscale import checked_scales, multiscale_prediction
from nnunet_livseg.networks.outputs import TrainingOutput, nnunet_outputs
from nnunet_livseg.phases import require_phases, with_image_channels
from nnunet_livseg.plans import KEY, TrainingSetup, training_setup
from nnunet_livseg.recipes import RecipeSchedule, is_best_so_far, reason_to_stop
from nnunet_livseg.training.augmentation import after_the_spatial, ct_steps, with_elastic
from nnunet_livseg.training.checkpoints import FINAL, fitting_checkpoint, write_checkpoint
from nnunet_livseg.training.interrupts import AskedToLeave, StopSignals, leave, save_and_leave
from nnunet_livseg.training.plans_for_dataset import plans_for_dataset
from nnunet_livseg.training.preprocessed_data import require_matching_data
from nnunet_livseg.training.transfer import load_matching
from nnunet_livseg.variants import OWN, VARIANTS, Variant, require_installed

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
MAX_BAD_STEPS = 10  # in a row, before a training stops


class LivSegTrainer(nnUNetTrainer):
    """nnU-Net's trainer with the network, loss and recipe of a row of the table.

    By itself it trains a network of the user's (``livseg plan --network``). A subclass may set and override what it may
    of nnU-Net's trainer: the recipe only fills nnU-Net's own attributes.

    Raises:
        UserError: The plans hold another variant, a geometry that the network does not exist in, or a bad recipe; or a
            library is missing.
    """

    variant: Variant = OWN

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net reads this signature by inspection
    ) -> None:
        require_installed(self.variant)
        require_trainable(dataset_json)
        channels = channel_names(dataset_json)
        plans = plans_for_dataset(plans, configuration, dataset_json, variant=self.variant, channels=len(channels))
        chosen = self._settings(  # rejects before files are made
            PlansManager(plans), PlansManager(plans).get_configuration(configuration)
        )
        if self._has_row_loss():
            LOSSES[chosen.loss](PlansManager(plans).get_label_manager(dataset_json), False, False)  # so does the loss
        checked_scales(chosen.recipe.validation_scales)
        if self.variant.phases:
            require_phases(self.variant, chosen.architecture, channels)
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
        self._stop_signals = StopSignals()

    @classmethod
    def _settings(cls, plans_manager: PlansManager, configuration_manager: ConfigurationManager) -> TrainingSetup:
        configuration = configuration_manager.configuration
        chosen = training_setup(cls.variant, configuration, plans_manager.plans)
        return replace(chosen, architecture=with_image_channels(chosen.architecture, configuration.get(KEY, {})))

    @classmethod
    def architecture(
        cls, plans_manager: PlansManager, configuration_manager: ConfigurationManager
    ) -> Mapping[str, Any] | None:
        """The network, as ``architecture`` of nnU-Net's plans; None if a subclass builds another one."""
        if cls.build_network_architecture.__func__ is not LivSegTrainer.build_network_architecture.__func__:
            return None
        return cls._settings(plans_manager, configuration_manager).architecture

    @classmethod
    def _has_row_loss(cls) -> bool:
        """Whether the loss is that of the row or recipe, and not a subclass's."""
        return cls._build_loss is LivSegTrainer._build_loss

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
        """As nnU-Net's; before it, the data must belong to the plans, and after it the recipe's initial weights are
        loaded, unless a checkpoint is about to be.
        """
        if self.preprocessed_dataset_folder is not None:
            require_matching_data(
                Path(self.preprocessed_dataset_folder), self.plans_manager, self.configuration_name, self.dataset_json
            )
        self._seed(0)
        super().initialize()
        self._require_weighted_outputs()
        if not self.logger.resume:
            self._load_initial_weights()

    def _seed(self, stage: int) -> None:
        """Start the random numbers of a stage where the recipe has a seed: 0 initial weights, 1 the first epoch, ...

        So an epoch that ``--c`` repeats draws what it drew before, as far as no worker processes draw (nnU-Net lets
        chance seed those).
        """
        if self.recipe.seed is None:
            return
        rank = getattr(self, "global_rank", self.local_rank)
        number = int(np.random.SeedSequence([self.recipe.seed, stage, rank]).generate_state(1)[0])
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002 - which nnU-Net draws from
        torch.manual_seed(number)

    def _require_weighted_outputs(self) -> None:
        """A subclass's loss that skips the last output, as nnU-Net's do, must have one before it."""
        if not np.isfinite(getattr(self.loss, "weight_factors", 0.0)).all():
            raise UserError(
                f"the loss of {type(self).__name__} skips the last output, as nnU-Net's losses do, but the "
                f"network of {self.variant.name} has only one.\n  Set enable_deep_supervision = False in its __init__."
            )

    def _load_initial_weights(self) -> None:
        load_pretrained = getattr(self.bare_network(), "load_pretrained", None)  # not when predicting
        if not self._has_weights and load_pretrained is not None and (loaded := load_pretrained()):
            self.print_to_log_file(loaded)
        if self.recipe.init is not None and not self._has_weights:
            report = load_matching(self.bare_network(), Path(self.recipe.init), map_location=self.device)
            self.print_to_log_file(report.summary())
        self._has_weights = True

    # --- loss and recipe ----------------------------------------------------------------------------------------------

    def _training_outputs(self) -> list[TrainingOutput]:
        """What the network declares; nnU-Net's deep supervision for a subclass's network that declares nothing."""
        if not self.enable_deep_supervision:
            return [TrainingOutput("prediction", (1,) * len(self.configuration_manager.patch_size), 1.0)]
        if hasattr(self.bare_network(), "training_outputs"):
            return self.bare_network().training_outputs()
        return nnunet_outputs(self.configuration_manager.pool_op_kernel_sizes)

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """Of each target: one per stride for our loss, one per output for a subclass's, as it is in nnU-Net."""
        if not self.enable_deep_supervision:
            return None
        outputs = self._training_outputs()
        strides = target_strides(outputs) if self._has_row_loss() else [output.stride for output in outputs]
        return [[1 / s for s in stride] for stride in strides]

    def _build_loss(self) -> nn.Module:
        loss = LOSSES[self.loss_name](self.label_manager, self.configuration_manager.batch_dice, self.is_ddp)
        return MultiOutputLoss(loss, self._training_outputs(), self.recipe.auxiliary_decay)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, RecipeSchedule]:
        """Optimizer and schedule of the recipe, with the rate and length that the trainer has now."""
        make = OPTIMIZERS[self.recipe.optimizer]
        options: Mapping[str, Any] = self.recipe.optimizer_options
        optimizer = make(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay, **options)
        recipe = replace(self.recipe, learning_rate=self.initial_lr, epochs=self.num_epochs)
        return optimizer, RecipeSchedule(optimizer, recipe, lambda: self.logger.get_value("val_losses", step=None))

    # --- data ---------------------------------------------------------------------------------------------------------

    def _set_batch_size_and_oversample(self) -> None:
        """As nnU-Net's; where chance decides about each patch, the share is the same in every process."""
        share = self.oversample_foreground_percent
        super()._set_batch_size_and_oversample()
        if self.probabilistic_oversampling:
            self.oversample_foreground_percent = share

    def do_split(self) -> tuple[list[str], list[str]]:
        """As nnU-Net's, which would end in a traceback where ``splits_final.json`` is damaged."""
        splits = Path(self.preprocessed_dataset_folder_base or "", "splits_final.json")
        if self.fold != "all" and splits.is_file():
            read_splits(splits)
        return super().do_split()

    def get_dataloaders(self) -> tuple:
        """As nnU-Net's, with what the recipe adds to the training's augmentation."""
        if "get_training_transforms" not in vars(self):  # for nnU-Net and subclasses the method stays a static one
            self.get_training_transforms = self._with_recipe(self.get_training_transforms)
        return super().get_dataloaders()

    def _with_recipe(self, make: Callable[..., BasicTransform]) -> Callable[..., BasicTransform]:
        """``make``, which is nnU-Net's or a subclass's, with the recipe's deformation, drawn tumors and other CTs."""
        if self.recipe.elastic is not None:
            make = with_elastic(make, self.recipe.elastic, self.print_to_log_file)
        plans, configuration = self.plans_manager.plans, self.configuration_manager.configuration
        ours = ct_steps(self.recipe, plans, configuration, self.dataset_json["labels"])
        return (lambda *args, **kwargs: after_the_spatial(make(*args, **kwargs), ours)) if ours else make

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        """As nnU-Net's; a recipe may switch mirroring off, which prediction reads in the checkpoint."""
        rotation, flat, patch_size, mirror_axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.recipe.mirror:
            mirror_axes = self.inference_allowed_mirroring_axes = None
        return rotation, flat, patch_size, mirror_axes

    # --- training -----------------------------------------------------------------------------------------------------

    @property
    def _writes(self) -> bool:
        """Whether this process writes files: rank 0 of all nodes, which a branch of nnU-Net calls ``global_rank``."""
        return getattr(self, "global_rank", self.local_rank) == 0

    def on_train_start(self) -> None:
        """As nnU-Net's; ``--c`` without a checkpoint starts a new training, from the recipe's initial weights."""
        if not self.was_initialized:
            self.initialize()
        self._load_initial_weights()
        if self._writes:
            remove_leftovers(self.output_folder)
        super().on_train_start()
        keep_pages(self.device.type)  # now that the loaders' workers have started: they need not
        if self.current_epoch == 0 and Path(self.output_folder, FINAL).exists():
            self.print_to_log_file(
                f"{FINAL} in this folder is of an earlier training. This training replaces it at its end. Until then, "
                "--c would continue the earlier training. Move the file away to be able to continue this one."
            )

    def on_train_epoch_start(self) -> None:
        """As nnU-Net's; the weights of the outputs and the seed are those of this epoch."""
        super().on_train_epoch_start()
        self._seed(self.current_epoch + 1)
        for part in self.loss.modules() if isinstance(self.loss, nn.Module) else ():
            if isinstance(part, MultiOutputLoss):
                part.set_epoch(self.current_epoch)

    def train_step(self, batch: dict) -> dict:
        """As nnU-Net's, but a step whose loss or gradient is not finite changes nothing and is logged.

        Raises:
            UserError: ``MAX_BAD_STEPS`` such steps in a row.
        """
        self._stop_signals.raise_if_asked(self)
        data, target = self._on_device(batch["data"]), self._on_device(batch["target"])
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

    def validation_step(self, batch: dict) -> dict:
        """As nnU-Net's."""
        self._stop_signals.raise_if_asked(self)
        return super().validation_step(batch)

    def _on_device(self, tensors: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        if isinstance(tensors, list):
            return [self._on_device(tensor) for tensor in tensors]
        return tensors.to(self.device, non_blocking=True)

    def _count_bad_steps(self, finite: bool, batch: dict) -> None:
        self._bad_steps = 0 if finite else self._bad_steps + 1
        if finite:
            return
        cases = ", ".join(map(str, batch.get("keys", ["unknown"])))
        self.print_to_log_file(f"Step skipped: loss or gradient is not finite (cases {cases}).")
        if self._bad_steps >= MAX_BAD_STEPS:
            raise UserError(
                f"{MAX_BAD_STEPS} training steps in a row had no finite loss or gradient. The last one was on {cases}."
                "\n  Check these images (livseg check), or lower the learning rate (livseg plan --learning-rate)."
                "\n  The last checkpoint was saved before these steps. Continue from it with --c."
            )

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """As nnU-Net's, over the steps that were not skipped."""
        super().on_train_epoch_end([o for o in train_outputs if np.isfinite(o["loss"])] or train_outputs)

    def on_epoch_end(self) -> None:
        """As nnU-Net's; the latest checkpoint is never older than the recipe's minutes and an epoch."""
        due = monotonic() - self._last_saved >= 60 * self.recipe.checkpoint_minutes
        every, self.save_every = self.save_every, 1 if due else self.save_every
        if self.recipe.best is not None:  # nnU-Net saves where its moving average beats _best_ema
            best = is_best_so_far(self.recipe.best, self.logger.get_value("mean_fg_dice", step=None))
            self._best_ema = None if best else np.inf
        super().on_epoch_end()
        self.save_every = every
        self._stop_where_due()

    def _stop_where_due(self) -> None:
        followed = isinstance(self.lr_scheduler, RecipeSchedule)  # and not a schedule of a subclass
        recipe = self.lr_scheduler.recipe if followed else replace(self.recipe, stop_below=None)
        if reason := reason_to_stop(recipe, self.logger.get_value("val_losses", step=None)):
            raise _EarlyStop(reason)

    def run_training(self) -> None:
        """As nnU-Net's; ends early where the recipe says so, at once where a continued training had ended.

        Raises:
            SystemExit: With ``TO_BE_CONTINUED``: a signal has asked the training to stop; ``--c`` goes on.
        """
        with self._stop_signals:
            try:
                self._stop_where_due()
                super().run_training()
            except _EarlyStop as stop:
                self.print_to_log_file(f"{stop}: training ends here.")
                self.on_train_end()
            except AskedToLeave:
                save_and_leave(self, self._stop_signals)
            except RuntimeError:  # a signal to the whole job ends nnU-Net's data-loading processes as well
                if not self._stop_signals.received:
                    raise
                save_and_leave(self, self._stop_signals)
            if self._stop_signals.ask(self):
                leave(self, self._stop_signals, "The training is complete, but its validation is not.")

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """As nnU-Net's, at the recipe's scales."""
        with multiscale_prediction(self.recipe.validation_scales, module=sys.modules[nnUNetTrainer.__module__]):
            super().perform_actual_validation(save_probabilities)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        """As nnU-Net's, but whole or not at all: a kill or a full disk leaves the previous checkpoint.

        Raises:
            UserError: The checkpoint could not be written.
        """
        path = Path(filename)
        if path.name != FINAL:
            self._last_saved = monotonic()
        if not self._writes or self.disable_checkpointing:
            super().save_checkpoint(filename)
        else:
            write_checkpoint(path, super().save_checkpoint)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """As nnU-Net's; the recipe's initial weights are not loaded any more.

        Raises:
            UserError: The checkpoint is damaged, or of another network or optimizer than the plans'.
        """
        self._has_weights = True
        if not self.was_initialized:
            self.initialize()
        with fitting_checkpoint(Path(str(filename_or_checkpoint)), self):
            super().load_checkpoint(filename_or_checkpoint)


class _EarlyStop(Exception):
    """Leaves nnU-Net's training loop: the recipe ends it."""


def _trainer_for(variant: Variant) -> type[LivSegTrainer]:
    doc = f"{variant.name}: {variant.paper.citation}; {variant.reproduces}."
    return type(variant.trainer, (LivSegTrainer,), {"variant": variant, "__doc__": doc, "__module__": __name__})


TRAINERS = {variant.trainer: _trainer_for(variant) for variant in VARIANTS}
globals().update(TRAINERS)  # nnU-Net asks modules for the class by name
