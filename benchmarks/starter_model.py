"""The starter model, made from the 25 patients of ``lits_window`` with nnU-Net's commands and ours, on a CPU.

    python benchmarks/starter_model.py SOURCE --work DIR [--threads 2] [--stages liver tumors]
        [--folds 0 1 2 3 4 all] [--init FILE] [--average FILE] [--scores FOLDER] [--ship FOLDER]

SOURCE is the nnU-Net raw dataset. DIR, outside the repository, gets links to its images and all that is made from
them. Run the same command again after an interruption: finished steps are skipped, and a training continues from its
last checkpoint (at most five minutes and an epoch are lost). At the end the output and DIR/starter_model.json say how
long every step took, on which machine, and the Dice of the folds' own patients. What follows ``--`` goes to
``livseg plan`` (``-- --epochs 20``).

The first stage sees whole CTs at 4 mm and finds the liver; the second sees the liver's box at about 2 mm and finds the
tumors. The training on all patients starts from the weights of fold 0, because a CPU has no time to begin anew, or from
those of ``--init``, so a shipped model can be trained on.

A fold of the tumors leaves the scores of its own patients in a small file (``--scores``), so folds may be trained on
different days. There the fold's network takes the place of the package's tumor model, and whole CTs are segmented; the
package's liver model may have seen them.

``--ship`` writes the model as the package ships it: weights without pickle in half precision, plans, dataset.json. It
takes fold 0 before the training on all is done. With ``--average``, what is scored and shipped has the mean of the
training's weights and those of a checkpoint, usually the one that the training started from.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from score_files import LABELS, folder_result, read_scores, summary_of, write_scores  # beside this script
from short_trainings import versions
from workplace import Workplace, link_raw, require_outside

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_json
from nnunet_livseg.core.labels import LIVER, TUMOR
from nnunet_livseg.diagnostics.machine import processor_name
from nnunet_livseg.evaluation.folder_evaluation import evaluate_folder
from nnunet_livseg.inference.safe_weights import SafeWeights, first_names, weights_of_checkpoint, write_safe_weights
from nnunet_livseg.inference.starter_model import starter_liver_model
from nnunet_livseg.inference.trained_model import SAFE_CHECKPOINT
from nnunet_livseg.postprocessing.steps import LargestLiver, SmallestLesion, TumorInLiver, as_dict
from nnunet_livseg.postprocessing.steps_file import FILE, SCHEMA
from nnunet_livseg.variants import find_variant

TRAIN = Path(__file__).resolve().with_name("train_on_cpu.py")
DATASET, CONFIGURATION = "Dataset811_LiTSWindow", "3d_fullres"
FOLDS = ("0", "1", "2", "3", "4", "all")
EPOCHS_OF_ALL = 45  # after those of fold 0
MARGIN_MM = 30  # around the liver, in the second stage's data
# of lits_window's patients: all but five have slices this close, all but one a liver of such median HU, and all have
# this much liver
TRAINED_ON = {"slice_mm": 5.1, "liver_hu": [60, 160], "liver_ml": 1100}
# other organs and food look like tumors where they touch the liver; of the 136 tumors in lits_window's references, one
# has less than this share of its surface in the liver. 50 mm3 are five voxels
STEPS = (TumorInLiver(0.35), LargestLiver(), SmallestLesion(50))


@dataclass(frozen=True)
class Stage:
    """One of the model's networks.

    Args:
        variant: Its row of ``livseg list``.
        preset: Its settings.
        dataset: What it is trained on.
        average_to_mm: Voxels of a CT are averaged up to this size first, because lits_window's pixels are averages of
            two by two.
        by_torch: Whether the shipped plans resample CTs by nnU-Net's torch function, linearly, not as in training: in
            less time, and with the same box of the liver.
    """

    variant: str
    preset: str
    dataset: str
    average_to_mm: float
    by_torch: bool = False

    @property
    def number(self) -> int:
        """nnU-Net's number of the dataset."""
        return int(self.dataset[7:10])

    @property
    def trainer(self) -> str:
        return find_variant(self.variant).trainer

    def plans(self, fold: str) -> str:
        """Those of the folds; the training on all patients starts from weights, so it has its own."""
        init = "Init" if fold == "all" else ""
        return f"{self.trainer.removesuffix('Trainer')}{self.preset.capitalize()}{init}Plans"

    def folder(self, place: Workplace, fold: str) -> Path:
        """Where nnU-Net keeps the training."""
        model = f"{self.trainer}__{self.plans(fold)}__{CONFIGURATION}"
        return place.folder / "nnUNet_results" / self.dataset / model / f"fold_{fold}"


STAGES = {
    "liver": Stage("dpcnet-unet", "starter", DATASET, 2.0, by_torch=True),
    "tumors": Stage("dpcnet-unet", "tumors", "Dataset812_LiTSInLiver", 1.6),
}


def make(
    source: Path,
    work: Path,
    *,
    stages: Sequence[str],
    folds: Sequence[str],
    threads: int,
    plan: Sequence[str] = (),
    init: Path | None = None,
    average: Path | None = None,
    scores: Path | None = None,
    ship_to: Path | None = None,
) -> dict[str, Any]:
    """Everything, in ``work``; what starter_model.json holds.

    Raises:
        UserError: ``work`` lies in the repository or contains a run with other settings, or a command failed.
    """
    require_outside(work)
    for option, file in (("--init", init), ("--average", average)):
        if file is not None and not file.is_file():
            raise UserError(f"{option}: there is no file {file}.")
    settings = {"source": str(source.resolve()), "plan": list(plan)}
    place = Workplace(work, DATASET, settings)
    link_raw(source, place.raw)
    chosen = [STAGES[name] for name in stages]
    for stage in chosen:
        prepare(place, stage, plan)
        for fold in folds:
            if fold == "all":
                plan_for_all(place, stage, plan, init)
            train(place, stage, fold, threads)
            if stage is STAGES["tumors"] and fold != "all":
                score(place, stage, fold, average, scores or work / "scores")
    outcomes = {f"{stage.variant} {stage.preset}": outcome(place, stage) for stage in chosen}
    found = {"stages": outcomes, "steps": place.steps, "machine": _machine() | {"threads": threads}}
    found["scores"] = collect(scores or work / "scores")
    write_json(work / "starter_model.json", found)
    for stage in chosen if ship_to is not None else ():
        ship(place, stage, average, ship_to)
    return found


# --- steps ------------------------------------------------------------------------------------------------------------


def prepare(place: Workplace, stage: Stage, plan: Sequence[str]) -> None:
    """The stage's data, nnU-Net's fingerprint and plans of it, the stage's plans, and its preprocessed data."""
    number = stage.number
    if stage.dataset != DATASET:
        out = place.raw.with_name(stage.dataset)
        place.call(f"{number}/crop", "livseg", "two-stage", "data", "-d", 811, "-o", out, "--margin", MARGIN_MM)
    place.call(f"{number}/check", "livseg", "check", number)
    stock = ("nnUNetv2_plan_and_preprocess", "-d", number, "-c", CONFIGURATION, "--no_pp", "-npfp", 1)
    place.call(f"{number}/fingerprint", *stock)
    ours = ("livseg", "plan", "-d", number, "-m", stage.variant, "--preset", stage.preset, *plan)
    place.call(f"{stage.plans('0')}/plan", *ours)
    preprocess(place, stage, "0")


def preprocess(place: Workplace, stage: Stage, fold: str) -> None:
    """nnU-Net's preprocessed data of the fold's plans."""
    plans = stage.plans(fold)
    words = ("nnUNetv2_preprocess", "-d", stage.number, "-plans_name", plans, "-c", CONFIGURATION, "-np", 1)
    place.call(f"{plans}/preprocess", *words)


def plan_for_all(place: Workplace, stage: Stage, plan: Sequence[str], init: Path | None) -> None:
    """Plans and data of the training on all patients.

    Raises:
        UserError: There are no weights to start from.
    """
    first = init or stage.folder(place, "0") / "checkpoint_final.pth"
    if not first.is_file():
        raise UserError(f"the training on all patients starts from {first}, which is not there.\n  --folds 0 all")
    model = ("-m", stage.variant, "--preset", stage.preset, *plan)
    epochs = () if "--epochs" in plan else ("--epochs", EPOCHS_OF_ALL)
    place.call(f"{stage.plans('all')}/plan", "livseg", "plan", "-d", stage.number, *model, *epochs, "--init", first)
    preprocess(place, stage, "all")


def train(place: Workplace, stage: Stage, fold: str, threads: int) -> None:
    """One training and nnU-Net's validation of it; ``--c`` starts it, too."""
    model = ("-tr", stage.trainer, "-p", stage.plans(fold))
    words = ("python", TRAIN, "--threads", threads, stage.number, CONFIGURATION, fold, *model, "--c")
    place.call(f"{stage.plans(fold)}/fold_{fold}", *words)


def ship(place: Workplace, stage: Stage, average: Path | None, folder: Path) -> None:
    """The training on all patients, or fold 0 before that is done, as a model folder without pickle in ``folder``."""
    trainings = [stage.folder(place, fold) for fold in ("all", "0")]
    training = next((one for one in trainings if (one / "checkpoint_final.pth").is_file()), None)
    if training is None:
        raise UserError(f"{stage.preset} has no finished training that could be shipped.\n  --folds 0 all")
    write_model(stage, training, average, folder)


def score(place: Workplace, stage: Stage, fold: str, average: Path | None, scores: Path) -> None:
    """The scores of the patients that the fold was not trained on, with the cost of its training, in a small file."""
    file = scores / f"starter_fold_{fold}.json.gz"
    if file.is_file():
        return
    from nnunet_livseg.inference.segmenter import Segmenter  # which imports torch

    model = write_model(stage, stage.folder(place, fold), average, place.folder / "shipped" / f"fold_{fold}")
    as_shipped = {"quality": "balanced", "device": "cpu", "postprocess": True}  # what no -m means
    segmenter = Segmenter(model, liver_model=starter_liver_model(), crop=False, **as_shipped)
    splits = json.loads((place.preprocessed.with_name(stage.dataset) / "splits_final.json").read_text())
    ending = json.loads((place.raw / "dataset.json").read_text())["file_ending"]
    predictions, evaluation = (place.folder / name / f"fold_{fold}" for name in ("predictions", "evaluations"))
    predictions.mkdir(parents=True, exist_ok=True)
    for case in splits[int(fold)]["val"]:
        labels = segmenter.segment(place.raw / "imagesTr" / f"{case}_0000{ending}").labels
        sitk.WriteImage(labels, predictions / f"{case}{ending}")
    liver_and_tumor = {"liver": LABELS[LIVER], "tumor": LABELS[TUMOR]}
    result = evaluate_folder(predictions, place.raw / "labelsTr", out=evaluation, **liver_and_tumor)
    scores.mkdir(parents=True, exist_ok=True)
    write_scores(file, {"fold": fold, "machine": _machine()} | outcome(place, stage)[f"fold_{fold}"], result)


def write_model(stage: Stage, training: Path, average: Path | None, folder: Path) -> Path:
    """A training's folder as the package ships it, in ``folder``; returns it."""
    weights = weights_of_checkpoint(training / "checkpoint_final.pth")
    if average is not None:
        weights = mean_weights(weights, weights_of_checkpoint(average))
    model = folder / training.parent.name
    write_safe_weights(weights, model / training.name / SAFE_CHECKPOINT, half=True)
    plans = json.loads((training.parent / "plans.json").read_text())
    plans["configurations"] = {CONFIGURATION: plans["configurations"][CONFIGURATION]}
    configuration = plans["configurations"][CONFIGURATION]
    configuration["livseg"]["recipe"]["init"] = None  # a path of this machine
    if stage.by_torch:
        configuration["resampling_fn_data"] = "resample_torch_fornnunet"
        configuration["resampling_fn_data_kwargs"] = {"is_seg": False, "num_threads": 1}
    write_json(model / "plans.json", plans)
    dataset = json.loads((training.parent / "dataset.json").read_text())
    grid = {"orientation": "LPS", "average_to_mm": stage.average_to_mm}
    ours = dataset.get("livseg", {}) | {"grid": grid, "any_patch": True, "trained_on": TRAINED_ON}
    if "two_stage" in ours:  # without the places of the patients' livers
        ours["two_stage"] = {key: ours["two_stage"][key] for key in ("mode", "margin_mm")}
        write_json(model / FILE, {"schema": SCHEMA, "steps": [as_dict(step) for step in STEPS]})
    write_json(model / "dataset.json", dataset | {"livseg": ours})
    return model


def mean_weights(first: SafeWeights, second: SafeWeights) -> SafeWeights:
    """The mean of two trainings of the same network; tensors with several names stay one (Wortsman et al., 2022)."""
    one, other, first_of = first.parameters, second.parameters, first_names(first.parameters)
    means = {name: (one[name] + other[name]) / 2 for name in set(first_of.values())}
    return replace(first, parameters={name: means[same] for name, same in first_of.items()})


# --- results ----------------------------------------------------------------------------------------------------------


def outcome(place: Workplace, stage: Stage) -> dict[str, Any]:
    """Per fold: epochs, seconds of training (interruptions not counted), and nnU-Net's mean Dice of its patients."""
    folders = [stage.folder(place, fold) for fold in FOLDS]
    ended = [folder for folder in folders if (folder / "checkpoint_final.pth").is_file()]
    return {folder.name: _training(folder) | _validation(folder) for folder in ended}


def collect(scores: Path) -> dict[str, Any]:
    """The tumors' folds whose scores are in a folder: their trainings, and their patients together."""
    folds = [read_scores(file) for file in sorted(scores.glob("starter_fold_*.json.gz"))]
    if not folds:
        return {}
    cases = [case | {"fold": fold["fold"]} for fold in folds for case in fold["cases"]]
    result = folder_result("starter", cases)
    volumes = {
        case.case: {key: round(case.structures[TUMOR][f"volume_{key}"], 1) for key in ("reference", "predicted")}
        for case in result.cases
    }
    trainings = [{key: value for key, value in fold.items() if key != "cases"} for fold in folds]
    fold_of = {case.case: case.fold for case in result.cases}
    return {"trainings": trainings, **summary_of(result), "tumor_ml_of_patient": volumes, "fold_of_patient": fold_of}


def _training(folder: Path) -> dict[str, Any]:
    import torch

    log = torch.load(folder / "checkpoint_final.pth", map_location="cpu", weights_only=False)["logging"]
    starts, ends = log["epoch_start_timestamps"], log["epoch_end_timestamps"]
    return {"epochs": len(ends), "train_s": round(sum(e - s for s, e in zip(starts, ends, strict=False)), 1)}


def _validation(folder: Path) -> dict[str, Any]:
    summary = folder / "validation" / "summary.json"
    if folder.name == "fold_all" or not summary.exists():  # its patients were trained on
        return {}
    mean = json.loads(summary.read_text())["mean"]
    return {"dice": {label: round(metrics["Dice"], 4) for label, metrics in mean.items()}}


def _machine() -> dict[str, Any]:
    return {"cpu": processor_name()} | versions()


def said(found: dict[str, Any]) -> str:
    """The outcome as lines."""
    machine = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    lines = [f"on {machine}:"]
    lines += [f"  {name}: {step['wall_s']:.0f} s" for name, step in found["steps"].items() if "fold_" not in name]
    for name, folds in found["stages"].items():
        for fold, result in folds.items():
            dice = ", ".join(f"label {label} Dice {value:.3f}" for label, value in result.get("dice", {}).items())
            minutes = result["train_s"] / 60
            lines.append(f"  {name} {fold}: {result['epochs']} epochs in {minutes:.1f} min; {dice or 'no validation'}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="nnU-Net raw dataset with liver 1 and tumor 2")
    parser.add_argument("--work", type=Path, required=True, help="everything is written below this folder")
    parser.add_argument("--stages", nargs="*", default=tuple(STAGES), choices=STAGES, help="networks (both)")
    parser.add_argument("--folds", nargs="*", default=FOLDS, choices=FOLDS, help="trainings, in this order (all six)")
    parser.add_argument("--threads", type=int, default=2, help="of one training (default: %(default)s)")
    parser.add_argument("--init", type=Path, metavar="FILE", help="start the training on all from it, not from fold 0")
    parser.add_argument("--average", type=Path, metavar="FILE", help="checkpoint whose weights are averaged with ours")
    parser.add_argument("--scores", type=Path, metavar="FOLDER", help="scores of the folds (default: WORK/scores)")
    parser.add_argument("--ship", type=Path, metavar="FOLDER", help="write the trained model as the package ships it")
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:at])
    plan = words[at + 1 :]  # for livseg plan
    found = make(
        args.source,
        args.work.resolve(),
        stages=args.stages,
        folds=args.folds,
        threads=args.threads,
        plan=plan,
        init=args.init and args.init.resolve(),
        average=args.average and args.average.resolve(),
        scores=args.scores,
        ship_to=args.ship,
    )
    print(said(found))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"starter_model: {error}")
