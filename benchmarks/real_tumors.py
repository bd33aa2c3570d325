"""nnU-Net and the five systems on real liver tumors: trained, validated and compared by the real commands, on a CPU.

    python benchmarks/real_tumors.py SOURCE --work DIR [--scores FOLDER] [--threads 1] [--only JOB ...]

SOURCE is ``lits_window``, an nnU-Net raw dataset of CTs with liver and tumors. ``livseg two-stage data`` cuts the CTs
to the livers of the references, since few voxels of a whole CT are tumor. Every system is trained twice in every fold,
for the same number of steps: as nnU-Net trains (optimizer, schedule, loss) and as its paper does. nnU-Net's own
validation predicts the patients that a fold was not trained on, so every patient is scored once for every method, but
one: the patient with the most tumor is in the training of every fold and not scored. So short a training does not learn
what a tumor is without it. Every patch holds liver or tumor (nnU-Net: every third). Nothing is mirrored, in training
and prediction: without it, a prediction takes a quarter of the time.

Everything is written below DIR, outside the repository; the same command skips what is finished. A finished training
leaves its scores in a small file of its own: with these files alone, another machine goes on. The results are in
DIR/real_tumors.json, renewed whenever a fold is complete.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import score_files  # beside this script
import SimpleITK as sitk
from score_files import LABELS, folder_result
from short_trainings import (
    CONFIGURATION,
    STOCK,
    Job,
    Length,
    add_length,
    all_jobs,
    parameters,
    plan,
    stock_plans,
    versions,
)
from workplace import Workplace, link_raw, require_outside

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_json
from nnunet_livseg.core.labels import LIVER, TUMOR
from nnunet_livseg.data.splits import cross_validation_splits
from nnunet_livseg.evaluation.comparison import compare_results
from nnunet_livseg.evaluation.folder_evaluation import evaluate_folder
from nnunet_livseg.evaluation.results import FolderResult, PairedTest

TRAIN = Path(__file__).resolve().with_name("train_on_cpu.py")
SOURCE, DATASET = "Dataset800_LiTSWindow", "Dataset801_LiTSWindowLiver"
NUMBER = int(DATASET[7:10])
GEOMETRY = "GeometryPlans"
SAMPLING = {"mirror": False, "foreground": 1.0}


@dataclass(frozen=True)
class Budget(Length):
    """What all trainings share. Patch in pixels, spacing in mm."""

    batch: int
    patch: int
    spacing_mm: float
    margin_mm: float
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


def measure(
    source: Path, work: Path, budget: Budget, jobs: Sequence[Job], *, scores: Path | None = None, threads: int = 1
) -> dict[str, Any]:
    """Everything, in ``work``, and the scores of trainings in ``scores``; what real_tumors.json holds.

    Raises:
        UserError: ``work`` lies in the repository or contains a run with other settings, or a command failed.
    """
    require_outside(work)
    place = Workplace(work, DATASET, asdict(budget))
    link_raw(source, place.raw.with_name(SOURCE))
    prepare(place, budget)
    for job in jobs:
        if job.system != STOCK:
            plan_with_sampling(place, job, budget)
    scores, found = scores or work / "scores", {}
    for fold in range(budget.folds):
        for job in jobs:
            file = scores_file(scores, job, fold)
            if not file.is_file():
                train(place, job.name, job.trainer, plans_of(job), fold, threads)
                write_scores(place, job, fold, file)
        found = collect(place, jobs, [*range(fold + 1)], scores)
        write_json(work / "real_tumors.json", found)
    return found


# --- steps ------------------------------------------------------------------------------------------------------------


def prepare(place: Workplace, budget: Budget) -> None:
    """The split, nnU-Net's plans, its network at our geometry, and the preprocessed slices that all trainings share."""
    cut = ("-d", SOURCE, "-o", place.raw, "--margin", budget.margin_mm, "--quiet")
    place.call("crop", "livseg", "two-stage", "data", *cut)
    *ranked, largest = by_tumor_volume(place.raw / "labelsTr")
    strata = {case: f"{rank // budget.folds:03}" for rank, case in enumerate(ranked)}  # folds have as many large ones
    patients = {case: case for case in ranked}
    splits = cross_validation_splits(patients, budget.folds, stratum_of=strata, seed=budget.seed)
    splits = [split | {"train": sorted([*split["train"], largest])} for split in splits]
    write_json(place.raw / "splits_final.json", splits)  # nnU-Net's planner copies it
    place.call("check", "livseg", "check", NUMBER)
    place.call("plan", "nnUNetv2_plan_and_preprocess", "-d", NUMBER, "-c", CONFIGURATION, "--no_pp", "-npfp", 1)
    size = ("--spacing", *[budget.spacing_mm] * 2, "--patch", *[budget.patch] * 2, "--batch", budget.batch)
    geometry = ("-plans_name", GEOMETRY, "-c", CONFIGURATION, *size, "--features", *budget.features)
    place.call("geometry", "livseg", "plan", "-d", NUMBER, "-m", "dpcnet-unet", *geometry)
    stock, ours = (json.loads((place.preprocessed / f"{name}.json").read_text()) for name in ("nnUNetPlans", GEOMETRY))
    for job in (job for job in all_jobs() if job.system == STOCK):
        plans = stock_plans(stock, ours, budget, name=plans_of(job), data=plans_of(FIRST))
        plans["configurations"][CONFIGURATION]["length"] |= SAMPLING
        write_json(place.preprocessed / f"{plans_of(job)}.json", plans)
    words = ("-plans_name", plans_of(FIRST), "-c", CONFIGURATION, "-np", 1)
    place.call("preprocess", "nnUNetv2_preprocess", "-d", NUMBER, *words)


def by_tumor_volume(labels: Path) -> list[str]:
    """All cases in the order of their tumor volumes, the largest last."""
    volumes = {}
    for path in sorted(labels.glob("*.nii.gz")):
        image = sitk.ReadImage(path)
        voxels = np.count_nonzero(sitk.GetArrayViewFromImage(image) == LABELS[TUMOR][0])
        volumes[path.name.removesuffix(".nii.gz")] = voxels * math.prod(image.GetSpacing())
    return sorted(volumes, key=volumes.get)


def plan_with_sampling(place: Workplace, job: Job, budget: Budget) -> None:
    """The plans of a system; ``livseg plan`` has no options for mirroring and foreground."""
    plan(place, job, budget, number=NUMBER, source=plans_of(FIRST), name=plans_of(job))
    written = place.preprocessed / f"{plans_of(job)}.json"
    content = json.loads(written.read_text())
    content["configurations"][CONFIGURATION]["livseg"]["recipe"] |= SAMPLING
    write_json(written, content)


def train(place: Workplace, name: str, trainer: str, plans: str, fold: int, threads: int) -> None:
    """One training, recorded as ``name``, and nnU-Net's validation of it; ``--c`` starts it, too."""
    words = ("--threads", threads, "--float32", NUMBER, CONFIGURATION, fold, "-tr", trainer, "-p", plans, "--c")
    place.call(f"{name}/fold_{fold}", "python", TRAIN, *words)


def write_scores(place: Workplace, job: Job, fold: int, file: Path) -> None:
    """The scores of the patients that the fold was not trained on, with the cost of the training, in a small file."""
    head = {"budget": place.settings, "machine": versions(), "step": place.steps[f"{job.name}/fold_{fold}"]}
    score_files.write_scores(file, head, evaluated(place, model_of(job), fold))


def evaluated(place: Workplace, model: str, fold: int) -> FolderResult:
    """The evaluation of nnU-Net's validation of a training."""
    predictions = place.model(model) / f"fold_{fold}" / "validation"
    out = place.folder / "evaluations" / f"{model}_fold_{fold}"
    return evaluate_folder(predictions, place.raw / "labelsTr", out=out, liver=LABELS[LIVER], tumor=LABELS[TUMOR])


def scores_file(scores: Path, job: Job, fold: int) -> Path:
    """Where the scores of a finished training are."""
    return scores / f"{job.name}_fold_{fold}.json.gz"


# --- results ----------------------------------------------------------------------------------------------------------


def collect(place: Workplace, jobs: Sequence[Job], folds: Sequence[int], scores: Path) -> dict[str, Any]:
    """What real_tumors.json holds of some folds; every method is compared with the first.

    Raises:
        UserError: Scores are those of other settings.
    """
    stored = {job: [stored_scores(place, scores_file(scores, job, fold)) for fold in folds] for job in jobs}
    results = [folder_result(job.name, [case for part in stored[job] for case in part["cases"]]) for job in jobs]
    tests = compare_results(results, folds=len(folds), baseline=jobs[0].name).pairs
    against = {test.a: against_first(test) for test in tests if (test.structure, test.metric) == (TUMOR, "dice")}
    methods = [
        outcome(place, job, result) | {"trainings": [part["step"] for part in stored[job]]}
        for job, result in zip(jobs, results, strict=True)
    ]
    machines = {json.dumps(part["machine"]): part["machine"] for parts in stored.values() for part in parts}
    shared = {name: step for name, step in place.steps.items() if "/" not in name}
    head = {"schema": 3, "budget": place.settings, "folds": list(folds), "machines": list(machines.values())}
    return head | {"shared": shared, "jobs": [one | {"against": against.get(one["name"])} for one in methods]}


def stored_scores(place: Workplace, file: Path) -> dict[str, Any]:
    """The scores of a finished training."""
    content = score_files.read_scores(file)
    if content["budget"] != place.settings:
        raise UserError(
            f"{file} is of a training with other settings: {content['budget']}.\n  Take it away or name other --scores."
        )
    return content


def outcome(place: Workplace, job: Job, result: FolderResult) -> dict[str, Any]:
    """Settings and scores of one method."""
    content = json.loads((place.preprocessed / f"{plans_of(job)}.json").read_text())["configurations"][CONFIGURATION]
    return {
        "name": job.name,
        "trainer": job.trainer,
        "recipe": job.recipe,
        "repeat": job.repeat,
        "livseg": content.get("livseg"),
        "parameters": parameters(content, classes=3),
        **score_files.summary_of(result),
    }


def against_first(test: PairedTest) -> dict[str, Any]:
    """A method minus the first."""
    return {
        "difference": test.difference,
        "ci95": test.ci95,
        "p_holm": test.p_holm,
        "better": test.wins,
        "worse": test.losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="nnU-Net raw dataset with liver 1 and tumor 2")
    parser.add_argument("--work", type=Path, required=True, help="everything is written below this folder")
    parser.add_argument("--scores", type=Path, help="folder of the scores of finished trainings (default: DIR/scores)")
    parser.add_argument("--threads", type=int, default=1, help="of one training (default: %(default)s)")
    names = {job.name: job for job in all_jobs()}
    parser.add_argument("--only", nargs="+", choices=names, metavar="JOB", default=list(names),
        help=f"trainings beside {FIRST.name}: {', '.join(names)} (default: all)")  # fmt: skip
    add_length(parser, epochs=10, iterations=100, patch=64)
    parser.add_argument("--batch", type=int, default=8, help="slices per step")
    parser.add_argument("--spacing-mm", type=float, default=3.0, help="pixel size of the training")
    parser.add_argument("--margin-mm", type=float, default=15.0, help="around the liver")
    parser.add_argument("--features", type=int, nargs="+", default=(8, 16, 32, 64, 128), help="widths of the stages")
    parser.add_argument("--folds", type=int, default=2, help="of the cross-validation")
    args = vars(parser.parse_args())
    source, work = args.pop("source"), args.pop("work").resolve()
    how = {name: args.pop(name) for name in ("scores", "threads")}
    jobs = [names[name] for name in dict.fromkeys([FIRST.name, *args.pop("only")])]
    measure(source, work, Budget(**args | {"features": tuple(args["features"])}), jobs, **how)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"real_tumors: {error}")
