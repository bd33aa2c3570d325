"""Weights of a trained model without pickle: safetensors, with what nnU-Net reads beside the weights as text.

A model folder with ``fold_F/checkpoint_final.safetensors`` in place of ``checkpoint_final.pth`` runs no code of
strangers when it is loaded. The starter model in the package is such a folder.
"""

import io
import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path

ENDING = ".safetensors"


@dataclass(frozen=True)
class SafeWeights:
    """What nnU-Net's predictor takes from a checkpoint.

    Args:
        parameters: Name to tensor, float32.
        trainer: Name of the trainer's class.
        configuration: Name of the plans' configuration.
        mirroring_axes: Axes along which predictions may be mirrored; None for none.
        architecture: The network, as ``architecture`` of nnU-Net's plans. With it, the trainer is not imported, which
            would take 2 s. None if only the trainer knows its network.
    """

    parameters: Mapping[str, Any]
    trainer: str
    configuration: str
    mirroring_axes: tuple[int, ...] | None
    architecture: Mapping[str, Any] | None = None


def write_safe_weights(weights: SafeWeights, path: Path, *, half: bool = False) -> None:
    """Write ``path``; ``half``: in half precision, in half of the space.

    Tensors that the network has under two names are written once.
    """
    import torch
    from safetensors.torch import save_file

    first = first_names(weights.parameters)
    dtype = torch.float16 if half else torch.float32
    once = {name: weights.parameters[name] for name in first.values()}
    tensors = {name: tensor.detach().to(dtype).contiguous().clone() for name, tensor in once.items()}
    aliases = {name: other for name, other in first.items() if other != name}
    axes = weights.mirroring_axes and list(weights.mirroring_axes)
    notes = {"trainer": weights.trainer, "configuration": weights.configuration}
    notes |= {"mirroring_axes": json.dumps(axes), "aliases": json.dumps(aliases)}
    notes |= {"architecture": json.dumps(weights.architecture)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=notes)


def first_names(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Each name and the first name of the same tensor: nnU-Net's blocks name a convolution twice."""
    first: dict[Any, str] = {}
    keys = {name: (tensor.data_ptr(), tuple(tensor.shape)) for name, tensor in parameters.items()}
    return {name: first.setdefault(key, name) for name, key in keys.items()}


def read_safe_weights(path: Path) -> SafeWeights:
    """Read what ``write_safe_weights`` wrote.

    Raises:
        UserError: The file is damaged, or holds weights without the notes.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            parameters = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (it is no dict)
        aliases, axes = json.loads(notes["aliases"]), json.loads(notes["mirroring_axes"])
        trainer, configuration = notes["trainer"], notes["configuration"]
        architecture = json.loads(notes.get("architecture", "null"))  # files of earlier versions have none
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"the weights in {path} cannot be read: {_reason(error)}."
            "\n  The file is damaged or was not written by this package. Copy the model again, or install it again."
        ) from error
    parameters |= {name: parameters[first] for name, first in aliases.items()}
    return SafeWeights(parameters, trainer, configuration, axes and tuple(axes), architecture)


def weights_of_checkpoint(path: Path) -> SafeWeights:
    """Those of nnU-Net's ``checkpoint_*.pth``, which is a pickle: read only checkpoints of your own trainings."""
    import torch

    content = torch.load(path, map_location="cpu", weights_only=False)
    axes, trainer = content.get("inference_allowed_mirroring_axes"), content["trainer_name"]
    plans, configuration = (content["init_args"][name] for name in ("plans", "configuration"))
    architecture = known_architecture(trainer, plans, configuration)
    return SafeWeights(content["network_weights"], trainer, configuration, axes and tuple(axes), architecture)


def known_architecture(trainer: str, plans: dict, configuration: str) -> Mapping[str, Any] | None:
    """The network that one of our trainers builds from ``plans``, as their ``architecture``; None of other trainers."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    with redirect_stdout(io.StringIO()):  # where it looks for the trainer
        known = getattr(recursive_find_trainer_class_by_name(trainer), "architecture", None)
    manager = PlansManager(plans)
    return known and known(manager, manager.get_configuration(configuration))


def _reason(error: Exception) -> str:
    return f"no {error} in it" if isinstance(error, KeyError) else str(error).splitlines()[0]
