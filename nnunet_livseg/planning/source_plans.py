"""nnU-Net's plans as new plans are made from them: of any version 2, read by nnU-Net's own classes."""

import warnings
from pathlib import Path
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json
from nnunet_livseg.core.names import dataset_number
from nnunet_livseg.plans import KEY


def read_source(dataset: Path, source: str) -> dict[str, Any]:
    """The plans ``source`` of a dataset in ``nnUNet_preprocessed``, in the format of the installed nnU-Net.

    Raises:
        UserError: There are none, they hold a network of ours, or nnU-Net cannot read them.
    """
    path = dataset / f"{source}.json"
    if not path.is_file():
        there = ", ".join(sorted(one.stem for one in dataset.glob("*Plans.json") if f'"{KEY}"' not in one.read_text()))
        raise UserError(
            f"there are no plans {source} in {dataset}, and the new plans start from nnU-Net's.\n  "
            + (f"Plans there: {there}; name one with -p, or omit -p. To make plans, run " if there else "Run ")
            + f"nnUNetv2_plan_and_preprocess -d {dataset_number(dataset.name)}{'' if there else ' first'}."
        )
    plans = read_json(path, remedy="Remove it, or write it again.")
    if not isinstance(plans.get("configurations"), dict):
        raise UserError(f"{path} is not a plans file: it has no configurations.\n  Omit -p, or name nnU-Net's plans.")
    if any(KEY in configuration for configuration in plans["configurations"].values()):
        raise UserError(
            f"{source} already contains a network of this package, but new plans start from nnU-Net's own."
            "\n  Omit -p, or name nnU-Net's plans."
        )
    try:
        return _as_of_today(plans)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise UserError(
            f"{path} is incomplete or from an older nnU-Net, so nnU-Net cannot read it ({reason})."
            f"\n  Write it again: nnUNetv2_plan_experiment -d {dataset_number(dataset.name)}"
        ) from error


def _as_of_today(plans: dict[str, Any]) -> dict[str, Any]:
    """Plans of any version 2 of nnU-Net as the installed one reads them.

    A configuration that inherits keeps its link where it says nothing about geometry of its own; else it is resolved,
    for its network is another one.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    configurations = {}
    for name, entries in plans["configurations"].items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the format is old; it is translated here
            read = manager.get_configuration(name).configuration
        own = {"architecture", "patch_size", "spacing", "data_identifier", "UNet_class_name"} & set(entries)
        if "inherits_from" in entries and not own:
            configurations[name] = entries
            continue
        read.pop("inherits_from", None)
        configurations[name] = read
    today = {key: value for key, value in plans.items() if key != "foreground_intensity_properties_by_modality"}
    intensities = manager.foreground_intensity_properties_per_channel
    return today | {"foreground_intensity_properties_per_channel": intensities, "configurations": configurations}
