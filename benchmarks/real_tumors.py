"""nnU-Net and the five systems on real liver tumors: trained, validated and compared by the real commands, on a CPU.

    python benchmarks/real_tumors.py SOURCE --work DIR [--threads 1]

SOURCE is ``lits_window``, an nnU-Net raw dataset of CTs with liver and tumors. Every system is trained twice in every
fold, for the same number of steps: as nnU-Net trains (optimizer, schedule, loss) and as its paper does. nnU-Net's own
validation predicts the patients that a fold was not trained on, so every patient is scored once for every method.
Nothing is mirrored, in training and prediction: without it, a prediction takes a quarter of the time.

Everything is written below DIR, outside the repository; the same command skips what is finished. The results are in
DIR/real_tumors.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from short_trainings import (  # beside this script
    CONFIGURATION,
    STOCK,
    Job,
    Length,
    add_length,
    against_first,
    all_jobs,
    first_against_others,
    outcome,
    plan,
    stock_plans,
    versions,
)
from workplace import Workplace, link_raw, require_outside

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_json
from nnunet_livseg.data.splits import cross_validation_splits

TRAIN = Path(__file__).resolve().with_name("train_on_cpu.py")
DATASET = "Dataset801_LiTSWindow2D"
GEOMETRY = "GeometryPlans"


@dataclass(frozen=True)
class Budget(Length):
    """What all trainings share. Patch in pixels, spacing in mm."""

    batch: int
    patch: int
    spacing_mm: float
    features: tuple[int, ...]
    folds: int
    seed: int = 0


FIRST = all_jobs()[0]  # nnU-Net: what the others are compared with, and whose data they share


def plans_of(job: Job) -> str:
    """Name of the job's plans."""
    stem = "Stock" if job.system == STOCK else job.trainer.removesuffix("Trainer")
    return f"{stem}{job.recipe.capitalize()}{job.repeat + 1 if job.repeat else ''}Plans"


def model_of(job: Job) -> str:
    """nnU-Net's name of the folder of its trainings."""
    return f"{job.trainer}__{plans_of(job)}__{CONFIGURATION}"


def measure(source: Path, work: Path, budget: Budget, jobs: Sequence[Job], *, threads: int = 1) -> dict[str, Any]:
    """Everything, in ``work``; what real_tumors.json holds.

    Raises:
        UserError: ``work`` lies in the repository or holds a run with other settings, or a command failed.
    """
    require_outside(work)
    place = Workplace(work, DATASET, asdict(budget))
    link_raw(source, place)
    prepare(place, budget)
    for job in jobs:
        if job.system != STOCK:
            plan_without_mirroring(place, job, budget)
    for fold in range(budget.folds):
        for job in jobs:
            train(place, job, fold, threads)
    compare(place, jobs)
    return collect(place, jobs)


# --- steps ------------------------------------------------------------------------------------------------------------


def prepare(place: Workplace, budget: Budget) -> None:
    """The split, nnU-Net's plans, its network at our geometry, and the preprocessed slices that all trainings share."""
    cases = [path.name.removesuffix(".nii.gz") for path in sorted((place.raw / "labelsTr").iterdir())]
    patients = {case: case for case in cases}
    alike = dict.fromkeys(cases, "")
    splits = cross_validation_splits(patients, budget.folds, stratum_of=alike, seed=budget.seed)
    write_json(place.raw / "splits_final.json", splits)  # nnU-Net's planner copies it
    place.call("check", "livseg", "check", 801)
    place.call("plan", "nnUNetv2_plan_and_preprocess", "-d", 801, "-c", CONFIGURATION, "--no_pp", "-npfp", 1)
    size = ("--spacing", *[budget.spacing_mm] * 2, "--patch", *[budget.patch] * 2, "--batch", budget.batch)
    geometry = ("-plans_name", GEOMETRY, "-c", CONFIGURATION, *size, "--features", *budget.features)
    place.call("geometry", "livseg", "plan", "-d", 801, "-m", "dpcnet-unet", *geometry)
    stock, ours = (json.loads((place.preprocessed / f"{name}.json").read_text()) for name in ("nnUNetPlans", GEOMETRY))
    for job in (job for job in all_jobs() if job.system == STOCK):
        plans = stock_plans(stock, ours, budget, name=plans_of(job), data=plans_of(FIRST))
        plans["configurations"][CONFIGURATION]["length"]["mirror"] = False
        write_json(place.preprocessed / f"{plans_of(job)}.json", plans)
    words = ("-plans_name", plans_of(FIRST), "-c", CONFIGURATION, "-np", 1)
    place.call("preprocess", "nnUNetv2_preprocess", "-d", 801, *words)


def plan_without_mirroring(place: Workplace, job: Job, budget: Budget) -> None:
    """The plans of a system; ``livseg plan`` has no option for mirroring."""
    plan(place, job, budget, number=801, source=plans_of(FIRST), name=plans_of(job))
    written = place.preprocessed / f"{plans_of(job)}.json"
    content = json.loads(written.read_text())
    content["configurations"][CONFIGURATION]["livseg"]["recipe"]["mirror"] = False
    write_json(written, content)


def train(place: Workplace, job: Job, fold: int, threads: int) -> None:
    """One training and nnU-Net's validation of it; ``--c`` starts it, too."""
    model = ("-tr", job.trainer, "-p", plans_of(job))
    words = ("python", TRAIN, "--threads", threads, 801, CONFIGURATION, fold, *model, "--c")
    place.call(f"{job.name}/fold_{fold}", *words)


def compare(place: Workplace, jobs: Sequence[Job]) -> None:
    """Evaluate all methods over the patients of all folds, paired."""
    folders = [f"nnUNet_results/{DATASET}/{model_of(job)}" for job in jobs]
    names = ("--names", *[job.name for job in jobs])
    place.steps.pop("compare", None)  # there may be more jobs than last time; it reuses its own cases
    place.call("compare", "livseg", "compare", *folders, *names, "-o", "comparison", "--no-report", "--quiet")


# --- results ----------------------------------------------------------------------------------------------------------


def collect(place: Workplace, jobs: Sequence[Job]) -> dict[str, Any]:
    """What real_tumors.json holds; every method is compared with the first."""
    tests = first_against_others(place, jobs[0], "tumor")
    return {
        "schema": 2,
        "budget": place.settings,
        "machine": versions(),
        "shared": {name: step for name, step in place.steps.items() if "/" not in name},
        "jobs": [_outcome(place, job) | {"against": against_first(tests.get(job.name))} for job in jobs],
    }


def _outcome(place: Workplace, job: Job) -> dict[str, Any]:
    """Settings, cost and scores of one method."""
    found = outcome(place, job, plans=plans_of(job), classes=3)
    summary, cases = found.pop("summary"), found.pop("cases")
    strata = [{key: row[key] for key in ("stratum", "n", "found", "false")} for row in summary["lesion_strata"]]
    return found | {
        "scores": {name: _scores(summary["structures"][name]) for name in ("liver", "tumor")},
        "lesions": {"strata": strata, "false_per_case": summary["lesions"]["false_per_case"]},
        "dice_of_patient": {
            case["case"]: {name: case["structures"][name]["dice"] for name in ("liver", "tumor")} for case in cases
        },
    }


def _scores(structure: dict) -> dict[str, Any]:
    dice = structure["metrics"]["dice"]
    return {"n": dice["n"], "global": structure["dice_global"]} | {key: dice[key] for key in ("mean", "ci95", "median")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="nnU-Net raw dataset with liver 1 and tumor 2")
    parser.add_argument("--work", type=Path, required=True, help="everything is written below this folder")
    parser.add_argument("--threads", type=int, default=1, help="of one training (default: %(default)s)")
    add_length(parser)
    parser.add_argument("--batch", type=int, default=8, help="slices per step")
    parser.add_argument("--spacing-mm", type=float, default=4.0, help="pixel size of the training")
    parser.add_argument("--features", type=int, nargs="+", default=(16, 32, 64, 128, 256), help="widths of the stages")
    parser.add_argument("--folds", type=int, default=2, help="of the cross-validation")
    args = vars(parser.parse_args())
    source, work, threads = args.pop("source"), args.pop("work").resolve(), args.pop("threads")
    budget = Budget(**args | {"features": tuple(args["features"])})
    write_json(work / "real_tumors.json", measure(source, work, budget, all_jobs(), threads=threads))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"real_tumors: {error}")
