"""The outputs of a user's network, which plans must list, found by running it once."""

from collections.abc import Mapping, Sequence
from math import ceil, floor, log
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import as_size
from nnunet_livseg.plans import with_patch


def with_outputs(plans: Mapping[str, Any], *, channels: int, classes: int) -> dict[str, Any]:
    """``plans`` with the stride of every training output of the network, in each configuration that has one.

    Args:
        plans: As ``plans.make_plans`` makes them.
        channels: Channels of the image.
        classes: Outputs per voxel.

    Raises:
        UserError: The network cannot be built or run at the patch size, or returns something else than logits.
    """
    configurations = {
        name: configuration
        if "inherits_from" in configuration
        else with_strides(configuration, output_strides(configuration, channels=channels, classes=classes))
        for name, configuration in plans["configurations"].items()
    }
    return {**plans, "configurations": configurations}


def with_strides(configuration: Mapping[str, Any], strides: Sequence[Sequence[int]]) -> dict[str, Any]:
    """``configuration`` that says at which strides its network has outputs."""
    architecture = configuration["architecture"]
    kwargs = architecture["arch_kwargs"] | {"outputs": [list(stride) for stride in strides]}
    return {**configuration, "architecture": architecture | {"arch_kwargs": kwargs}}


def output_strides(configuration: Mapping[str, Any], *, channels: int, classes: int) -> list[tuple[int, ...]]:
    """Size of the patch over size of the output, per training output and axis.

    Raises:
        UserError: As ``with_outputs``.
    """
    shape = (2, channels, *configuration["patch_size"])
    try:
        return _strides(_output_shapes(configuration, shape, classes), classes, shape)
    except UserError:
        raise
    except Exception as error:  # a stranger's network may raise anything
        other = accepted_patch(configuration, channels=channels, classes=classes)
        sizes = f"--patch {' '.join(map(str, other))} works; or" if other else "Choose another size with --patch, or"
        raise UserError(
            f"the network cannot take a batch of 2 patches of {as_size(shape[2:])} voxels with {channels} channel(s)"
            f" ({type(error).__name__}: {error}).\n  {sizes} change an argument with --option NAME=VALUE."
        ) from error


def runs(configuration: Mapping[str, Any], *, channels: int, classes: int) -> bool:
    """Whether ``output_strides`` finds nothing wrong."""
    shape = (2, channels, *configuration["patch_size"])
    try:
        return bool(_strides(_output_shapes(configuration, shape, classes), classes, shape))
    except Exception:  # a stranger's network may raise anything
        return False


def accepted_patch(configuration: Mapping[str, Any], *, channels: int, classes: int) -> list[int] | None:
    """The patch that is nearest to that of ``configuration`` and that the network takes.

    ``None`` if it takes none of those that are tried: every size rounded to a multiple of 16, 32 or 64, and cubes. They
    are tried on the device meta, in a moment.
    """
    wanted = configuration["patch_size"]
    for patch in _sizes_nearby(wanted):
        other = with_patch(configuration, patch)
        shape = (2, channels, *other["patch_size"])
        try:
            _strides(_output_shapes_on(other, shape, classes, device="meta"), classes, shape)
        except Exception:  # a stranger's network may raise anything
            continue
        if other["patch_size"] != list(wanted):
            return other["patch_size"]
    return None


def _sizes_nearby(wanted: Sequence[int]) -> list[tuple[int, ...]]:
    """Sizes to try, the nearest first."""
    found = {(edge,) * len(wanted) for edge in range(32, 2 * max(wanted) + 1, 32)}
    for step in (16, 32, 64):
        for rounded in (floor, ceil):
            found.add(tuple(max(step, rounded(size / step) * step) for size in wanted))
    return sorted(found, key=lambda sizes: sum(abs(log(a / b)) for a, b in zip(sizes, wanted, strict=True)))


def _strides(outputs: Sequence[tuple[int, ...]], classes: int, shape: Sequence[int]) -> list[tuple[int, ...]]:
    expected = (shape[0], classes, *shape[2:])
    return [_stride(output, expected, first=number == 0) for number, output in enumerate(outputs)]


def _output_shapes(configuration: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> list[tuple[int, ...]]:
    try:
        return _output_shapes_on(configuration, shape, classes, device="meta")  # which computes nothing
    except Exception:  # not every network runs there
        return _output_shapes_on(configuration, shape, classes, device="cpu")


def _output_shapes_on(
    configuration: Mapping[str, Any], shape: tuple[int, ...], classes: int, *, device: str
) -> list[tuple[int, ...]]:
    import torch

    from nnunet_livseg.reference_networks import build, build_on_meta

    make = build_on_meta if device == "meta" else build
    network = make(dict(configuration), channels=shape[1], classes=classes).train()
    with torch.device(device), torch.no_grad():
        outputs = network(torch.zeros(shape))
    return [tuple(output.shape) for output in (outputs if isinstance(outputs, list) else [outputs])]


def _stride(shape: tuple[int, ...], expected: tuple[int, ...], *, first: bool) -> tuple[int, ...]:
    fits = len(shape) == len(expected) and shape[:2] == expected[:2]
    if not fits or any(whole % size for whole, size in zip(expected[2:], shape[2:], strict=True)):
        raise UserError(
            f"the network returns an output of shape {as_size(shape)}, but nnU-Net needs logits of"
            f" {as_size(expected)},\n  for deep supervision also coarser ones by whole factors."
        )
    stride = tuple(whole // size for whole, size in zip(expected[2:], shape[2:], strict=True))
    if first and max(stride) > 1:
        raise UserError(
            f"the network's first output has shape {as_size(shape)}, but nnU-Net predicts with it and needs"
            f" {as_size(expected)}.\n  Return the finest output first, or upsample it."
        )
    return stride
