"""The commands to run after ``livseg plan``, ours and nnU-Net's: only those that work."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from nnunet_livseg.core.dataset_json import read_splits
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json
from nnunet_livseg.core.names import dataset_number
from nnunet_livseg.planning.plans_file import WrittenPlans
from nnunet_livseg.plans import KEY
from nnunet_livseg.variants import Variant

UNREADABLE = (OSError, EOFError, RuntimeError, LookupError, ValueError, UnpicklingError)  # what cut files end in
FOLDS = 5  # that nnU-Net divides into where there is no splits_final.json


def next_commands(plans: WrittenPlans, dataset: Path, variant: Variant, *, cases: set[str] | None) -> list[str]:
    """Lines for the user: what was written, what was skipped, and what to run next.

    Args:
        cases: The training cases of the raw dataset; ``None`` if it is not here.
    """
    lines = [f"{STATES[plans.state]} {plans.path}"]
    lines += [f"skipped {name}: {reason}" for name, reason in plans.left_out.items()]
    lines += ["", "next:"]
    make = not_preprocessed(plans, dataset, cases)
    number, name = dataset_number(dataset.name), plans.content["plans_name"]
    if make:
        lines.append(f"  nnUNetv2_preprocess -d {number} -plans_name {name} -c {' '.join(make)}")
    network = f"-tr {variant.trainer} -p {name}"
    folds, every_case = _folds(dataset, cases)
    trainings = _trainings(plans.content["configurations"], number, network, folds, every_case)
    lines += [f"  {line}" for line in trainings]
    return [*lines, f"  {_prediction(plans.content['configurations'], number, network, folds[0])}"]


STATES = {
    "wrote": "wrote",
    "unchanged": "unchanged:",
    "renewed": "renewed, because nnU-Net has planned the dataset again:",
}


# --- training and prediction ------------------------------------------------------------------------------------------


def _folds(dataset: Path, cases: set[str] | None) -> tuple[list[str], list[str]]:
    """The folds that can be trained, and those that validate every case: cascades need it of their first stage.

    They are those of ``splits_final.json``, or those that nnU-Net makes of enough cases; else ``all``.
    """
    splits, described = dataset / "splits_final.json", dataset / "dataset.json"
    if splits.is_file() and (divided := read_splits(splits)):
        folds = [str(fold) for fold in range(len(divided))]
        trained, validated = ({case for fold in divided for case in fold[part]} for part in ("train", "val"))
        return folds, folds if trained <= validated else ["all"]
    count = None if cases is None else len(cases)
    if count is None and described.is_file():
        count = read_json(described, remedy="Correct it, or copy it from the raw dataset again.", by_hand=True).get(
            "numTraining"
        )
    folds = ["all"] if count is not None and count < FOLDS else [str(fold) for fold in range(FOLDS)]
    return folds, folds


def _trainings(
    configurations: Mapping[str, Any], number: str, network: str, folds: list[str], every_case: list[str]
) -> Iterator[str]:
    """One fold of each configuration; of a cascade's first stage all, for it has to predict every case."""
    first_stages = {entries.get("previous_stage") for entries in configurations.values()} - {None}
    for name in sorted(configurations, key=lambda name: "previous_stage" in configurations[name]):
        if name in first_stages and len(every_case) > 1:
            train = f"nnUNetv2_train {number} {name} $fold {network}"
            yield f"for fold in {' '.join(every_case)}; do {train}; done   # the cascade reads all of them"
        else:
            in_cascade = name in first_stages or "previous_stage" in configurations[name]
            yield f"nnUNetv2_train {number} {name} {(every_case if in_cascade else folds)[0]} {network}"


def _prediction(configurations: Mapping[str, Any], number: str, network: str, fold: str) -> str:
    """The prediction that the final validation of this training is made by."""
    name = next(name for name, entries in configurations.items() if "previous_stage" not in entries)
    parent = configurations[name]
    while "inherits_from" in parent and KEY not in parent:
        parent = configurations[parent["inherits_from"]]
    scales = [float(scale) for scale in parent[KEY]["recipe"].get("validation_scales", [1.0])]
    command = "nnUNetv2_predict"
    if scales != [1.0]:
        command = f"livseg predict --scales {' '.join(f'{scale:g}' for scale in scales)}"
    return f"{command} -i IMAGES -o OUT -d {number} -c {name} -f {fold} {network}"


# --- preprocessed data ------------------------------------------------------------------------------------------------


def not_preprocessed(
    plans: WrittenPlans, dataset: Path, cases: set[str] | None, *, only: Collection[str] | None = None
) -> list[str]:
    """Configurations without data that were made with these plans; one for each folder of data.

    Args:
        only: Configurations to look at. Defaults to all.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_livseg.training.preprocessed_data import require_matching_data

    manager = PlansManager(dict(plans.content))
    described = (
        read_json(dataset / "dataset.json", remedy="Correct it, or copy it from the raw dataset again.", by_hand=True)
        if (dataset / "dataset.json").is_file()
        else None
    )
    seen: dict[str, str] = {}
    for name in plans.content["configurations"] if only is None else only:
        identifier = manager.get_configuration(name).configuration.get("data_identifier", name)
        if identifier in seen:
            continue
        folder = dataset / identifier
        there = {path.stem for path in folder.glob("*.pkl")}
        stale = not there or (cases is not None and not cases <= there) or _is_older(folder, plans)
        if not stale and described is not None:
            try:
                require_matching_data(folder, manager, name, described)
            except (UserError, *UNREADABLE):
                stale = True
        seen[identifier] = name if stale else ""
    return [name for name in seen.values() if name]


def _is_older(folder: Path, plans: WrittenPlans) -> bool:
    """Whether only these plans had data there, from before they were written: of plans that had the name then."""
    if not folder.name.startswith(plans.path.stem):
        return False
    return max(path.stat().st_mtime for path in folder.glob("*.pkl")) < plans.path.stat().st_mtime
