"""nnU-Net's plans with a variant in them: pure functions from plans to plans, and from plans to a network.

Our entries live under the key ``livseg`` of each configuration and travel with the trained model:
``{"variant": name, "preset": name, "loss": name, "recipe": {...}}``; a trainer adds ``"regions": true`` where the
dataset has regions. The network stands where nnU-Net keeps it, so its
own trainers can build it.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import did_you_mean
from nnunet_livseg.phases import phase_options
from nnunet_livseg.recipes import NNUNET, Recipe
from nnunet_livseg.variants import OWN, VARIANTS, Preset, Variant, require_options

KEY = "livseg"
STOCK_UNETS = (
    "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
)
RECIPES = ("paper", "nnunet")


@dataclass(frozen=True)
class TrainingSetup:
    """The settings of a training that nnU-Net's own plans lack."""

    architecture: Mapping[str, Any]  # as in plans: network_class_name, arch_kwargs, _kw_requires_import
    loss: str
    recipe: Recipe


def training_setup(
    variant: Variant, configuration: Mapping[str, Any], plans: Mapping[str, Any] | None = None
) -> TrainingSetup:
    """Network, loss and recipe of ``variant`` for one resolved configuration of any ``plans``.

    The plans tell a network that knows phases which of its input channels are the image's: a cascade adds others.

    Raises:
        UserError: The plans hold another variant's network, or a geometry that the variant does not exist in.
    """
    architecture, ours = configuration["architecture"], configuration.get(KEY, {})
    found = architecture["network_class_name"]
    dims = len(configuration["patch_size"])
    if dims not in variant.dims:
        only = " and ".join(f"{dim}D" for dim in variant.dims)
        raise UserError(
            f"{variant.trainer} exists in {only} only, but this configuration is {dims}D."
            f"\n  Train the configuration {'2d' if 2 in variant.dims else '3d_fullres'} instead."
        )
    if ours.get("variant", variant.name) != variant.name or found not in (variant.network, *STOCK_UNETS):
        raise UserError(_other_variant(variant, found, ours.get("variant")))
    if found in STOCK_UNETS:
        architecture = _with_network(architecture, variant, {**variant.options, **phase_options(variant, plans)})
    if ours.get("regions") and variant.region_options:
        architecture = _with_network(architecture, variant, variant.region_options)
    recipe = variant.recipe.with_entries(ours.get("recipe", {}))
    return TrainingSetup(architecture, ours.get("loss", variant.loss), recipe)


def _other_variant(variant: Variant, found: str, owner_name: str | None) -> str:
    rows = (*VARIANTS, OWN)
    owners = [row for row in rows if row.name == owner_name] or [row for row in rows if row.network == found]
    remedy = f"Train with -tr {owners[0].trainer}, or write" if owners else "Write"
    holds = f"the variant {owner_name}" if owner_name else f"the network {found}"
    return (
        f"these plans hold {holds}, but trainer {variant.trainer} builds {variant.name} ({variant.network})."
        f"\n  {remedy} plans for it: livseg plan -d DATASET"
        f" {'--network my_package.MyNet' if variant is OWN else f'-m {variant.name}'}"
    )


def _with_network(architecture: Mapping[str, Any], variant: Variant, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "network_class_name": variant.network,
        "arch_kwargs": {**architecture["arch_kwargs"], **options},
        "_kw_requires_import": list(architecture["_kw_requires_import"]),
    }


# --- writing plans ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overrides:
    """What the user asks for on top of row and preset; ``None`` keeps theirs. Spacing in mm, sizes in voxels, z y x."""

    recipe: str = "paper"
    epochs: int | None = None
    iterations: int | None = None
    validation_iterations: int | None = None
    learning_rate: float | None = None
    augmentation: str | None = None  # one of recipes.AUGMENTATIONS
    synthetic_tumors: float | None = None  # share of training patches
    loss: str | None = None  # key of losses.LOSSES
    patch: tuple[int, ...] | None = None
    batch: int | None = None
    spacing_mm: tuple[float, ...] | None = None
    features: tuple[int, ...] | None = None  # channels per stage; fixes the number of stages
    init: str | None = None
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network
    configurations: tuple[str, ...] | None = None


def preset_of(variant: Variant, name: str) -> Preset:
    """The preset of this name; ``default`` changes nothing.

    Raises:
        UserError: The variant has no such preset.
    """
    presets = {"default": Preset(), **variant.presets}
    if name not in presets:
        raise UserError(
            f"variant {variant.name} has no preset {name!r}; it has {', '.join(presets)}.{did_you_mean(name, presets)}"
        )
    return presets[name]


def plans_name(
    variant: Variant, preset: str, *, source: str = "nnUNetPlans", overrides: Overrides | None = None
) -> str:
    """Name of the plans file: ``DPCNetPlans``, with what is not the default: preset, source, recipe, initial weights.

    ``DPCNetPaperPlans``, ``DPCNetResEncUNetMPlans`` (from ``nnUNetResEncUNetMPlans``), ``DPCNetNnunetPlans``,
    ``DPCNetInitPlans``; of a network of the user's ``MyNetPlans``. A seed is last: ``DPCNetPlansSeed1``.
    """
    options = overrides.options if overrides is not None else {}
    own = str(options.get("network", "")).rpartition(".")[2]
    parts = [own or variant.trainer.removesuffix("Trainer"), "" if preset == "default" else preset.capitalize()]
    parts.append(source.removeprefix("nnUNet").removesuffix("Plans"))
    if overrides is not None:
        parts += ["" if overrides.recipe == "paper" else overrides.recipe.capitalize(), "Init" * bool(overrides.init)]
    return "".join(parts) + "Plans" + seed_suffix(overrides)


def seed_suffix(overrides: Overrides | None) -> str:
    """The ending of the name of plans with a seed; nothing else in them depends on it but the recipe."""
    return "" if overrides is None or overrides.seed is None else f"Seed{overrides.seed}"


def make_plans(stock: Mapping[str, Any], variant: Variant, *, preset: str, name: str, overrides: Overrides) -> dict:
    """Plans called ``name``: those of ``stock`` with ``variant`` in every configuration that it exists in.

    Spacing, patch or normalization that differ from the stock plans get a data identifier of their own; otherwise the
    preprocessed data is shared.

    Raises:
        UserError: Unknown preset or option, sizes of the wrong length, or a preset for a configuration that the plans
            lack.
    """
    numbers = preset_of(variant, preset)
    require_sizes(overrides)
    require_options(variant, overrides.options)
    plans = deepcopy(dict(stock))
    plans["plans_name"] = name
    plans["configurations"] = _configurations(plans["configurations"], variant, numbers, overrides)
    if numbers.window_hu is not None:
        _set_window(plans, numbers.window_hu, numbers.window_to)
    for key, configuration in plans["configurations"].items():
        if "inherits_from" in configuration:
            continue  # cascades: nnU-Net resolves the parent's entries, ours among them
        _fill(plans, key, configuration, variant, numbers, overrides)
        configuration[KEY] = _entries(variant, preset, numbers, overrides)
    return plans


def _configurations(stock: Mapping[str, Any], variant: Variant, preset: Preset, overrides: Overrides) -> dict[str, Any]:
    """The configurations that the plans will have; cascades and heirs only where what they need is among them."""
    wanted = _wanted(stock, preset, overrides)
    exist = [name for name in wanted if _dims(stock, name) in (None, *variant.dims)]
    kept = {name: deepcopy(stock[name]) for name in exist if set(_needs(stock, name)) <= set(exist)}
    for name in wanted:
        if name not in kept and (overrides.configurations or not kept):
            raise UserError(_why_not(name, stock, variant, wanted))
    for configuration in kept.values():
        following = configuration.get("next_stage", [])
        following = [name for name in ([following] if isinstance(following, str) else following) if name in kept]
        if not following:
            configuration.pop("next_stage", None)
        elif not isinstance(configuration["next_stage"], str):
            configuration["next_stage"] = following
    return kept


def _dims(stock: Mapping[str, Any], name: str) -> int | None:
    """Dimensions of a configuration, its own or the inherited ones; ``None`` where nothing says so."""
    for one in (name, *_needs(stock, name, ("inherits_from",))):
        if "patch_size" in stock.get(one, {}):
            return len(stock[one]["patch_size"])
    return None


def _needs(stock: Mapping[str, Any], name: str, links: Sequence[str] = ("previous_stage", "inherits_from")) -> list:
    """The configurations that this one cannot be without, the nearest first."""
    found = [name]
    for one in found:  # grows
        linked = [stock.get(one, {}).get(link) for link in links]
        found += [other for other in dict.fromkeys(linked) if other is not None and other not in found]
    return found[1:]


def _why_not(name: str, stock: Mapping[str, Any], variant: Variant, wanted: Sequence[str]) -> str:
    dims, needs = _dims(stock, name), _needs(stock, name)
    if dims not in (None, *variant.dims):
        only = " and ".join(f"{dim}D" for dim in variant.dims)
        return f"{variant.name} exists in {only} only, but {name} is {dims}D.\n  Choose another with -c."
    absent = [other for other in needs if other not in stock]
    if absent:
        return f"{name} needs {' and '.join(needs)}, but the plans have no {absent[0]}.\n  Choose another with -c."
    together = [other for other in stock if other in {name, *needs, *wanted}]
    return f"{name} needs {' and '.join(needs)}. Name them too: -c {' '.join(together)}."


def _wanted(stock: Mapping[str, Any], preset: Preset, overrides: Overrides) -> list[str]:
    wanted = list(overrides.configurations or ([preset.configuration] if preset.configuration else stock))
    missing = [name for name in wanted if name not in stock]
    if missing:
        raise UserError(
            f"the source plans have no configuration {missing[0]}, only {', '.join(stock)}."
            "\n  nnU-Net plans 3d_lowres for large images only, and 2d alone for 2D images."
        )
    return wanted


def _entries(variant: Variant, preset: str, numbers: Preset, overrides: Overrides) -> dict[str, Any]:
    recipe = NNUNET if overrides.recipe == "nnunet" else (numbers.recipe or variant.recipe)
    asked = {entry.name: getattr(overrides, entry.name, None) for entry in fields(recipe)}
    changes = {name: value for name, value in asked.items() if value is not None}
    return {
        "variant": variant.name,
        "preset": preset,
        "loss": overrides.loss or numbers.loss or variant.loss,
        "recipe": recipe.replace(**changes).to_dict(),
    }


def _fill(plans: dict, name: str, configuration: dict, variant: Variant, preset: Preset, overrides: Overrides) -> None:
    """Put geometry and network into one configuration."""
    dims = len(configuration["patch_size"])
    spacing = _of_length(dims, "spacing", overrides.spacing_mm or preset.spacing_mm, name)
    patch = _of_length(dims, "patch", overrides.patch or preset.patch, name)
    if spacing is not None and not np.allclose(spacing, configuration["spacing"]):
        _set_spacing(configuration, spacing)
    features = overrides.features or preset.features
    if patch is not None or features is not None:
        _set_geometry(configuration, patch or configuration["patch_size"], features)
    if overrides.batch or preset.batch:
        configuration["batch_size"] = overrides.batch or preset.batch
    if preset.window_hu is not None or spacing is not None:
        owner = plans["plans_name"].removesuffix(seed_suffix(overrides))  # other seeds share the data
        configuration["data_identifier"] = f"{owner}_{name}"
    options = {**variant.options, **preset.options, **overrides.options, **phase_options(variant, plans)}
    if variant is OWN:
        options["patch_size"] = list(configuration["patch_size"])
    configuration["architecture"] = _with_network(configuration["architecture"], variant, options)


def require_sizes(overrides: Overrides) -> None:
    """Reject sizes that are not above 0.

    Raises:
        UserError: The option with that size.
    """
    asked = {"--patch": overrides.patch, "--spacing": overrides.spacing_mm}
    asked["--batch"] = None if overrides.batch is None else (overrides.batch,)
    asked["--features"] = overrides.features
    for option, numbers in asked.items():
        if numbers is not None and not all(np.isfinite(n) and n > 0 for n in numbers):
            raise UserError(f"{option} {' '.join(map(str, numbers))}: sizes must be above 0.")


def _of_length(dims: int, what: str, value: Sequence[float] | None, configuration: str) -> list | None:
    if value is None or len(value) == dims:
        return None if value is None else list(value)
    if dims == 2 and what == "spacing":
        return list(value)[1:]
    raise UserError(
        f"{what} {' '.join(map(str, value))} has {len(value)} numbers, but {configuration} has {dims} axes."
        f"\n  Give {dims} numbers ({'z y x' if dims == 3 else 'y x'}) and name the configuration: -c {configuration}"
    )


def _set_spacing(configuration: dict, spacing: list[float]) -> None:
    old = np.array(configuration["spacing"])
    configuration["spacing"] = [float(s) for s in spacing]
    sizes = np.array(configuration["median_image_size_in_voxels"]) * old / np.array(spacing)
    configuration["median_image_size_in_voxels"] = [float(round(size)) for size in sizes]


def with_patch(configuration: Mapping[str, Any], patch: Sequence[int]) -> dict[str, Any]:
    """``configuration`` for another patch, by nnU-Net's own rule, which may make it larger."""
    changed = deepcopy(dict(configuration))
    _set_geometry(changed, patch, None)
    return changed


def with_own_network(configuration: Mapping[str, Any], network: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``configuration`` with a user's network, by the import path of its class."""
    options = {"network": network, "arguments": dict(arguments), "patch_size": list(configuration["patch_size"])}
    return {**configuration, "architecture": _with_network(configuration["architecture"], OWN, options)}


def _set_geometry(configuration: dict, patch: Sequence[int], features: Sequence[int] | None) -> None:
    """Kernels, strides and stages for a patch, by nnU-Net's own rule; ``features`` fixes the number of stages."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    kwargs = configuration["architecture"]["arch_kwargs"]
    most = len(features) - 1 if features else 999999
    _, strides, kernels, padded, _ = get_pool_and_conv_props(configuration["spacing"], patch, 4, most)
    if features and len(strides) < len(features):
        raise UserError(
            f"{' '.join(map(str, features))} channels make {len(features)} resolution stages, which do not fit into"
            f" patch {' '.join(map(str, patch))}.\n  Give a larger --patch, or fewer --features."
        )
    stages = len(features) if features else len(strides)
    widths = list(features) if features else _widths(kwargs["features_per_stage"], stages)
    configuration["patch_size"] = [int(size) for size in padded]
    if "patch_size" in kwargs:  # of a network of the user's
        kwargs["patch_size"] = configuration["patch_size"]
    kwargs |= {"n_stages": stages, "features_per_stage": widths}
    kwargs |= {"strides": [list(s) for s in strides[:stages]], "kernel_sizes": [list(k) for k in kernels[:stages]]}
    for key, count in (
        ("n_conv_per_stage", stages),
        ("n_blocks_per_stage", stages),
        ("n_conv_per_stage_decoder", stages - 1),
    ):
        if key in kwargs:
            kwargs[key] = _widths(kwargs[key], count)


def _widths(known: Sequence[int], count: int) -> list[int]:
    """The first ``count`` entries; the last one repeats where there are too few."""
    return [int(known[min(i, len(known) - 1)]) for i in range(count)]


def _set_window(plans: dict, window_hu: tuple[float, float], window_to: tuple[float, float]) -> None:
    """A HU window as nnU-Net's CT normalization takes it: clip to it, then shift and scale to ``window_to``."""
    low, high = window_hu
    schemes = {s for c in plans["configurations"].values() for s in c.get("normalization_schemes", ())}
    if schemes - {"CTNormalization"}:
        raise UserError(
            f"the preset clips to {low:g}..{high:g} HU, but the plans normalize by {', '.join(sorted(schemes))}, which"
            " has no window.\n  Name the channels CT in dataset.json and plan again (nnUNetv2_plan_and_preprocess), or"
            " choose another preset."
        )
    std = (high - low) / (window_to[1] - window_to[0])
    for channel in plans["foreground_intensity_properties_per_channel"].values():
        channel |= {"percentile_00_5": float(low), "percentile_99_5": float(high)}
        channel |= {"mean": low - window_to[0] * std, "std": std}
