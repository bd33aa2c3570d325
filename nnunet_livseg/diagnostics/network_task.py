"""A user's network in one configuration: of a dataset's plans, or without a dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_livseg.core.dataset_json import read_dataset_json
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER_AND_TUMOR
from nnunet_livseg.core.names import did_you_mean
from nnunet_livseg.planning.own_network import output_strides, runs, with_strides
from nnunet_livseg.planning.source_plans import read_source
from nnunet_livseg.plans import with_own_network, with_patch
from nnunet_livseg.reference_networks import PATCH, stock_configuration

REFERENCE = {2: "2d", 3: "3d_fullres"}  # configurations of nnU-Net with so many dimensions


@dataclass(frozen=True)
class NetworkTask:
    """A user's network in one configuration.

    Attributes:
        name: Name of the configuration.
        stock: The configuration with nnU-Net's network.
        own: The configuration with the user's.
        channels: Channels of the image.
        labels: Labels or regions.
    """

    name: str
    stock: dict[str, Any]
    own: dict[str, Any]
    channels: int
    labels: LabelManager

    @property
    def patch(self) -> tuple[int, ...]:
        """In voxels, (z, y, x)."""
        return tuple(self.stock["patch_size"])

    @property
    def classes(self) -> int:
        """Outputs per voxel."""
        return self.labels.num_segmentation_heads

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a batch of images, (B, C, *S)."""
        return (self.stock["batch_size"], self.channels, *self.patch)

    def at(self, patch: Sequence[int]) -> "NetworkTask":
        """The same with another patch."""
        return replace(self, stock=with_patch(self.stock, patch), own=with_patch(self.own, patch))

    def with_outputs(self) -> "NetworkTask":
        """The same, its configuration saying which outputs the network returns.

        Raises:
            UserError: The network cannot be built or run at the patch, or returns something else than logits.
        """
        strides = output_strides(self.own, channels=self.channels, classes=self.classes)
        return replace(self, own=with_strides(self.own, strides))

    def runs(self) -> bool:
        """Whether ``with_outputs`` would succeed."""
        return runs(self.own, channels=self.channels, classes=self.classes)


def reference_tasks(
    network: str, arguments: Mapping[str, Any], *, patch: Sequence[int] | None = None, batch: int | None = None
) -> list[NetworkTask]:
    """Tasks without a dataset: one channel, liver and tumor, and the geometry that nnU-Net plans for LiTS.

    In 3D unless the network runs in 2D alone, or ``patch`` has two numbers.
    """
    if patch is not None and len(patch) not in PATCH:
        raise UserError(f"--patch takes 2 or 3 numbers, not {len(patch)}.")
    only_2d = patch is None and not takes(network, arguments, 3) and takes(network, arguments, 2)
    return [_reference(network, arguments, patch or PATCH[2 if only_2d else 3], batch)]


def takes(network: str, arguments: Mapping[str, Any], dims: int) -> bool:
    """Whether the network runs with images of 2 or 3 dimensions."""
    return _reference(network, arguments, (64,) * dims).runs()


def _reference(
    network: str, arguments: Mapping[str, Any], patch: Sequence[int], batch: int | None = None
) -> NetworkTask:
    stock = with_patch(stock_configuration(len(patch)), patch)
    stock["batch_size"] = batch or stock["batch_size"]
    own = with_own_network(stock, network, arguments)
    return NetworkTask(REFERENCE[len(patch)], stock, own, 1, LabelManager(LIVER_AND_TUMOR, None))


def dataset_tasks(
    dataset: Path,
    network: str,
    arguments: Mapping[str, Any],
    *,
    source: str = "nnUNetPlans",
    configurations: Sequence[str] | None = None,
    patch: Sequence[int] | None = None,
    batch: int | None = None,
) -> list[NetworkTask]:
    """The configurations of a dataset in ``nnUNet_preprocessed``, by default all that have a geometry of their own.

    Raises:
        UserError: There are no such plans, no such configuration, or the patch has the wrong number of axes.
    """
    plans = read_source(dataset, source)
    manager = PlansManager(plans)
    described = read_dataset_json(dataset, required=("labels",)).content
    tasks = []
    for name in configurations or [n for n, c in plans["configurations"].items() if "inherits_from" not in c]:
        if name not in plans["configurations"]:
            known = plans["configurations"]
            raise UserError(
                f"the plans {source} have no configuration {name}.{did_you_mean(name, known)}"
                f"\n  They have {', '.join(known)}."
            )
        stock = dict(manager.get_configuration(name).configuration)
        if patch is not None and len(patch) != len(stock["patch_size"]):
            raise UserError(
                f"--patch {' '.join(map(str, patch))} has {len(patch)} numbers, but {name} has"
                f" {len(stock['patch_size'])} axes.\n  Name the configuration that it is for with -c."
            )
        stock = with_patch(stock, patch) if patch is not None else stock
        stock["batch_size"] = batch or stock["batch_size"]
        own = with_own_network(stock, network, arguments)
        channels = determine_num_input_channels(manager, name, described)
        tasks.append(NetworkTask(name, stock, own, channels, manager.get_label_manager(described)))
    return tasks
