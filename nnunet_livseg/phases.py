"""Contrast phases as image channels: what a multi-phase network is told, and which datasets it rejects.

Plans count the channels of the dataset that they were made for. A trainer of another dataset adds the entry
``IMAGE_CHANNELS`` to them, which goes before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.variants import VARIANTS, Variant

IMAGE_CHANNELS = "image_channels"  # option of a network that knows phases, and our entry in plans


def require_phases(variant: Variant, architecture: Mapping[str, Any], channels: Sequence[str]) -> None:
    """Reject a dataset with fewer phases than ``variant`` is about; ``channels`` are the names of its channels.

    Raises:
        UserError: The message says what to add, and which row serves one phase.
    """
    per_phase = architecture["arch_kwargs"].get("channels_per_phase", 1)
    if len(channels) // per_phase >= variant.phases:
        return
    single = next(row for row in VARIANTS if row.paper is variant.paper and row.phases == 1)
    raise UserError(
        f"{variant.trainer} needs at least {variant.phases} contrast phases, but the images have {len(channels)} "
        f"channel{'s'[: len(channels) > 1]} ({', '.join(channels)})."
        "\n  Add the other phases as channels: CASE_0001.nii.gz beside CASE_0000.nii.gz, and both in "
        "channel_names of dataset.json.\n  Channel 0 is the phase that the labels were drawn on. Then run "
        "nnUNetv2_plan_and_preprocess again."
        f"\n  For one phase, train with -tr {single.trainer} (livseg plan -m {single.name})."
    )


def phase_options(variant: Variant, plans: Mapping[str, Any] | None) -> dict[str, int]:
    """What ``plans`` tell a network with phases: how many of its input channels are the image's."""
    known = variant.phases and plans is not None
    return {IMAGE_CHANNELS: len(plans["foreground_intensity_properties_per_channel"])} if known else {}


def with_image_channels(architecture: Mapping[str, Any], entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """The architecture with the channels that a trainer has counted in its dataset, if our ``entries`` hold them."""
    if IMAGE_CHANNELS not in entries:
        return architecture
    return {**architecture, "arch_kwargs": {**architecture["arch_kwargs"], IMAGE_CHANNELS: entries[IMAGE_CHANNELS]}}
