"""The results of a tuning, which are shown and written into the model's folder."""

from dataclasses import dataclass, field
from pathlib import Path

from nnunet_livseg import __version__
from nnunet_livseg.core.files import write_json
from nnunet_livseg.core.labels import Structures
from nnunet_livseg.evaluation.results import SkippedCase
from nnunet_livseg.postprocessing.step_scores import Steps, Summary
from nnunet_livseg.postprocessing.steps import Step, as_dict
from nnunet_livseg.postprocessing.steps_file import FILE, SCHEMA

CAUTION = "the steps were chosen on the same cases that these scores are of; leave_one_fold_out is not"


@dataclass(frozen=True)
class Trial:
    """One step tried on top of those kept before it.

    Args:
        step: What was tried.
        before: Scores without it.
        after: Scores with it.
        gain_ci95: Interval of the gain over paired cases.
        verdict: ``kept``, or why not.
    """

    step: Step
    before: Summary
    after: Summary
    gain_ci95: tuple[float, float]
    verdict: str

    @property
    def kept(self) -> bool:
        return self.verdict == "kept"

    @property
    def gain(self) -> float:
        """Gain in mean Dice."""
        return self.after.mean_dice - self.before.mean_dice


@dataclass(frozen=True)
class LeaveOneFoldOut:
    """The gain of a tuning on cases that it did not see: each fold with the steps that the other folds choose.

    Args:
        gain: In mean Dice.
        gain_ci95: Interval over paired cases.
        steps: Fold to the steps that the other folds choose.
    """

    gain: float
    gain_ci95: tuple[float, float]
    steps: dict[str, Steps]


@dataclass(frozen=True)
class Tuning:
    """The outcome.

    Args:
        steps: What helps, in order.
        trials: All that was tried.
        before: Scores as predicted.
        after: Scores with ``steps``, on the cases that they were chosen on.
        held_out: None for a single fold.
        structures: Which values are liver and tumor.
        folds: Folds whose validation cases were used.
        n_cases: How many cases.
        left_out: Cases that could not be used, and why.
        notes: What else a reader should know.
    """

    steps: Steps
    trials: list[Trial]
    before: Summary
    after: Summary
    held_out: LeaveOneFoldOut | None
    structures: Structures
    folds: list[str]
    n_cases: int
    left_out: list[SkippedCase] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_record(model_folder: str | Path, tuning: Tuning) -> Path:
    """Write the outcome into the model's folder, whole or not at all; returns the file."""
    held = tuning.held_out
    content = {
        "schema": SCHEMA,
        "created_with": f"nnunet-livseg {__version__}",
        "steps": [as_dict(step) for step in tuning.steps],
        "labels": tuning.structures.as_dict(),
        "folds": tuning.folds,
        "n_cases": tuning.n_cases,
        "left_out": [{"case": problem.case, "reason": problem.reason} for problem in tuning.left_out],
        "caution": CAUTION,
        "before": tuning.before.as_dict(),
        "after": tuning.after.as_dict(),
        "leave_one_fold_out": held
        and {
            "gain": held.gain,
            "gain_ci95": held.gain_ci95,
            "steps": {fold: [as_dict(step) for step in steps] for fold, steps in held.steps.items()},
        },
        "trials": [_trial(trial) for trial in tuning.trials],
        "notes": tuning.notes,
    }
    path = Path(model_folder) / FILE
    write_json(path, content)
    return path


def _trial(trial: Trial) -> dict:
    return as_dict(trial.step) | {
        "verdict": trial.verdict,
        "gain": trial.gain,
        "gain_ci95": trial.gain_ci95,
        "before": trial.before.as_dict(),
        "after": trial.after.as_dict(),
    }
