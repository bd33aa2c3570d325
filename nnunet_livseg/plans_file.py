"""Writing a plans file beside nnU-Net's own, and saying what to run next."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_json
from nnunet_livseg.core.names import did_you_mean, file_name
from nnunet_livseg.data.raw_dataset import channel_names
from nnunet_livseg.phases import require_phases
from nnunet_livseg.plans import KEY, Overrides, make_plans, plans_name
from nnunet_livseg.variants import Variant


@dataclass(frozen=True)
class WrittenPlans:
    """A plans file, what is in it, and the plans that it was made from."""

    path: Path
    content: Mapping[str, Any]
    source: Mapping[str, Any]
    changed: bool  # False: the file was there already and says the same


def write_plans(
    dataset: Path,
    variant: Variant,
    *,
    source: str = "nnUNetPlans",
    preset: str = "default",
    name: str | None = None,
    overrides: Overrides | None = None,
) -> WrittenPlans:
    """Write plans for ``variant`` into ``dataset``, a folder of ``nnUNet_preprocessed``; idempotent.

    Raises:
        UserError: The source plans are missing or not nnU-Net's, the name belongs to other plans, or an argument is
            wrong, the dataset has too few phases, or the network refuses the geometry; nothing is written then.
    """
    overrides = _with_absolute_init(overrides or Overrides())
    _require_known_loss(overrides.loss)
    name = name or plans_name(variant, preset)
    stock = _read_source(dataset, source)
    path = dataset / f"{name}.json"
    _refuse_to_replace(path, name, variant, preset)
    content = make_plans(stock, variant, preset=preset, name=name, overrides=overrides)
    described = dataset / "dataset.json"
    if described.is_file():
        _require_dataset(json.loads(described.read_text()), variant, content)
    _require_networks(content)
    if overrides.features:
        _require_features_are_used(content, variant)
    changed = not path.exists() or json.loads(path.read_text()) != json.loads(json.dumps(content))
    if changed:
        write_json(path, content)
    return WrittenPlans(path, content, stock, changed)


def _require_known_loss(name: str | None) -> None:
    from nnunet_livseg.losses import LOSSES  # imports torch

    if name is not None and name not in LOSSES:
        raise UserError(f"there is no loss {name!r}; known are {', '.join(LOSSES)}.{did_you_mean(name, LOSSES)}")


def _require_dataset(dataset: Mapping[str, Any], variant: Variant, plans: Mapping[str, Any]) -> None:
    """Phases and labels as network and loss need them: the trainer would say the same, after preprocessing."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    from nnunet_livseg.losses import LOSSES

    labels = LabelManager(dataset["labels"], dataset.get("regions_class_order"))
    for configuration in plans["configurations"].values():
        if "inherits_from" in configuration:
            continue
        LOSSES[configuration[KEY]["loss"]](labels, False, False)
        if variant.phases:
            require_phases(variant, configuration["architecture"], channel_names(dataset))


def _require_networks(plans: Mapping[str, Any]) -> None:
    """Build every network once, without memory for its weights: what it refuses is not written."""
    import torch

    from nnunet_livseg.reference_networks import build

    channels = len(plans["foreground_intensity_properties_per_channel"])
    for configuration in plans["configurations"].values():
        if "inherits_from" not in configuration:
            with torch.device("meta"):
                build(configuration, channels=channels, initialize=False)


def _require_features_are_used(plans: Mapping[str, Any], variant: Variant) -> None:
    """Refuse channels per stage for a network that has its own: with others it would have as many parameters."""
    for configuration in plans["configurations"].values():
        if "inherits_from" in configuration:
            continue
        wider = deepcopy(configuration)
        kwargs = wider["architecture"]["arch_kwargs"]
        kwargs["features_per_stage"] = [2 * width for width in kwargs["features_per_stage"]]
        if _parameters(configuration) == _parameters(wider):
            raise UserError(
                f"the network of {variant.name} does not take its channels from plans, so --features would do nothing."
                "\n  Omit --features. MFCNet has --option width=16, SAM + URIM has --option backbone=unet."
            )


def _parameters(configuration: dict[str, Any]) -> int:
    import torch

    from nnunet_livseg.reference_networks import build

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(configuration, initialize=False).parameters())


def _with_absolute_init(overrides: Overrides) -> Overrides:
    if overrides.init is None:
        return overrides
    checkpoint = Path(overrides.init).resolve()
    if not checkpoint.is_file():
        raise UserError(f"there is no checkpoint {checkpoint}.\n  --init takes a checkpoint_final.pth of a training.")
    if not is_zipfile(checkpoint):  # as torch saves
        raise UserError(f"{checkpoint} is no checkpoint.\n  --init takes a checkpoint_final.pth of a training.")
    return replace(overrides, init=str(checkpoint))


def _read_source(dataset: Path, source: str) -> dict[str, Any]:
    path = dataset / f"{source}.json"
    if not path.is_file():
        raise UserError(
            f"there are no plans {source} in {dataset}, and the new plans are made from nnU-Net's."
            f"\n  Run nnUNetv2_plan_and_preprocess -d {dataset.name} first."
        )
    plans = json.loads(path.read_text())
    if any(KEY in configuration for configuration in plans["configurations"].values()):
        raise UserError(
            f"{source} already holds a network of ours; new plans are made from nnU-Net's own."
            "\n  Leave out -p, or name those."
        )
    return plans


def _refuse_to_replace(path: Path, name: str, variant: Variant, preset: str) -> None:
    if "__" in name:
        raise UserError(f"plans cannot be called {name}: nnU-Net splits its result folders at double underscores.")
    if file_name(name) != name:
        raise UserError(f"plans cannot be called {name}: it names a file, so letters, digits, dots and dashes only.")
    if not path.exists():
        return
    configurations = json.loads(path.read_text()).get("configurations", {})
    owners = {
        (entries.get(KEY, {}).get("variant", "nnU-Net"), entries.get(KEY, {}).get("preset", "default"))
        for entries in configurations.values()
        if "inherits_from" not in entries
    }
    if owners != {(variant.name, preset)}:
        holds = " and ".join(" ".join(owner) for owner in sorted(owners))
        raise UserError(f"{path} holds other plans ({holds}), which stay as they are.\n  Choose another name with -o.")


def next_commands(plans: WrittenPlans, dataset: Path, variant: Variant) -> list[str]:
    """Lines for the user: what was written, and nnU-Net's commands to run next."""
    identifier = str(int(dataset.name[7:10]))
    name = plans.content["plans_name"]
    lines = [f"{'wrote' if plans.changed else 'unchanged:'} {plans.path}", "", "next:"]
    fresh = [
        configuration
        for configuration, entries in plans.content["configurations"].items()
        if not _is_preprocessed(plans, configuration, entries, dataset)
    ]
    if fresh:
        lines.append(f"  nnUNetv2_preprocess -d {identifier} -plans_name {name} -c {' '.join(fresh)}")
    for configuration in plans.content["configurations"]:
        lines.append(f"  nnUNetv2_train {identifier} {configuration} 0 -tr {variant.trainer} -p {name}")
    lines.append(
        f"  nnUNetv2_predict -i IMAGES -o OUT -d {identifier} -c {next(iter(plans.content['configurations']))} -f 0 "
        f"-tr {variant.trainer} -p {name}"
    )
    return lines


def _is_preprocessed(plans: WrittenPlans, name: str, entries: Mapping[str, Any], dataset: Path) -> bool:
    parent = plans.content["configurations"].get(entries.get("inherits_from", name), entries)
    identifier = entries.get("data_identifier", parent.get("data_identifier", ""))
    return (dataset / identifier).is_dir()
