"""``dataset.json`` and ``splits_final.json`` of nnU-Net, read in one way, and whether nnU-Net can train with labels."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json, read_json_value
from nnunet_livseg.core.labels import Structures, is_label, is_of_version_1, roles, structures_from_labels

FILE = "dataset.json"
REQUIRED_KEYS = ("channel_names", "labels", "numTraining", "file_ending")
_KINDS = {"channel_names": dict, "modality": dict, "labels": dict, "file_ending": str, "numTraining": int}
_EXAMPLE = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumor": 2},
    "numTraining": 131,
    "file_ending": ".nii.gz",
}


@dataclass(frozen=True)
class DatasetJson:
    """Content of a ``dataset.json``.

    Args:
        path: The file.
        content: What is in it.
    """

    path: Path
    content: Mapping[str, Any]

    @property
    def channels(self) -> list[str]:
        """Names of the channels, in nnU-Net's order."""
        return channel_names(self.content)

    @property
    def labels(self) -> dict[str, int | list[int]]:
        """Label values by name; a region has several values."""
        return self.content["labels"]

    @property
    def file_ending(self) -> str:
        """Ending of images and label maps, with the dot."""
        return self.content["file_ending"]

    @cached_property
    def structures(self) -> Structures:
        """What the labels mean in label maps that nnU-Net has written.

        Raises:
            UserError: The labels cannot be understood, or nnU-Net writes one region over another.
        """
        if problem := region_order_problem(self.labels, self.content.get("regions_class_order")):
            raise UserError(
                f"{self.path}: {problem}\n  A model that was trained with it never writes that label. Correct the"
                " dataset.json of the dataset, and train again; leave that of the model as it is."
            )
        return structures_from_labels(self.labels, source=str(self.path))


def read_dataset_json(folder: Path, *, required: Sequence[str] = REQUIRED_KEYS) -> DatasetJson:
    """``dataset.json`` of ``folder``, with the keys and types that everything else rests on.

    Args:
        folder: Where it lies.
        required: Keys that must be there; nnU-Net reads v1's ``modality`` for ``channel_names`` as well.

    Raises:
        UserError: The file is missing, is no JSON, or lacks a required key.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(
            f"{folder.name}: there is no {FILE}, so nnU-Net does not know channels and labels.\n"
            f"  Write {path} with the keys {', '.join(REQUIRED_KEYS)}."
        )
    content = read_json(path, remedy="Correct it.", by_hand=True)
    _check_keys(path, content, required)
    return DatasetJson(path, content)


def _check_keys(path: Path, content: dict, required: Sequence[str]) -> None:
    missing = [key for key in required if key not in content]
    if missing:
        hint = ' (nnU-Net v1 called it "modality")' if "channel_names" in missing and "modality" in content else ""
        raise UserError(
            f"{path.parent.name}: {FILE} lacks {' and '.join(missing)}{hint}, which nnU-Net needs to start.\n"
            f"  Add to {path}. For one CT: {json.dumps(_EXAMPLE)}"
        )
    for key in (key for key in content if key in required):
        kind = _KINDS[key]
        if not isinstance(content[key], kind) or (kind is not int and not content[key]):
            raise UserError(
                f"{path.parent.name}: {key} in {FILE} is {json.dumps(content[key])}, which is not"
                f" {'a filled object' if kind is dict else f'of type {kind.__name__}'}.\n  Correct {path}."
            )
    names = content["channel_names"] if "channel_names" in required else {}
    if any(not str(key).isdigit() for key in names):
        raise UserError(
            f"{path.parent.name}: channel_names in {FILE} has the keys {', '.join(names)};"
            f' nnU-Net wants "0", "1", ... with the names as values.\n  Correct {path}, for one CT: {{"0": "CT"}}.'
        )


def channel_names(content: Mapping[str, Any]) -> list[str]:
    """Names of the channels in a ``dataset.json``, by number; nnU-Net reads v1's ``modality`` as well.

    Raises:
        UserError: There are none.
    """
    names = content.get("channel_names") or content.get("modality")
    if not isinstance(names, Mapping) or any(not str(key).isdigit() for key in names):
        raise UserError(f'{FILE} names no channels.\n  Add for one CT: "channel_names": {{"0": "CT"}}.')
    return [str(names[key]) for key in sorted(names, key=int)]


def read_splits(path: Path) -> list[dict[str, list[str]]]:
    """The folds of a ``splits_final.json``, each with the cases to ``train`` on and to validate (``val``).

    Raises:
        UserError: It is damaged, or not what nnU-Net can read.
    """
    remedy = "Write it again with livseg convert, or remove it; nnU-Net then splits the cases itself."
    splits = read_json_value(path, remedy=remedy)
    if not isinstance(splits, list):
        raise UserError(f"{path} is damaged: it contains no list of folds.\n  {remedy}")
    for number, fold in enumerate(splits):
        parts = [fold.get(part) for part in ("train", "val")] if isinstance(fold, dict) else [None]
        if not all(isinstance(part, list) and all(isinstance(case, str) for case in part) for part in parts):
            raise UserError(
                f"{path} is damaged: fold {number} does not have the lists 'train' and 'val' of cases.\n  {remedy}"
            )
    return splits


# --- labels that nnU-Net can train with -------------------------------------------------------------------------------


def require_trainable(content: Mapping[str, Any], *, source: str = FILE) -> None:
    """Reject labels that nnU-Net cannot train with, or of which it would lose one (``label_problems``).

    Raises:
        UserError: The first reason.
    """
    if not isinstance(content.get("labels"), Mapping) or not content["labels"]:
        raise UserError(
            f"{source} has no labels, so nnU-Net does not know what to learn.\n"
            f"  Add them, for example: {json.dumps({'labels': _EXAMPLE['labels']})[1:-1]}"
        )
    for _, message in label_problems(content):
        raise UserError(f"{source}: {message}")


def label_problems(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Why nnU-Net cannot train with the labels of a ``dataset.json``, or what it would lose: kinds and messages."""
    labels, order = content["labels"], content.get("regions_class_order")
    if is_of_version_1(labels) or all(str(name).isdigit() for name in labels):
        yield (
            "labels",
            "labels in dataset.json maps values to names, as nnU-Net v1 did.\n"
            '  Swap names and values: {"background": 0, "liver": 1, "tumor": 2}.',
        )
        return
    wrong = next((name for name, value in labels.items() if not is_label(value)), None)
    if wrong is not None:
        yield (
            "labels",
            f"label {wrong!r} has the value {json.dumps(labels[wrong])}; nnU-Net wants a whole number from 0,"
            " or a list of them for a region.\n  Correct labels in dataset.json.",
        )
        return
    if labels.get("background") != 0:
        yield (
            "labels",
            "labels has no background with the value 0, which nnU-Net needs to start.\n"
            '  Add "background": 0 to labels in dataset.json.',
        )
    yield from _value_problems(labels)
    yield from _order_problems(labels, order)
    try:
        roles(labels)
    except UserError as error:
        yield "labels", str(error)


def _value_problems(labels: Mapping) -> Iterator[tuple[str, str]]:
    values = declared_values(labels)
    if values != list(range(len(values))):
        yield (
            "labels",
            f"the label values are {', '.join(map(str, values))}; nnU-Net wants 0, 1, 2, ... without gaps.\n"
            "  Renumber them in dataset.json and in the label maps.",
        )
    ignore = labels.get("ignore")
    others = declared_values({name: value for name, value in labels.items() if name != "ignore"})
    if ignore is not None and (ignore != max(values) or ignore in others):
        yield (
            "ignore label",
            f"the ignore label is {json.dumps(ignore)}; nnU-Net wants it to be the highest value, {max(values)}, and"
            " that of no other label.\n  Renumber the labels in dataset.json and in the label maps.",
        )


def _order_problems(labels: Mapping, order: object) -> Iterator[tuple[str, str]]:
    if not has_regions(labels):
        return
    regions, known = _regions(labels), declared_values(labels)
    if not isinstance(order, list | tuple) or len(order) != len(regions) or any(v not in known for v in order):
        given = "is missing" if order is None else f"is {json.dumps(order)}"
        yield (
            "regions",
            f"regions_class_order {given}, but nnU-Net needs one label value for each of the {len(regions)} regions"
            f" {', '.join(regions)}: the value to write, later ones over earlier ones.\n"
            '  For {"liver": [1, 2], "tumor": 2} add "regions_class_order": [1, 2] to dataset.json.',
        )
    elif problem := region_order_problem(labels, order):
        yield "regions", problem


def has_regions(labels: Mapping) -> bool:
    """Whether nnU-Net trains regions instead of labels."""
    return any(isinstance(value, list | tuple) and len(value) > 1 for value in labels.values())


def declared_values(labels: Mapping) -> list[int]:
    """All label values, sorted, with the ignore label; skips what is not a number."""
    values = (value if isinstance(value, list | tuple) else [value] for value in labels.values())
    return sorted({v for found in values for v in found if isinstance(v, int)})


def region_order_problem(labels: Mapping, order: Sequence[int] | None) -> str:
    """Which label nnU-Net would lose by writing a region over another, and an order that keeps it; empty where none.

    nnU-Net writes ``order[i]`` wherever region ``i`` of ``labels`` is, later ones over earlier ones. That is right
    where what stands in a voxel at last lies in the same regions as its true value.
    """
    if not has_regions(labels) or not order or any(not is_label(value) for value in labels.values()):
        return ""
    regions = _regions(labels)
    if len(order) != len(regions):
        return ""
    names = list(regions)
    for value in sorted(set().union(*regions.values()) - {0}):
        inside = [name for name in names if value in regions[name]]
        written = order[names.index(inside[-1])]
        if [name for name in names if written in regions[name]] != inside:
            over = ", ".join(name for name in inside[:-1])
            return (
                f"nnU-Net writes the region {inside[-1]} {list(regions[inside[-1]])} as {written}"
                f"{f' over {over}' if over else ''}, so every voxel of the label {value} becomes {written}."
                f"{_order_that_works(regions)}"
            )
    return ""


def _regions(labels: Mapping) -> dict[str, tuple[int, ...]]:
    """Name and values of each output, in nnU-Net's order."""
    values = {name: tuple(value) if isinstance(value, list | tuple) else (value,) for name, value in labels.items()}
    return {name: found for name, found in values.items() if name != "ignore" and set(found) != {0}}


def _order_that_works(regions: Mapping[str, tuple[int, ...]]) -> str:
    """The largest region first, where one value of each is in no smaller one."""
    names = sorted(regions, key=lambda name: -len(set(regions[name])))
    own = [set(regions[one]).difference(*(regions[later] for later in names[i + 1 :])) for i, one in enumerate(names)]
    if not all(own):
        return ""
    order = [min(values) for values in own]
    return (
        f"\n  In labels of dataset.json list the larger regions first: {', '.join(names)}; with"
        f' "regions_class_order": {order}.'
    )
