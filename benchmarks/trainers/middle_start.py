"""DPC-Net whose spatial attention starts near 0.5; nnU-Net finds it through ``nnUNet_extTrainer``."""

import torch

from nnunet_livseg.trainers import DPCNetTrainer

SCALE = 0.05  # of the last convolution's weights, so that what passes the sigmoid is near 0


class DPCNetMiddleStartTrainer(DPCNetTrainer):
    """DPC-Net's own training; only the last convolutions of SpaCor's attention start smaller, and without a bias."""

    def initialize(self) -> None:
        super().initialize()
        with torch.no_grad():
            for module in self.bare_network().spacor.modules_per_level:
                module.attend[-1].weight.mul_(SCALE)
                module.attend[-1].bias.zero_()
