"""What plans must know of a network of the user's, found out by running it once: which outputs it returns."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_livseg.core.errors import UserError


def with_outputs(plans: Mapping[str, Any], *, channels: int, classes: int) -> dict[str, Any]:
    """``plans`` with the stride of every training output of the network, in each configuration that has one.

    Args:
        plans: As ``plans.make_plans`` makes them.
        channels: Of the image.
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
    import torch

    from nnunet_livseg.reference_networks import build

    patch = tuple(configuration["patch_size"])
    for device in ("meta", "cpu"):  # meta computes nothing, but not every network runs on it
        try:
            with torch.device(device), torch.no_grad():
                network = build(dict(configuration), channels=channels, classes=classes).train()
                outputs = network(torch.zeros(2, channels, *patch))
        except Exception as error:  # a stranger's network may raise anything
            if device == "meta":
                continue
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"the network cannot take a batch of 2 patches of {_spelled(patch)} voxels with {channels} channel(s)"
                f" ({type(error).__name__}: {error}).\n  Choose a size that it accepts with --patch, or change an"
                " argument with --option NAME=VALUE."
            ) from error
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return [_stride(tuple(output.shape), (2, classes, *patch), first=output is outputs[0]) for output in outputs]
    raise AssertionError("unreachable")


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
