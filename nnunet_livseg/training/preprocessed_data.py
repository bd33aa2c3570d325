"""Check that the preprocessed data of a training were made with its plans.

nnU-Net keeps no record beside its data, and reads whatever lies in the folder that plans name. So a few cases are
compared: their size follows from spacing and size before resampling, which are stored with them; their labels and
channels from ``dataset.json``; their range of values from the normalization. Only what cannot be is rejected.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_livseg.core.dataset_json import channel_names, declared_values
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json
from nnunet_livseg.core.names import as_size, dataset_number
from nnunet_livseg.plans import KEY

MOST_CASES = 5
MOST_VOXELS = 2**25  # of one channel, whose values are looked at
RESAMPLING = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet", "resample_torch_simple")  # give a known size
_PLAN_AGAIN = "Whether the preprocessed data belong to these plans is not checked. Plan again, or remove the file."


@dataclass(frozen=True)
class _Case:
    name: str
    shape: tuple[int, ...]  # channels first
    properties: Mapping[str, Any]  # as nnU-Net's preprocessing leaves them
    labels: frozenset[int]  # in the slices that are looked at; -1 is outside
    values: np.ndarray | None  # channels first; of one case only


@dataclass(frozen=True)
class _Made:
    """How plans make data; ``plans`` and ``configuration`` are nnU-Net's managers."""

    plans: PlansManager
    name: str

    @property
    def configuration(self) -> ConfigurationManager:
        return self.plans.get_configuration(self.name)


def require_matching_data(folder: Path, plans: PlansManager, configuration: str, dataset_json: Mapping) -> None:
    """Reject preprocessed data in ``folder`` that were not made with ``configuration`` of ``plans``.

    Raises:
        UserError: They were not, or there are none; the message has the command that mends it.
    """
    ours = _Made(plans, configuration)
    owner = _owner(folder, ours)
    if not folder.is_dir() or not any(folder.glob("*.pkl")):
        raise UserError(f"there are no preprocessed data in {folder}.\n  {_remedy(folder, ours, owner, True)}")
    if ours.configuration.preprocessor_name != "DefaultPreprocessor":
        return
    try:
        cases = _read_cases(folder)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise UserError(
            f"the preprocessed data in {folder} are incomplete, as after a kill: {error}."
            f"\n  {_remedy(folder, ours, owner, True)}"
        ) from error
    wrong = _contradiction(cases, ours, dataset_json)
    if wrong is None and owner is not None:
        wrong = _only_the_owners(cases, ours, owner)
    if wrong is not None:
        again = owner is None or _contradiction(cases, owner, dataset_json) is not None
        raise UserError(
            f"the preprocessed data in {folder} do not belong to the plans {plans.plans_name}: {wrong}."
            f"\n  {_remedy(folder, ours, owner, again)}"
        )
    _require_declared(cases, dataset_json)


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_cases(folder: Path) -> list[_Case]:
    """A few cases, spread over the folder, the smallest of them with values."""
    kind = infer_dataset_class(str(folder))
    names = sorted(kind.get_identifiers(str(folder)))
    if unfinished := set(names) - {path.stem for path in folder.glob("*.pkl")}:  # which nnU-Net writes last
        raise FileNotFoundError(f"{min(unfinished)}.pkl is missing")
    most = MOST_CASES if kind is nnUNetDatasetBlosc2 else 1  # older data are read whole
    names = [names[int(i)] for i in np.unique(np.linspace(0, len(names) - 1, most).round())]
    dataset = kind(str(folder), names)
    loaded = {name: dataset.load_case(name) for name in names}
    smallest = min(names, key=lambda name: np.prod(loaded[name][0].shape))
    return [
        _Case(name, tuple(data.shape), properties, _labels(labels), _values(data) if name == smallest else None)
        for name, (data, labels, _, properties) in loaded.items()
    ]


def _labels(labels: Any) -> frozenset[int]:
    return frozenset(np.unique(_values(labels)).astype(int).tolist())


def _values(data: Any) -> np.ndarray:
    """An image, or as many slices in its middle as are looked at."""
    slices = data.shape[1]
    kept = max(1, min(slices, MOST_VOXELS // int(np.prod(data.shape[2:]))))
    first = (slices - kept) // 2
    return data[:, first : first + kept]


def _owner(folder: Path, ours: _Made) -> _Made | None:
    """The plans that nnU-Net makes these data with, where it is not with ours: the folder is named after them."""
    for path in sorted(folder.parent.glob("*.json"), key=lambda path: -len(path.stem)):
        if not folder.name.startswith(f"{path.stem}_"):
            continue
        if path.stem == ours.plans.plans_name:
            return None
        try:
            plans = PlansManager(read_json(path, keys=("configurations",), remedy=_PLAN_AGAIN))
        except UserError as error:  # a training with other plans does not need them
            warnings.warn(str(error), stacklevel=2)
            continue
        for name in plans.plans["configurations"]:
            if plans.get_configuration(name).configuration.get("data_identifier") == folder.name:
                return _Made(plans, name)
    return None


# --- comparing --------------------------------------------------------------------------------------------------------


def _require_declared(cases: list[_Case], dataset_json: Mapping) -> None:
    known = declared_values(dataset_json["labels"])
    for case in cases:
        if strange := sorted(case.labels - {-1, *known}):
            raise UserError(
                f"the label map of {case.name} contains {_listed(strange)}, which dataset.json does not declare (there"
                f" are {_listed(known)}): a training would stop there, or not learn it.\n  livseg check names all such"
                " label maps. Correct them, or declare the label, and preprocess again."
            )


def _contradiction(cases: list[_Case], made: _Made, dataset_json: Mapping) -> str | None:
    """What shows that the cases were made with other plans or another ``dataset.json``."""
    return next(
        (
            wrong
            for case in cases
            for wrong in (
                _other_channels(case, dataset_json),
                _other_size(case, made),
                _other_labels(case, made, dataset_json),
                _other_values(case, made),
            )
            if wrong is not None
        ),
        None,
    )


def _other_channels(case: _Case, dataset_json: Mapping) -> str | None:
    names = channel_names(dataset_json)
    if case.shape[0] == len(names):
        return None
    return f"{case.name} has {case.shape[0]} channels, but dataset.json has {len(names)} ({', '.join(names)})"


def _other_size(case: _Case, made: _Made) -> str | None:
    before = case.properties.get("shape_after_cropping_and_before_resampling")
    if before is None or made.configuration.configuration.get("resampling_fn_data") not in RESAMPLING:
        return None
    spacing = [case.properties["spacing"][axis] for axis in made.plans.transpose_forward]
    target = list(made.configuration.spacing)
    target = spacing[: len(spacing) - len(target)] + target  # 2D plans leave the slices
    expected = compute_new_shape(before, spacing, target)
    if all(abs(is_ - ought) <= ought // 100 for is_, ought in zip(case.shape[1:], expected, strict=True)):
        return None
    return (
        f"{case.name} has {_sizes(case.shape[1:])} voxels, and at the plans' spacing of {_sizes(target)} mm it would "
        f"have {_sizes(expected)}"
    )


def _other_labels(case: _Case, made: _Made, dataset_json: Mapping) -> str | None:
    """Labels of which nnU-Net keeps voxels to draw patches from."""
    if "class_locations" not in case.properties:
        return None
    labels = made.plans.get_label_manager(dict(dataset_json))
    wanted = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    found, wanted = _single_labels(case.properties["class_locations"]), _single_labels(wanted)
    if labels.has_ignore_label:  # then all labels stand among the classes
        wanted |= _single_labels([labels.all_labels])
    if found == wanted:
        return None
    return f"{case.name} was made for the labels {_listed(found)}, but dataset.json has {_listed(wanted)}"


def _single_labels(classes: Any) -> set[int]:
    values = {int(value) for one in classes for value in np.atleast_1d(one)}
    return values - {-1, 0}  # outside, and background


def _other_values(case: _Case, made: _Made) -> str | None:
    if case.values is None:
        return None
    schemes = made.configuration.normalization_schemes
    for channel, (low, high) in _ranges(made, len(case.values)):
        least, most = float(case.values[channel].min()), float(case.values[channel].max())
        slack = 1e-3 * (high - low)
        if least < low - slack or most > high + slack:
            return (
                f"channel {channel} of {case.name} has values from {least:.3g} to {most:.3g}, and with the plans' "
                f"{schemes[channel]} it would have {low:.3g} to {high:.3g} at most"
            )
    for channel, scheme in enumerate(schemes[: len(case.values)]):
        mean = float(case.values[channel].mean())
        if scheme == "ZScoreNormalization" and case.values.shape == case.shape and abs(mean) > 1:
            return f"channel {channel} of {case.name} has the mean {mean:.3g}, and the plans' {scheme} would make it 0"
    return None


def _only_the_owners(cases: list[_Case], ours: _Made, owner: _Made) -> str | None:
    """Intensities of which the owner's fit exactly: values are clipped, and the clipped ones show where."""
    case = next(case for case in cases if case.values is not None)
    our_ranges, owners_ranges = (dict(_ranges(made, len(case.values))) for made in (ours, owner))
    for channel in our_ranges.keys() & owners_ranges.keys():
        ends = float(case.values[channel].min()), float(case.values[channel].max())
        if _is_at(ends, owners_ranges[channel]) and not _is_at(ends, our_ranges[channel]):
            return (
                f"channel {channel} was normalized with the intensities of {owner.plans.plans_name}, which are not "
                f"those of these plans (mean {_mean(owner, channel):.1f}, here {_mean(ours, channel):.1f})"
            )
    return None


def _mean(made: _Made, channel: int) -> float:
    return made.plans.foreground_intensity_properties_per_channel[str(channel)]["mean"]


def _is_at(ends: tuple[float, float], limits: tuple[float, float]) -> bool:
    return any(abs(end - limit) < 1e-4 * (limits[1] - limits[0]) for end, limit in zip(ends, limits, strict=True))


def _ranges(made: _Made, channels: int) -> Iterator[tuple[int, tuple[float, float]]]:
    """Those of the first ``channels`` whose normalization has limits, and these.

    Resampling keeps them where it is linear or clips, as nnU-Net's does by default.
    """
    configuration = made.configuration
    options = configuration.configuration.get("resampling_fn_data_kwargs", {})
    known = configuration.configuration.get("resampling_fn_data") in RESAMPLING
    if not known or options.get("order_z", 0) > 1 or options.get("mode", "linear") not in ("linear", "nearest"):
        return
    for channel, scheme in enumerate(configuration.normalization_schemes[:channels]):
        if scheme == "CTNormalization":
            entry = made.plans.foreground_intensity_properties_per_channel[str(channel)]
            limits = np.array([entry["percentile_00_5"], entry["percentile_99_5"]])
            low, high = (limits - entry["mean"]) / max(entry["std"], 1e-8)
            yield channel, (float(low), float(high))
        elif scheme in ("RescaleTo01Normalization", "RGBTo01Normalization"):
            yield channel, (0.0, 1.0)


# --- what to do -------------------------------------------------------------------------------------------------------


def _remedy(folder: Path, ours: _Made, owner: _Made | None, again: bool) -> str:
    """Commands; ``again``: the data must be made again, whatever the plans."""
    dataset = dataset_number(folder.parent.name)
    entries = ours.configuration.configuration.get(KEY, {})
    if owner is None or "variant" not in entries:
        return f"Make them again: nnUNetv2_preprocess -d {dataset} -plans_name {ours.plans.plans_name} -c {ours.name}"
    plan = f"livseg plan -d {dataset} -m {entries['variant']}"
    preset = entries.get("preset", "default")
    plan += ("" if preset == "default" else f" --preset {preset}") + f" -p {owner.plans.plans_name}"
    lines = [f"Write these plans again, with the options of the first time: {plan} -plans_name {ours.plans.plans_name}"]
    if again:
        make = f"nnUNetv2_preprocess -d {dataset} -plans_name {owner.plans.plans_name} -c {owner.name}"
        lines.insert(0, f"The data are those of {owner.plans.plans_name}: make them again with {make}")
    return "\n  ".join(lines)


def _sizes(values: Any) -> str:
    return as_size(map(float, values), "g")


def _listed(labels: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(labels))) or "none"
