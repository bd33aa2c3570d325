"""Facts about the dataset that a network is trained on, as entries of the plans, where prediction reads them."""

from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_livseg.phases import IMAGE_CHANNELS
from nnunet_livseg.plans import KEY
from nnunet_livseg.variants import Variant


def plans_for_dataset(
    plans: dict, configuration: str, dataset_json: dict, *, variant: Variant, channels: int
) -> dict[str, Any]:
    """``plans`` that say whether this dataset has regions, and its channels where they were made for other ones.

    The plans of a shared model may say it of another dataset; they are followed in nothing of this.
    """
    manager = PlansManager(plans)
    found = manager.get_configuration(configuration).configuration.get(KEY, {})
    ours = {key: value for key, value in found.items() if key not in ("regions", IMAGE_CHANNELS)}
    if manager.get_label_manager(dataset_json).has_regions:
        ours["regions"] = True
    if variant.phases and channels != len(manager.foreground_intensity_properties_per_channel):
        ours[IMAGE_CHANNELS] = channels
    if ours == found:
        return plans
    changed = {**plans["configurations"][configuration], KEY: ours}
    return {**plans, "configurations": {**plans["configurations"], configuration: changed}}
