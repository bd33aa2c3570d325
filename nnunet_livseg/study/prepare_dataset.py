"""Plans and preprocessed data of a study's dataset: what is missing is made, the rest is left as it is."""

import os
from collections.abc import Sequence
from pathlib import Path

from nnunet_livseg.core.dataset_json import read_splits
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json, write_json
from nnunet_livseg.core.names import dataset_id
from nnunet_livseg.core.nnunet_folders import folder
from nnunet_livseg.data.raw_dataset import raw_case_names
from nnunet_livseg.planning.next_commands import not_preprocessed
from nnunet_livseg.planning.plans_file import WrittenPlans, write_plans
from nnunet_livseg.study import job_state
from nnunet_livseg.study.folder_lock import holding
from nnunet_livseg.study.study_jobs import StudyPlan, preparation
from nnunet_livseg.variants import find_variant

UNFINISHED = "livseg_preprocessing.json"  # beside the plans while nnU-Net preprocesses: what a kill leaves incomplete


def prepare_dataset(plan: StudyPlan, dataset: str, *, slot: str = "") -> None:
    """Plan and preprocess ``dataset`` for a study, as far as that has not been done.

    Raises:
        UserError: nnU-Net's plans are missing and the raw data too, or plans of the same name say something else.
    """
    if job_state.is_prepared(plan, dataset):
        return
    place = folder("nnUNet_preprocessed") / dataset
    with holding(place, slot=slot):
        job_state.forget_failure(plan, preparation(dataset))
        cases = raw_case_names(dataset)
        _plan_as_nnunet(dataset, place, plan.study.plans)
        _split(place, cases)
        _require_folds(place, plan.study.folds)
        for spec in plan.plans:
            written = write_plans(
                place,
                find_variant(spec.row),
                source=plan.study.plans,
                preset=spec.preset,
                name=spec.name,
                overrides=spec.overrides,
            )
            print(f"{written.state}: {written.path.name}", flush=True)
            _preprocess(dataset, place, written, cases, plan.study.configurations)
        job_state.note_prepared(plan, dataset)


def _plan_as_nnunet(dataset: str, place: Path, source: str) -> None:
    """nnU-Net's own fingerprint and plans, where there are none; plans of other names are the user's to make."""
    if source != "nnUNetPlans" or _is_whole(place / f"{source}.json"):
        return
    if os.environ.get("nnUNet_n_proc_DA") == "0":  # noqa: SIM112 - nnU-Net's planner hands it to torch, which refuses 0
        os.environ["nnUNet_n_proc_DA"] = "1"  # noqa: SIM112
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments

    extract_fingerprints([dataset_id(dataset)], num_processes=_processes())
    plan_experiments([dataset_id(dataset)])


def _is_whole(plans: Path) -> bool:
    """Whether a file is there that no kill has cut: nnU-Net does not write it in one."""
    try:
        read_json(plans, remedy="")
    except UserError:
        return False
    return True


def _preprocess(
    dataset: str, place: Path, written: WrittenPlans, cases: set[str] | None, configurations: Sequence[str]
) -> None:
    interrupted = read_json(place / UNFINISHED, remedy="Remove it.") if (place / UNFINISHED).is_file() else {}
    wanted = [name for name in configurations if name in written.content["configurations"]]
    missing = set(not_preprocessed(written, place, cases, only=wanted))
    missing |= {name for name in wanted if _identifier(written, name) in interrupted.get("data", [])}
    if not missing:
        return
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    todo = [name for name in wanted if name in missing]
    write_json(place / UNFINISHED, {"data": [_identifier(written, name) for name in todo]})
    preprocess([dataset_id(dataset)], written.content["plans_name"], todo, num_processes=[_processes()] * len(todo))
    (place / UNFINISHED).unlink()


def _identifier(written: WrittenPlans, configuration: str) -> str:
    return written.content["configurations"][configuration].get("data_identifier", configuration)


def _processes() -> int:
    """As many as nnU-Net takes, but no more than there are processors: each one imports torch."""
    return min(int(os.environ.get("nnUNet_def_n_proc", "8")), os.cpu_count() or 1)  # noqa: SIM112 - nnU-Net's name


def _split(place: Path, cases: set[str] | None) -> None:
    """nnU-Net's own division into folds, whole and before trainings that start at the same time would write it."""
    path = place / "splits_final.json"
    if path.is_file() or cases is None or len(cases) < 5:
        return
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    write_json(path, generate_crossval_split(sorted(cases), seed=12345, n_splits=5))


def _require_folds(place: Path, folds: Sequence[str]) -> None:
    """Refuse folds that do not exist: nnU-Net would train them on random splits, by case, with a line in its log."""
    path = place / "splits_final.json"
    count = len(read_splits(path)) if path.is_file() else None
    if count is not None and (absent := [fold for fold in folds if fold.isdecimal() and int(fold) >= count]):
        there = "only fold 0" if count == 1 else f"folds 0 to {count - 1}"
        raise UserError(
            f"the study asks for fold {', '.join(absent)}, but {path} has {there}: nnU-Net would train the others on"
            f" random splits.\n  Write folds = {list(range(count))} into the study file."
        )
