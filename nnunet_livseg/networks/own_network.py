"""Any torch network at nnU-Net's plans: the user's class by its import path, with the arguments that it asks for.

The class takes images ``(B, C, *S)`` and returns logits ``(B, K, *S)``, or a list of them, finest first, for deep
supervision. MONAI's and segmentation_models_pytorch's networks are such classes.
"""

# Shape letters: B batch, C image channels, K classes, *S patch, *s an output's size

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import did_you_mean
from nnunet_livseg.networks.footprint import conv_feature_map_size
from nnunet_livseg.networks.outputs import TrainingOutput, nnunet_weights

# what constructors call it that we know
DIMENSIONS = ("spatial_dims", "dimensions", "ndim")
CHANNELS = ("in_channels", "input_channels", "num_input_channels", "n_channels", "in_chans", "channels_in")
CLASSES = ("out_channels", "num_classes", "classes", "n_classes", "num_output_channels", "output_channels")
SIZE = ("img_size", "image_size", "input_size")
SUPERVISION = ("deep_supervision",)


class OwnNetwork(nn.Module):
    """A user's network.

    Args:
        input_channels: C.
        num_classes: K.
        network: Import path of the class, ``my_package.MyNet``.
        arguments: Arguments of the class, beside those that are filled in by name.
        patch_size: Voxels of a patch, (z, y, x).
        outputs: Stride of every output that the network returns for training; empty before that is known.
        deep_supervision: Whether ``forward`` returns all outputs, or the finest alone.
        geometry: What the plans say of nnU-Net's own network; it is not used.

    Raises:
        UserError: The class is not installed, or does not take these arguments.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        network: str = "",
        arguments: Mapping[str, Any] | None = None,
        patch_size: Sequence[int] = (),
        outputs: Sequence[Sequence[int]] = (),
        deep_supervision: bool = True,
        **geometry: Any,
    ) -> None:
        super().__init__()
        self.input_channels, self.patch_size, self.strides = input_channels, tuple(patch_size), outputs
        known = {
            DIMENSIONS: len(self.patch_size),
            CHANNELS: input_channels,
            CLASSES: num_classes,
            SIZE: self.patch_size,
            SUPERVISION: True,
        }
        self.network = construct(network, arguments or {}, known)
        self.decoder = nn.Module()  # where nnU-Net switches deep supervision
        self.decoder.deep_supervision = deep_supervision

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """``x (B, C, *S)`` to logits ``(B, K, *S)``, or to the list of all outputs ``(B, K, *s)``, which may be one."""
        outputs = as_list(self.network(x), dims=x.ndim - 2)
        if not self.decoder.deep_supervision:
            return outputs[0]
        if len(outputs) == 1 < len(self.strides):
            # many return the prediction alone in evaluation; nnU-Net's validation loss needs all
            outputs = [outputs[0][(..., *(slice(None, None, step) for step in stride))] for stride in self.strides]
        return outputs

    def training_outputs(self) -> list[TrainingOutput]:
        """The outputs with nnU-Net's weights for deep supervision."""
        strides = self.strides or [[1] * len(self.patch_size)]
        weights = nnunet_weights(len(strides))
        named = enumerate(zip(strides, weights, strict=True))
        return [TrainingOutput(f"output{i}", tuple(stride), weight) for i, (stride, weight) in named]

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Elements of all convolutions' outputs for one case; nnU-Net's planners estimate memory with it."""
        return conv_feature_map_size(self, input_size, self.input_channels)


def as_list(outputs: Any, *, dims: int) -> list[Tensor]:
    """What networks return for training, as a list: a tensor, several, those of a dictionary, or stacked on axis 1.

    Raises:
        UserError: It holds something else than tensors.
    """
    if isinstance(outputs, Tensor):
        return list(outputs.unbind(1)) if outputs.ndim == dims + 3 else [outputs]  # stacked as MONAI's DynUNet does
    found = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if isinstance(found, list | tuple) and found and all(isinstance(output, Tensor) for output in found):
        return list(found)
    raise UserError(
        f"the network returns a {type(outputs).__name__}, but nnU-Net needs logits (B, K, *S), or a list of them."
        "\n  Wrap it in a class whose forward returns them."
    )


def construct(path: str, arguments: Mapping[str, Any], known: Mapping[tuple[str, ...], Any]) -> nn.Module:
    """The class at ``path`` with ``arguments``, and what is ``known`` under the names that its constructor has.

    Raises:
        UserError: It is not installed, is not a network, or takes other arguments.
    """
    make = _class_at(path)
    parameters = inspect.signature(make).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if unknown := [name for name in arguments if name not in names and not anything]:
        raise UserError(
            f"{path} has no argument {unknown[0]!r}.{did_you_mean(unknown[0], names)}\n  It has {', '.join(names)}."
        )
    filled = {name: value for aliases, value in known.items() for name in aliases if name in names} | dict(arguments)
    required = [name for name in names if parameters[name].default is inspect.Parameter.empty]
    if missing := [name for name in required if name not in filled]:
        raise UserError(
            f"{path} needs the argument {missing[0]}, whose value does not follow from the plans or the dataset."
            f"\n  Give it: --option {missing[0]}=VALUE"
        )
    try:
        return make(**filled)
    except Exception as error:  # a stranger's constructor may raise anything
        given = ", ".join(f"{name}={value!r}" for name, value in filled.items())
        raise UserError(
            f"{path}({given}) failed: {type(error).__name__}: {error}\n  Change an argument with --option NAME=VALUE."
        ) from error


def _class_at(path: str) -> Callable[..., nn.Module]:
    if not path:
        raise UserError(
            "these plans do not name a network, and LivSegTrainer does not have a default one."
            "\n  Write plans for your network: livseg plan -d DATASET --network my_package.MyNet"
        )
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        close = did_you_mean(name, dir(sys.modules[module])) if module in sys.modules else ""
        raise UserError(
            f"the network {path} is not installed here ({error}).{close}\n  Install the package that contains it, or"
            " add its folder to PYTHONPATH. The name must be an import path: my_package.MyNet."
        ) from error
    if not callable(found):
        raise UserError(f"{path} is a {type(found).__name__}, not a network class.")
    return found
