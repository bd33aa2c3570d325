"""The base of all our networks: the geometry of the plans, and what nnU-Net's planners and our losses need."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.footprint import conv_feature_map_size
from nnunet_livseg.networks.outputs import TrainingOutput
from nnunet_livseg.networks.unet import Geometry, initialize


class PlannedNetwork(nn.Module):
    """A network at the geometry of nnU-Net's plans.

    A subclass builds ``encoder`` and ``decoder``, names that nnU-Net relies on, and sets ``decoder.deep_supervision``:
    whether ``forward`` returns all training outputs, or the prediction alone.

    Args:
        input_channels: Channels of the image.
        geometry: The keyword arguments that the plans hold, see ``networks.unet.Geometry``.

    Raises:
        UserError: The plans have fewer than ``MIN_STAGES`` stages.
    """

    TITLE: ClassVar[str]  # what messages call it
    MIN_STAGES: ClassVar[int] = 1

    def __init__(self, input_channels: int, geometry: Mapping[str, Any]) -> None:
        super().__init__()
        self.input_channels = input_channels
        self.geometry = Geometry(**geometry)
        if self.geometry.n_stages < self.MIN_STAGES:
            raise UserError(
                f"{self.TITLE} needs at least {self.MIN_STAGES} resolution stages, but these plans have "
                f"{self.geometry.n_stages}."
                "\n  Plan with a larger patch (livseg plan --patch), or use nnUNetTrainer."
            )

    def require_known(self, **options: tuple[object, Collection]) -> None:
        """Reject an option, given as ``name=(value, known values)``, whose value is not known."""
        for name, (value, known) in options.items():
            if value not in known:
                raise UserError(
                    f"{self.TITLE}'s option {name} is {value!r}, but must be one of {', '.join(map(str, known))}."
                )

    def training_outputs(self) -> list[TrainingOutput]:
        """What ``forward`` returns for training, in order: here one output, at full resolution."""
        return [TrainingOutput("final", (1,) * self.geometry.dim, 1.0)]

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Elements of all convolutions' outputs for one case; nnU-Net's planners estimate memory with it."""
        return conv_feature_map_size(self, input_size, self.input_channels)

    initialize = staticmethod(initialize)
