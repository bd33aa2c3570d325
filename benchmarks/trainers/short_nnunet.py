"""nnU-Net's own training, shortened, and without mirroring if asked; nnU-Net finds it through ``nnUNet_extTrainer``."""

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerShort(nnUNetTrainer):
    """As long as the entry ``length`` of the plans' configuration says; everything else is nnU-Net's.

    With ``"mirror": false`` in it, nothing is mirrored, as in nnU-Net's ``nnUNetTrainerNoMirroring``. Its
    ``"foreground"`` is the share of patches that are forced to hold foreground.

    nnU-Net's variants of other lengths (``nnUNetTrainer_10epochs``) change the number of epochs in the same way, but
    keep 250 steps in each.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net reads this signature by inspection
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        length = self.configuration_manager.configuration["length"]
        self.num_epochs = length["epochs"]
        self.num_iterations_per_epoch = length["iterations"]
        self.num_val_iterations_per_epoch = length["validation_iterations"]
        self.mirror = length.get("mirror", True)
        self.oversample_foreground_percent = length.get("foreground", self.oversample_foreground_percent)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        rotation, flat, patch_size, mirror_axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.mirror:
            mirror_axes = self.inference_allowed_mirroring_axes = None
        return rotation, flat, patch_size, mirror_axes
