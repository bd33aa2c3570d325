"""Contrast phases as image channels: what a multi-phase network is told, and which datasets it refuses."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.variants import VARIANTS, Variant


def require_phases(variant: Variant, architecture: Mapping[str, Any], channels: Sequence[str]) -> None:
    """Refuse a dataset with fewer phases than ``variant`` is about; ``channels`` are the names of its channels.

    Raises:
        UserError: The message says what to add, and which row serves one phase.
    """
    per_phase = architecture["arch_kwargs"].get("channels_per_phase", 1)
    if len(channels) // per_phase >= variant.phases:
        return
    single = next(row for row in VARIANTS if row.paper is variant.paper and row.phases == 1)
    raise UserError(
        f"{variant.trainer} relates at least {variant.phases} contrast phases, but the images have {len(channels)} "
        f"channel{'s'[: len(channels) > 1]} ({', '.join(channels)}), so there is nothing to relate."
        "\n  Add the other phases as channels (CASE_0001.nii.gz beside CASE_0000.nii.gz, and both in channel_names of "
        "dataset.json),\n  first the phase that the labels were drawn on; then run nnUNetv2_plan_and_preprocess again."
        f"\n  For one phase train with -tr {single.trainer} (livseg plan -m {single.name})."
    )


def phase_options(variant: Variant, plans: Mapping[str, Any] | None) -> dict[str, int]:
    """What ``plans`` tell a network that knows phases: how many of its input channels are the image's."""
    known = variant.phases and plans is not None
    return {"image_channels": len(plans["foreground_intensity_properties_per_channel"])} if known else {}
