"""Find the postprocessing steps that help on a training's validation cases.

As nnU-Net's ``determine_postprocessing`` does it: one step after the other, in a fixed order, each on top of those kept
so far, kept only where it helps and harms no structure. Different from it: lesions are counted too, a step with a
number is tried with several, and an estimate on left-out folds stands beside the gain on the cases that were tuned on.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json
from nnunet_livseg.core.labels import LIVER, TUMOR, Structures
from nnunet_livseg.evaluation.pairing import find_inputs
from nnunet_livseg.evaluation.results import CasePaths
from nnunet_livseg.postprocessing.step_scores import ScoreTable, Steps, Summary, gain_interval, summarize
from nnunet_livseg.postprocessing.steps import LargestLiver, SmallestLesion, Step, TumorInLiver
from nnunet_livseg.postprocessing.tuning_result import LeaveOneFoldOut, Trial, Tuning

SHARES = (0.0, 0.1, 0.25, 0.5)  # of a tumor's surface that healthy liver makes up
VOLUMES_MM3 = (10.0, 30.0, 100.0, 300.0)
QUANTILES = (0.1, 0.25, 0.5)  # of the predicted lesions' volumes, which join the fixed ones
_ROUNDING = 1e-9  # differences below are none
_WRITES_IT = "It is nnU-Net's own postprocessing; nnUNetv2_determine_postprocessing writes it again."


def tune(
    model_folder: str | Path,
    references: str | Path | None = None,
    *,
    folds: Sequence[str] = (),
    volumes_mm3: Sequence[float] = (),
    workers: int | None = 1,
    progress: bool = False,
) -> Tuning:
    """Find the steps that help on the validation cases of a training; writes nothing.

    Args:
        model_folder: ``nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION``.
        references: Folder of label maps. Defaults to the one in nnU-Net's folders.
        folds: Only these folds. Defaults to all with validation cases.
        volumes_mm3: Smallest lesion volumes to try. Defaults to ``VOLUMES_MM3`` and quantiles of the volumes of all
            predicted lesions; references play no part in them.
        workers: Largest number of processes. Defaults to as many as processors and free memory allow.
        progress: Show progress bars.

    Raises:
        UserError: If there are no validation cases or references, no case can be scored, or the labels have neither
            liver nor tumor.
    """
    _require_validation(Path(model_folder))
    inputs = find_inputs(model_folder, references, folds=folds)
    _require_cross_validation(inputs.folds)
    _require_liver_or_tumor(inputs.structures)
    table = ScoreTable(inputs.cases, inputs.structures, workers=workers, progress=progress)
    table.compute([()])
    stages = _stages(table, [SmallestLesion(float(volume)) for volume in sorted(set(volumes_mm3))])
    steps, trials = _choose(table, stages, table.cases)
    held_out = _held_out(table, stages) if len({paths.fold for paths in table.cases}) > 1 else None
    names = [paths.case for paths in table.cases]
    return Tuning(
        steps,
        trials,
        summarize(table.scores((), names)),
        summarize(table.scores(steps, names)),
        held_out,
        inputs.structures,
        inputs.folds,
        len(names),
        inputs.problems + table.problems,
        [*inputs.notes, *_notes_on_nnunet(Path(model_folder))],
    )


def _require_validation(model_folder: Path) -> None:
    if not any(model_folder.glob("fold_*/validation")):
        raise UserError(
            f"{model_folder} has no folder fold_X/validation, so there are no predictions to tune on.\n"
            "  Give the folder TRAINER__PLANS__CONFIGURATION of nnUNet_results; nnUNetv2_train ... --val writes them."
        )


def _require_cross_validation(folds: Sequence[str]) -> None:
    if "all" in folds:
        raise UserError(
            "fold_all was trained on the cases that it predicts, so its errors are not those on new cases.\n"
            "  Train folds of a cross-validation (nnUNetv2_train ... 0) and tune on them."
        )


def _require_liver_or_tumor(structures: Structures) -> None:
    if not {LIVER, TUMOR} & structures.values.keys():
        raise UserError(
            f"{structures.source} names neither liver nor tumor, only {', '.join(structures.values)}.\n"
            "  Postprocessing needs a label of the liver or the tumor."
        )


def _stages(table: ScoreTable, smallest: list[Step]) -> list[list[Step]]:
    """What is tried, stage by stage; of each stage one step is kept at most."""
    stages = [[LargestLiver()], [TumorInLiver(share) for share in SHARES], smallest or _smallest_lesions(table)]
    present = table.structures.values.keys()
    return [stage for stage in stages if set(stage[0].needs) <= present]


def _smallest_lesions(table: ScoreTable) -> list[Step]:
    scores = table.scores((), [paths.case for paths in table.cases])
    predicted = [volume for score in scores for volume in score.volumes_mm3]
    quantiles = np.quantile(predicted, QUANTILES).tolist() if predicted else []
    return [SmallestLesion(volume) for volume in sorted({*VOLUMES_MM3, *map(_two_digits, quantiles)})]


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _choose(table: ScoreTable, stages: list[list[Step]], cases: Sequence[CasePaths]) -> tuple[Steps, list[Trial]]:
    """The steps that help on ``cases``, and everything that was tried."""
    kept: Steps = ()
    trials: list[Trial] = []
    for stage in stages:
        table.compute([kept, *((*kept, step) for step in stage)])
        tried = _stage_trials(table, stage, kept, [paths.case for paths in cases])
        kept += tuple(trial.step for trial in tried if trial.kept)
        trials += tried
    return kept, trials


def _stage_trials(table: ScoreTable, stage: list[Step], kept: Steps, names: list[str]) -> list[Trial]:
    before = table.scores(kept, names)
    summary = summarize(before)
    afters = [table.scores((*kept, step), names) for step in stage]
    summaries = [summarize(after) for after in afters]
    objections = [objection(after, summary) for after in summaries]
    helpful = [i for i, text in enumerate(objections) if not text]
    # the first of equals: steps of a stage go from mild to strict
    best = max(helpful, key=lambda i: summaries[i].mean_dice, default=None)
    return [
        Trial(
            step,
            summary,
            summaries[i],
            gain_interval(afters[i], before),
            "kept" if i == best else objections[i] or "another number helps as much or more",
        )
        for i, step in enumerate(stage)
    ]


def objection(after: Summary, before: Summary) -> str:
    """Why a step is not kept; empty where it helps: mean Dice rises, no structure's Dice and not lesion F1 falls."""
    # a comparison with NaN is false: what is undefined neither gains nor falls
    worse = [name for name, dice in after.dice.items() if dice < before.dice[name] - _ROUNDING]
    if worse:
        return f"Dice of {' and '.join(worse)} falls"
    if not after.mean_dice > before.mean_dice + _ROUNDING:
        return "no gain in mean Dice"
    return "lesion F1 falls" if after.lesion_f1 < before.lesion_f1 - _ROUNDING else ""


def _held_out(table: ScoreTable, stages: list[list[Step]]) -> LeaveOneFoldOut:
    """Every fold's cases with the steps that the other folds choose."""
    chosen, after, before = {}, [], []
    for fold in sorted({paths.fold for paths in table.cases}):
        chosen[fold], _ = _choose(table, stages, [paths for paths in table.cases if paths.fold != fold])
        names = [paths.case for paths in table.cases if paths.fold == fold]
        after += table.scores(chosen[fold], names)
        before += table.scores((), names)
    gain = summarize(after).mean_dice - summarize(before).mean_dice
    return LeaveOneFoldOut(gain, gain_interval(after, before), chosen)


def _notes_on_nnunet(model_folder: Path) -> list[str]:
    """Say which order holds where nnU-Net's own postprocessing was determined and does something."""
    notes = []
    for path in sorted(model_folder.glob("crossval_results_folds_*/postprocessing.json")):
        try:
            functions = read_json(path, remedy=_WRITES_IT).get("postprocessing_fns")
        except UserError as error:  # this tuning does not need it
            notes.append(str(error))
            continue
        if functions:
            notes.append(
                f"nnU-Net's own postprocessing is in {path.with_suffix('.pkl')}. Both were tuned on the raw"
                " predictions, so use one of them. If you use both, apply nnU-Net's first (no gain was measured)"
            )
    return notes
