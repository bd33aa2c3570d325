"""``livseg_postprocessing.json`` in a model's folder: what helps, and the figures that say so."""

import json
from pathlib import Path

from nnunet_livseg import __version__
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_json
from nnunet_livseg.evaluation.store import to_json
from nnunet_livseg.postprocessing.step_scores import Steps
from nnunet_livseg.postprocessing.steps import as_dict, from_dict
from nnunet_livseg.postprocessing.tuning_result import Trial, Tuning

FILE = "livseg_postprocessing.json"
SCHEMA = "nnunet_livseg.postprocessing/1"
CAUTION = "the steps were chosen on the same cases that these scores are of; leave_one_fold_out is not"


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
    write_json(path, to_json(content))
    return path


def _trial(trial: Trial) -> dict:
    return as_dict(trial.step) | {
        "verdict": trial.verdict,
        "gain": trial.gain,
        "gain_ci95": trial.gain_ci95,
        "before": trial.before.as_dict(),
        "after": trial.after.as_dict(),
    }


def load_postprocessing(model_folder: str | Path) -> Steps:
    """The steps that were found to help for a model; empty where none does.

    Raises:
        UserError: The model was not tuned, or the file cannot be understood.
    """
    path = Path(model_folder) / FILE
    if not path.is_file():
        raise UserError(
            f"{model_folder} has no {FILE}: nobody has tried which post-processing helps this model.\n"
            f"  Run livseg postprocess tune -m {model_folder}, or name rules yourself: livseg postprocess apply --rules"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema, steps = content["schema"], content["steps"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}).\n  Run again: livseg postprocess tune -m {model_folder}"
        ) from None
    if schema != SCHEMA:
        raise UserError(f"{path} has the format {schema!r}, but this version reads {SCHEMA!r}.\n  Tune again.")
    return tuple(from_dict(step) for step in steps)
