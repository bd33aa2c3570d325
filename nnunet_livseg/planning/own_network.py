"""What plans must know of a network of the user's, found out by running it once: which outputs it returns."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_livseg.core.errors import UserError


def with_outputs(plans: Mapping[str, Any], *, channels: int, classes: int) -> dict[str, Any]:
    """``plans`` with the stride of every training output of the network, in each configuration that has one.

    Args:
        plans: As ``plans.make_plans`` makes them.
        channels: Channels of the image.
        classes: Outputs per voxel.

    Raises:
        UserError: The network cannot be built or run at the patch size, or returns something else than logits.
    """
    configurations = {}
    for name, configuration in plans["configurations"].items():
        if "inherits_from" not in configuration:
            strides = output_strides(configuration, channels=channels, classes=classes)
            architecture = configuration["architecture"]
            kwargs = architecture["arch_kwargs"] | {"outputs": [list(stride) for stride in strides]}
            configuration = configuration | {"architecture": architecture | {"arch_kwargs": kwargs}}
        configurations[name] = configuration
    return {**plans, "configurations": configurations}


def output_strides(configuration: Mapping[str, Any], *, channels: int, classes: int) -> list[tuple[int, ...]]:
    """Size of the patch over size of the output, per training output and axis."""
    shape = (2, channels, *configuration["patch_size"])
    try:
        outputs = _output_shapes(configuration, shape, classes, device="meta")  # which computes nothing
    except Exception:  # not every network runs there
        outputs = _output_shapes_on_cpu(configuration, shape, classes)
    expected = (2, classes, *shape[2:])
    return [_stride(output, expected, first=number == 0) for number, output in enumerate(outputs)]


def _output_shapes_on_cpu(configuration: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> list[tuple]:
    try:
        return _output_shapes(configuration, shape, classes, device="cpu")
    except UserError:
        raise
    except Exception as error:  # a stranger's network may raise anything
        raise UserError(
            f"the network cannot take a batch of 2 patches of {_spelled(shape[2:])} voxels with {shape[1]} channel(s)"
            f" ({type(error).__name__}: {error}).\n  Choose a size that it accepts with --patch, or change an"
            " argument with --option NAME=VALUE."
        ) from error


def _output_shapes(
    configuration: Mapping[str, Any], shape: tuple[int, ...], classes: int, *, device: str
) -> list[tuple[int, ...]]:
    import torch

    from nnunet_livseg.reference_networks import build

    with torch.device(device), torch.no_grad():
        outputs = build(dict(configuration), channels=shape[1], classes=classes).train()(torch.zeros(shape))
    return [tuple(output.shape) for output in (outputs if isinstance(outputs, list) else [outputs])]


def _stride(shape: tuple[int, ...], expected: tuple[int, ...], *, first: bool) -> tuple[int, ...]:
    fits = len(shape) == len(expected) and shape[:2] == expected[:2]
    if not fits or any(whole % size for whole, size in zip(expected[2:], shape[2:], strict=True)):
        raise UserError(
            f"the network returns an output of shape {_spelled(shape)}, but nnU-Net needs logits of"
            f" {_spelled(expected)},\n  for deep supervision also coarser ones by whole factors."
        )
    stride = tuple(whole // size for whole, size in zip(expected[2:], shape[2:], strict=True))
    if first and max(stride) > 1:
        raise UserError(
            f"the network's first output has shape {_spelled(shape)}, but nnU-Net predicts with it and needs"
            f" {_spelled(expected)}.\n  Return the finest output first, or upsample it."
        )
    return stride


def _spelled(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
