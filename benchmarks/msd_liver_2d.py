"""nnU-Net and the five systems on 2D liver slices of 81 patients: trained, predicted and compared by the real commands.

    python benchmarks/msd_liver_2d.py SOURCE --work DIR

SOURCE is an nnU-Net raw dataset of slices ``PATIENT_sNNN`` (docs/evidence/results.md). Every system is trained twice
on the same patients for the same number of steps: as nnU-Net trains (optimizer, schedule, loss) and as its paper does.
Everything is written below DIR; what is finished is skipped when the same command is run again. At the end
docs/evidence/results.json and the tables of docs/evidence/results.md are renewed.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from short_trainings import (  # beside this script
    CONFIGURATION,
    STOCK,
    STOCK_TRAININGS,
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
from workplace import Workplace

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path, write_json
from nnunet_livseg.data.splits import train_val_test_split

PROJECT = Path(__file__).resolve().parents[1]
DATASET = "Dataset801_MSDLiver2D"
PLANS = "nnUNetHalfPlans"  # nnU-Net's own network at half the slices' resolution
PAPER_LOSS = {"sfan": "ce"}  # in lieu of weighted_ce, which needs a tumor label


@dataclass(frozen=True)
class Budget(Length):
    """What all trainings share. Sizes in pixels, spacing in pixels of the source."""

    batch: int
    patch: int
    spacing: float
    patients: tuple[int, int, int]  # training, validation, test
    seed: int = 0


def plans_of(job: Job) -> str:
    """Name of the job's plans."""
    stem = job.trainer.removesuffix("Trainer")
    return PLANS if job.system == STOCK else f"{stem}{job.recipe.capitalize()}Plans"


def patient_of(case: str) -> str:
    """``msd001_s081`` is a slice of the patient ``msd001``."""
    return re.sub(r"_s\d+$", "", case)


def measure(source: Path, folder: Path, budget: Budget, jobs: Sequence[Job]) -> dict[str, Any]:
    """Everything, in ``folder``; what docs/evidence/results.json holds."""
    place = Workplace(folder, DATASET, asdict(budget))
    divide(source, place, budget)
    prepare(place, budget)
    for job in jobs:
        train_and_predict(place, job, budget)
    compare(place, jobs)
    return collect(place, jobs)


# --- steps ------------------------------------------------------------------------------------------------------------


def divide(source: Path, place: Workplace, budget: Budget) -> None:
    """A raw dataset of links, its test patients in ``imagesTs`` and ``labelsTs``, and a split by patient.

    The split stands there several times: a second training of the same kind is called fold 1.
    """
    patients = {path.stem: patient_of(path.stem) for path in sorted((source / "labelsTr").glob("*.png"))}
    split, tested = train_val_test_split(patients, budget.patients, seed=budget.seed)
    test = set(tested)
    for case in patients:
        part = "Ts" if case in test else "Tr"
        for kind, name in (("images", f"{case}_0000.png"), ("labels", f"{case}.png")):
            link = place.raw / f"{kind}{part}" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to((source / f"{kind}Tr" / name).resolve())
    described = json.loads((source / "dataset.json").read_text())
    write_json(place.raw / "splits_final.json", [split] * STOCK_TRAININGS)
    write_json(place.raw / "dataset.json", described | {"numTraining": len(patients) - len(test)})


def prepare(place: Workplace, budget: Budget) -> None:
    """nnU-Net's plans, its network at our geometry, and the preprocessed slices that all trainings share."""
    place.call("check", "livseg", "check", 801)
    place.call("plan", "nnUNetv2_plan_and_preprocess", "-d", 801, "-c", CONFIGURATION, "--no_pp", "-npfp", 1)
    size = ("--spacing", *[budget.spacing] * 2, "--patch", *[budget.patch] * 2, "--batch", budget.batch)
    place.call("geometry", "livseg", "plan", "-d", 801, "-m", "dpcnet-unet", "-plans_name", "GeometryPlans", *size)
    stock, geometry = (
        json.loads((place.preprocessed / f"{n}.json").read_text()) for n in ("nnUNetPlans", "GeometryPlans")
    )
    write_json(place.preprocessed / f"{PLANS}.json", stock_plans(stock, geometry, budget, name=PLANS, data=PLANS))
    place.call("preprocess", "nnUNetv2_preprocess", "-d", 801, "-plans_name", PLANS, "-c", CONFIGURATION, "-np", 1)


def train_and_predict(place: Workplace, job: Job, budget: Budget) -> None:
    """Plans, training and the prediction of the test patients."""
    model = ("-tr", job.trainer, "-p", plans_of(job), "-device", "cpu")
    if job.system != STOCK:
        plan(place, job, budget, number=801, source=PLANS, name=plans_of(job))
    place.call(f"{job.name}/train", "nnUNetv2_train", 801, CONFIGURATION, job.repeat, *model)
    where = ("-i", f"nnUNet_raw/{DATASET}/imagesTs", "-o", f"slices/{job.name}")
    one_by_one = ("-d", 801, "-c", CONFIGURATION, "-f", job.repeat, "-npp", 1, "-nps", 1)
    place.call(f"{job.name}/predict", "nnUNetv2_predict", *where, *one_by_one, *model)
    stack(place.folder / "slices" / job.name, place.folder / "patients" / job.name)


def stack(slices: Path, out: Path) -> None:
    """Write the slices of each patient as one volume: its Dice is over all of the patient's pixels.

    The slices of a volume are not neighbors, and it has no spacing: only overlaps have a meaning.
    """
    import SimpleITK as sitk

    files: dict[str, list[Path]] = {}
    for path in sorted(slices.glob("*.png")):
        files.setdefault(patient_of(path.stem), []).append(path)
    for patient, paths in files.items():
        volume = np.stack([sitk.GetArrayFromImage(sitk.ReadImage(path)) for path in paths])
        with atomic_path(out / f"{patient}.nii.gz") as temporary:
            sitk.WriteImage(sitk.GetImageFromArray(volume), temporary)


def compare(place: Workplace, jobs: Sequence[Job]) -> None:
    """Evaluate all jobs per patient, paired with nnU-Net."""
    stack(place.raw / "labelsTs", place.folder / "patients" / "reference")
    folders = [f"patients/{name}" for name in (*(job.name for job in jobs), "reference")]
    place.steps.pop("compare", None)  # there may be more jobs than last time; it reuses its own cases
    place.call("compare", "livseg", "compare", *folders, "--liver", 1, "--out", "comparison", "--no-report", "--quiet")


# --- results ----------------------------------------------------------------------------------------------------------


def collect(place: Workplace, jobs: Sequence[Job]) -> dict[str, Any]:
    """What docs/evidence/results.json holds; every training is compared with the first."""
    tests = first_against_others(place, jobs[0], "liver")
    return {
        "schema": 1,
        "budget": place.settings,
        "slices": {part: len(list((place.raw / f"labels{part}").iterdir())) for part in ("Tr", "Ts")},
        "machine": versions(),
        "shared": {name: step for name, step in place.steps.items() if "/" not in name},
        "jobs": [_outcome(place, job) | {"against": against_first(tests.get(job.name))} for job in jobs],
    }


def _outcome(place: Workplace, job: Job) -> dict[str, Any]:
    """Settings, cost and Dice of one training."""
    found = outcome(place, job, plans=plans_of(job), classes=2)
    dice, cases = found.pop("summary")["structures"]["liver"]["metrics"]["dice"], found.pop("cases")
    return found | {
        "dice": {key: dice[key] for key in ("mean", "ci95", "q1", "median", "q3")},
        "dice_of_patient": {case["case"]: round(case["structures"]["liver"]["dice"], 4) for case in cases},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="nnU-Net raw dataset of slices")
    parser.add_argument("--work", type=Path, required=True, help="everything is written below this folder")
    add_length(parser)
    parser.add_argument("--batch", type=int, default=4, help="slices per step")
    parser.add_argument("--spacing", type=float, default=2.0, help="pixels of the source per pixel of the training")
    parser.add_argument(
        "--patients", type=int, nargs=3, default=(55, 5, 21), help="for training, validation and test (55 5 21)"
    )
    args = vars(parser.parse_args())
    source, work = args.pop("source"), args.pop("work").resolve()
    found = measure(source, work, Budget(**args | {"patients": tuple(args["patients"])}), all_jobs(PAPER_LOSS))
    write_json(PROJECT / "docs" / "evidence" / "results.json", found)
    subprocess.run([sys.executable, PROJECT / "docs" / "generate.py"], check=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"msd_liver_2d: {error}")
