"""nnU-Net's three folders and the datasets in them, without importing nnU-Net (which takes seconds)."""

import os
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json
from nnunet_livseg.core.names import dataset_id, did_you_mean, has_id, is_dataset_name

VARIABLES = {
    "nnUNet_raw": "raw datasets",
    "nnUNet_preprocessed": "plans and preprocessed data",
    "nnUNet_results": "trained models",
}


def folder(variable: str) -> Path:
    """The folder that the environment variable names.

    Raises:
        UserError: The variable is not set, or what it names is not a folder.
    """
    value = os.environ.get(variable)
    if not value:
        raise UserError(
            f"the environment variable {variable} is not set, so nnU-Net cannot find its {VARIABLES[variable]}."
            f"\n  Set it to a folder: export {variable}=/path/to/{variable}"
        )
    if not Path(value).is_dir():
        raise UserError(f"{variable} is {value}, which is not a folder.\n  Create it, or correct the variable.")
    return Path(value)


def find_dataset(name_or_id: str, variable: str = "nnUNet_preprocessed") -> Path:
    """Folder of the dataset with this id (``3``, ``Dataset003_Liver``) below one of nnU-Net's folders.

    Raises:
        UserError: There is none, or more than one.
    """
    base = folder(variable)
    names = sorted(path.name for path in base.iterdir() if path.is_dir() and is_dataset_name(path.name))
    is_id = name_or_id.isdecimal()
    found = [name for name in names if name == name_or_id or (is_id and has_id(name, int(name_or_id)))]
    if len(found) == 1:
        return base / found[0]
    if found:
        raise UserError(
            f"{base} contains {' and '.join(found)}, with the same id {name_or_id} for nnU-Net, which compares how"
            " names begin.\n  Rename one, or give the name."
        )
    number = name_or_id if is_id else dataset_id(name_or_id) if is_dataset_name(name_or_id) else "NUMBER"
    remedy = {
        "nnUNet_preprocessed": f"Run nnUNetv2_plan_and_preprocess -d {number} first.",
        "nnUNet_raw": "Put the dataset there, or make a synthetic one: livseg phantom -o DIR/Dataset901_Phantom",
        "nnUNet_results": "Train a model first.",
    }[variable]
    raise UserError(
        f"there is no dataset {name_or_id} in {base}.{did_you_mean(name_or_id, names)}"
        f"\n  Datasets there: {', '.join(names) or 'none'}.\n  {remedy}"
    )


# --- a training -------------------------------------------------------------------------------------------------------


def fold_folders(training: Path, holding: str) -> dict[str, Path]:
    """The folds of a training that have a file or folder ``holding``: ``0``, ``1``, ..., ``all`` to their folders.

    Other names are not folds: ``fold_0_old`` is a copy.
    """
    found = {path.parent.name.removeprefix("fold_"): path.parent for path in training.glob(f"fold_*/{holding}")}
    numbers = sorted((name for name in found if name.isdecimal()), key=int)
    return {name: found[name] for name in [*numbers, *({"all"} & found.keys())]}


def trained_dataset(training: Path) -> str | None:
    """The dataset's name of a training, or of a fold or validation in it: by its plans, else by the folders above.

    Raises:
        UserError: The plans are damaged.
    """
    for place in (training, *training.resolve().parents[:2]):
        if (place / "plans.json").is_file():
            plans = read_json(place / "plans.json", remedy="Copy the model again.")
            return plans.get("dataset_name")
    return next((part for part in reversed(training.resolve().parts) if is_dataset_name(part)), None)


def read_plans(path: Path) -> dict:
    """Content of a ``plans.json``.

    Raises:
        UserError: It is damaged, or is not a plans file.
    """
    plans = read_json(path, keys=("configurations",), remedy="Copy the model again.")
    if not isinstance(plans["configurations"], dict):
        raise UserError(f"{path} is damaged: it has no configurations.\n  Copy the model again.")
    return plans
