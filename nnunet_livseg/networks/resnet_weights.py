"""ImageNet weights for ResNet encoders: from timm or a local file, fitted to channels and dimensions."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nnunet_livseg.core.errors import UserError

# architecture of networks.resnet.ResNetEncoder -> timm's name of torchvision's weights
TIMM_NAMES = {
    ("basic", (2, 2, 2, 2), 64, 1, 64): "resnet18.tv_in1k",
    ("basic", (3, 4, 6, 3), 64, 1, 64): "resnet34.tv_in1k",
    ("bottleneck", (3, 4, 6, 3), 64, 1, 64): "resnet50.tv_in1k",
    ("bottleneck", (3, 4, 23, 3), 64, 1, 64): "resnet101.tv_in1k",
    ("bottleneck", (3, 4, 6, 3), 64, 32, 4): "resnext50_32x4d.tv_in1k",
}
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_FILE_HINT = "\n  Give a .pth or .safetensors file with a state dict of the same ResNet from torchvision or timm."


def fitted_weights(
    encoder: nn.Module, source: str | Path, architecture: tuple[object, ...]
) -> tuple[dict[str, Tensor], str]:
    """A whole state dict for ``encoder`` from ``source`` (see ``ResNetEncoder.load_weights``), and a line for the log.

    Raises:
        UserError: No network, no such file, or weights of another architecture.
    """
    found = _download(architecture) if source == "imagenet" else _read(Path(source))
    found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    found = {name: tensor for name, tensor in found.items() if not name.startswith("fc.")}
    own = encoder.state_dict()
    foreign = [name for name in found if name not in own and not name.endswith(_BUFFERS)]
    missing = [name for name in own if name not in found and not name.endswith(_BUFFERS)]
    if foreign or missing:
        example = f"they lack {missing[0]}" if missing else f"this encoder has no {foreign[0]}"
        raise UserError(f"the weights {source} belong to another network: {example}.{_FILE_HINT}")
    fitted = {name: _fit(name, found.get(name, tensor), tensor, source) for name, tensor in own.items()}
    channels = found["conv1.weight"].shape[1], own["conv1.weight"].shape[1]
    notes = [f"{channels[0]} input channels adapted to {channels[1]}"] * (channels[0] != channels[1])
    notes += ["kernels inflated to 3D"] * (own["conv1.weight"].ndim > found["conv1.weight"].ndim)
    line = f"Encoder weights from {source}: {len(set(own) & set(found))} of {len(own)} tensors loaded"
    return fitted, "; ".join([line, *notes]) + "."


def _fit(name: str, found: Tensor, own: Tensor, source: str | Path) -> Tensor:
    """``found`` in the shape of ``own``: other input channels of conv1 share its sum, a third axis shares each tap."""
    if name == "conv1.weight" and found.shape[1] != own.shape[1]:
        mean = found.mean(1, keepdim=True) * (found.shape[1] / own.shape[1])
        found = mean.expand(-1, own.shape[1], *found.shape[2:])
    if found.ndim == 4 and own.ndim == 5:
        depth = own.shape[2]
        found = (found / depth)[:, :, None].expand(-1, -1, depth, -1, -1)
    if found.shape != own.shape:
        raise UserError(
            f"the weights {source} do not fit: {name} is {tuple(found.shape)}, but this encoder has "
            f"{tuple(own.shape)}.{_FILE_HINT}"
        )
    return found.to(own)


def _download(architecture: tuple[object, ...]) -> Mapping[str, Tensor]:
    if architecture not in TIMM_NAMES:
        raise UserError(
            f"there are no ImageNet weights for this ResNet ({architecture}), only for "
            f"{', '.join(TIMM_NAMES.values())}.\n  Omit the weights, or give a file."
        )
    name = TIMM_NAMES[architecture]
    try:
        import timm

        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # timm and its hub raise errors of many kinds where there is no network
        raise UserError(
            f"timm could not download the ImageNet weights {name}: {error}"
            "\n  The first use needs an internet connection. Without one, give a local .pth or .safetensors file."
        ) from error


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise UserError(f"file of encoder weights not found: {path}.\n  Give 'imagenet' or a file that exists.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} does not contain encoder weights: {error}{_FILE_HINT}") from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    if "conv1.weight" not in content and "module.conv1.weight" not in content:
        raise UserError(f"{path} does not contain encoder weights: conv1.weight is missing.{_FILE_HINT}")
    return content
