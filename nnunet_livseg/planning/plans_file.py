"""Write a plans file beside nnU-Net's own, without replacing another one."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from nnunet_livseg.core.dataset_json import channel_names, read_dataset_json, read_splits, require_trainable
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import as_read, read_json, write_json
from nnunet_livseg.core.names import did_you_mean, file_name
from nnunet_livseg.phases import require_phases
from nnunet_livseg.planning.own_network import with_outputs
from nnunet_livseg.planning.source_plans import read_source
from nnunet_livseg.plans import KEY, Overrides, make_plans, plans_name
from nnunet_livseg.recipes import Recipe
from nnunet_livseg.variants import OWN, Variant

# what nnU-Net finds out about a dataset; it changes with the dataset alone
OF_THE_DATASET = (
    "foreground_intensity_properties_per_channel",
    "original_median_spacing_after_transp",
    "original_median_shape_after_transp",
)
MOST_DIFFERENCES = 3  # in a message


@dataclass(frozen=True)
class WrittenPlans:
    """A plans file, what is in it, and the plans that it was made from."""

    path: Path
    content: Mapping[str, Any]
    source: Mapping[str, Any]
    state: str  # "wrote"; "unchanged": says the same already; "renewed": nnU-Net has planned the dataset again
    left_out: Mapping[str, str] = field(default_factory=dict)  # configurations that do not fit, and why


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
        OtherPlansError: The name belongs to plans that say something else.
        UserError: The source plans are missing or not nnU-Net's, an argument is wrong, the dataset has too few phases,
            the network rejects the geometry, or the initial weights do not fit; nothing is written then.
    """
    overrides = _with_absolute_init(overrides or Overrides())
    _require_known_loss(overrides.loss)
    name = name or file_name(plans_name(variant, preset, source=source, overrides=overrides))
    _require_name(name)
    stock = read_source(dataset, source)
    content = make_plans(stock, variant, preset=preset, name=name, overrides=overrides)
    described = None
    if (dataset / "dataset.json").is_file():
        described = read_dataset_json(dataset, required=("labels",)).content
        _require_dataset(described, variant, content)
    if (dataset / "splits_final.json").is_file():
        read_splits(dataset / "splits_final.json")  # or next_commands would stop after the plans are written
    if variant is OWN:
        content = _with_outputs(content, described)
    left_out = _require_networks(content, overrides, device="cpu" if variant is OWN else "meta")
    if left_out:
        fitting = tuple(one for one in content["configurations"] if one not in left_out)
        content = make_plans(
            stock, variant, preset=preset, name=name, overrides=replace(overrides, configurations=fitting)
        )
    if overrides.features:
        _require_features_are_used(content, variant)
    path = dataset / f"{name}.json"
    state = _state(path, content, variant)
    if state != "unchanged":
        write_json(path, content)
    return WrittenPlans(path, content, stock, state, left_out)


def _require_known_loss(name: str | None) -> None:
    from nnunet_livseg.losses import LOSSES  # imports torch

    if name is not None and name not in LOSSES:
        raise UserError(f"there is no loss {name!r}; known: {', '.join(LOSSES)}.{did_you_mean(name, LOSSES)}")


def _require_dataset(dataset: Mapping[str, Any], variant: Variant, plans: Mapping[str, Any]) -> None:
    """Phases and labels as network and loss need them: the trainer would say the same, after preprocessing."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    from nnunet_livseg.losses import LOSSES

    require_trainable(dataset)
    labels = LabelManager(dataset["labels"], dataset.get("regions_class_order"))
    for configuration in plans["configurations"].values():
        if "inherits_from" in configuration:
            continue
        LOSSES[configuration[KEY]["loss"]](labels, False, False)
        recipe = Recipe(**configuration[KEY]["recipe"])
        if recipe.synthetic_tumors or recipe.augmentation == "ct":
            from nnunet_livseg.training.augmentation import ct_steps  # takes half a second

            ct_steps(recipe, plans, configuration, dataset["labels"])
        if variant.phases:
            require_phases(variant, configuration["architecture"], channel_names(dataset))


def _with_outputs(plans: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> dict[str, Any]:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    if dataset is None:
        raise UserError(
            "there is no dataset.json beside the plans, which says how many classes the network needs."
            "\n  Copy it from the raw dataset."
        )
    labels = LabelManager(dataset["labels"], dataset.get("regions_class_order"))
    return with_outputs(plans, channels=len(channel_names(dataset)), classes=labels.num_segmentation_heads)


def _require_networks(plans: Mapping[str, Any], overrides: Overrides, *, device: str) -> dict[str, str]:
    """Build every network once, on the device ``meta`` without memory for its weights: what it rejects is not written.

    Returns the configurations that the initial weights do not fit, and why.

    Raises:
        UserError: A network rejects its geometry, or the weights do not fit the named or any configuration.
    """
    import torch

    from nnunet_livseg.reference_networks import build
    from nnunet_livseg.training.transfer import matching, read_weights

    source = Path(overrides.init or "")
    weights = None if overrides.init is None else read_weights(source, "meta")
    channels = len(plans["foreground_intensity_properties_per_channel"])
    wrong: dict[str, UserError] = {}
    for name, configuration in plans["configurations"].items():
        if "inherits_from" in configuration:
            if configuration["inherits_from"] in wrong:
                wrong[name] = wrong[configuration["inherits_from"]]
            continue
        try:
            with torch.device(device):
                network = build(configuration, channels=channels, initialize=False)
        except (TypeError, KeyError, ValueError, RuntimeError) as error:
            if isinstance(error, UserError) or not overrides.options:
                raise
            given = " ".join(f"--option {name}={json.dumps(value)}" for name, value in overrides.options.items())
            raise UserError(
                f"the network cannot be built with {given} ({type(error).__name__}: {error}).\n  Correct the value."
                " livseg list --json shows the options of every variant."
            ) from error
        try:
            _ = weights is None or matching(network, weights, source)
        except UserError as error:
            wrong[name] = error
    for name, error in wrong.items():
        if overrides.configurations or len(wrong) == len(plans["configurations"]):
            raise UserError(f"{name} cannot start from these weights: {error}") from error
    return {name: f"{error}".partition("\n")[0] for name, error in wrong.items()}


def _require_features_are_used(plans: Mapping[str, Any], variant: Variant) -> None:
    """Reject channels per stage for a network that has its own: with others it would have as many parameters."""
    for configuration in plans["configurations"].values():
        if "inherits_from" in configuration:
            continue
        wider = deepcopy(configuration)
        kwargs = wider["architecture"]["arch_kwargs"]
        kwargs["features_per_stage"] = [2 * width for width in kwargs["features_per_stage"]]
        if _parameters(configuration) == _parameters(wider):
            whose, remedy = f"the network of {variant.name}", "MFCNet has --option width=16, SAM + URIM"
            remedy += " has --option backbone=unet."
            if variant is OWN:
                whose, remedy = (
                    "your network",
                    "Set its channels by --option, under the name that its class has for them.",
                )
            raise UserError(
                f"{whose} does not take its channels from plans, so --features would do nothing."
                f"\n  Omit --features. {remedy}"
            )


def _parameters(configuration: dict[str, Any]) -> int:
    import torch

    from nnunet_livseg.reference_networks import build

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(configuration, initialize=False).parameters())


_INIT_TAKES = "--init takes a checkpoint_final.pth of a training, or the .safetensors of an exported model."


def _with_absolute_init(overrides: Overrides) -> Overrides:
    if overrides.init is None:
        return overrides
    checkpoint = Path(overrides.init).resolve()
    if not checkpoint.is_file():
        raise UserError(f"there is no checkpoint {checkpoint}.\n  {_INIT_TAKES}")
    if checkpoint.suffix != ".safetensors" and not is_zipfile(checkpoint):  # as torch saves
        raise UserError(f"{checkpoint} is not a checkpoint.\n  {_INIT_TAKES}")
    return replace(overrides, init=str(checkpoint))


# --- no experiment replaces another -----------------------------------------------------------------------------------


class OtherPlansError(UserError):
    """A plans file is there that says something else."""


def _require_name(name: str) -> None:
    if "__" in name:
        raise UserError(f"plans cannot be called {name}: nnU-Net splits its result folders at double underscores.")
    if file_name(name) != name:
        raise UserError(f"plans cannot be called {name}: it names a file, so letters, digits, dots and dashes only.")


def _state(path: Path, content: Mapping[str, Any], variant: Variant) -> str:
    """See ``WrittenPlans.state``.

    Raises:
        OtherPlansError: There are other plans of this name.
    """
    if not path.exists():
        return "wrote"
    there, new = (
        _with_whole_recipes(read_json(path, remedy="Remove it, or write it again."), variant),
        _with_whole_recipes(content, variant),
    )
    if there == new:
        return "unchanged"
    ours = [
        {name: entries.get(KEY) for name, entries in plans.get("configurations", {}).items()} for plans in (there, new)
    ]
    trained = _trainings(path)
    if ours[0] == ours[1] and not trained and any(there.get(key) != new.get(key) for key in OF_THE_DATASET):
        return "renewed"
    remedy = "Choose another name with -plans_name" + ("." if trained else ", or remove that file if nothing needs it.")
    models = f"\n  Trained with them: {', '.join(trained)}." if trained else ""
    raise OtherPlansError(
        f"{path} contains other plans ({_what_differs(there, new)}), which stay as they are.{models}\n  {remedy}"
    )


def _with_whole_recipes(plans: Any, variant: Variant) -> dict[str, Any]:
    """Plans as a file holds them; entries of a recipe that a version of ours did not know yet have their defaults."""
    plans = as_read(plans)
    for entries in plans.get("configurations", {}).values():
        if entries.get(KEY, {}).get("variant") == variant.name:
            known = as_read(variant.recipe.to_dict())
            entries[KEY]["recipe"] = known | entries[KEY].get("recipe", {})
    return plans


def _trainings(path: Path) -> list[str]:
    """Names of the model folders that were trained with these plans, as far as nnU-Net's results are here."""
    results = Path(os.environ.get("nnUNet_results") or os.devnull, path.parent.name)  # noqa: SIM112 - nnU-Net's name
    return sorted(model.name for model in results.glob(f"*__{path.stem}__*"))


def _what_differs(there: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Whose plans they are, or what they say otherwise."""
    owners = [
        sorted(
            f"{entries.get(KEY, {}).get('variant', 'nnU-Net')} {entries.get(KEY, {}).get('preset', 'default')}"
            for entries in plans.get("configurations", {}).values()
            if "inherits_from" not in entries
        )
        for plans in (there, new)
    ]
    if set(owners[0]) != set(owners[1]):
        return " and ".join(dict.fromkeys(owners[0])) or "no configurations"
    found = list(_differences(there, new))
    more = len(found) - MOST_DIFFERENCES
    return "; ".join(found[:MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _differences(there: Any, new: Any, place: Sequence[str] = ()) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*new, *there]):
            if there.get(key) != new.get(key):
                yield from _differences(there.get(key), new.get(key), [*place, key])
    else:
        where = ".".join(part for part in place if part not in ("configurations", KEY))
        yield f"{where}: {_short(there)} there, {_short(new)} asked for"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
