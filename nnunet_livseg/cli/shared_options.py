"""Options that several commands share, each with one name and one help text, and how commands end.

nnU-Net's word comes first where nnU-Net has one (``-np``, ``-device``, ``--disable_tta``); ours is the word for people.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_livseg.core.errors import UserError

DONE_BUT = 3  # exit status: done, but for what was named
STANDARD_OUTPUT = "-"

_FOLDER = {"type": Path, "metavar": "FOLDER"}
_COUNT = {"type": int, "metavar": "N"}
_FLAG = {"action": "store_true"}
_LABELS = {"type": int, "nargs": "+", "metavar": "LABEL"}
# dest -> flags, help without the default, arguments of add_argument
OPTIONS: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    # what is read and written
    "input": (("-i", "--input"), "folder of the images or label maps to work on", _FOLDER),
    "out": (("-o", "--out"), "where to write the result", {"type": Path, "metavar": "PATH"}),
    "name": (("--name",), "name of the result", {"metavar": "NAME"}),
    "json": (
        ("--json",),
        "write JSON to FILE; without FILE, print JSON instead of text",
        {"nargs": "?", "const": STANDARD_OUTPUT, "metavar": "FILE"},
    ),
    "no_report": (("--no-report",), "do not write an HTML report", _FLAG),
    # datasets
    "dataset": (("-d", "--dataset"), "number or name of the dataset", {"metavar": "DATASET"}),
    "id": (("--id",), "number of the new dataset, 1 or higher", _COUNT),
    "raw": (("--raw",), "folder that contains the raw datasets", _FOLDER),
    "cv_folds": (("--cv-folds",), "number of folds of the cross-validation", _COUNT),
    "seed": (("--seed",), "seed of the random numbers", _COUNT),
    "cases": (("--cases",), "number of training cases", _COUNT),
    "liver": (("--liver",), "label values of the liver", _LABELS),
    "tumor": (("--tumor",), "label values of the tumor", _LABELS),
    # a DICOM series
    "series": (("--series",), "number or UID of the DICOM series, see livseg dicom list", {"metavar": "SERIES"}),
    "interpolate": (("--interpolate",), "fill in missing slices and even out unequal slice distances", _FLAG),
    "intercept": (("--intercept",), "rescale intercept of a series that lost it", {"type": float, "metavar": "HU"}),
    "identifiers": (("--identifiers",), "copy patient identifiers and UIDs into the result", _FLAG),
    # networks and plans
    "variant": (("-m", "--variant"), "variant or trainer, see livseg list", {"metavar": "NAME"}),
    "patch": (("--patch",), "patch size in voxels (z y x)", {"type": int, "nargs": "+", "metavar": "N"}),
    "batch": (("--batch",), "patches per training step", _COUNT),
    "spacing": (("--spacing",), "voxel spacing in mm (z y x)", {"type": float, "nargs": "+", "metavar": "MM"}),
    "epochs": (("--epochs",), "number of epochs", _COUNT),
    "iterations": (("--iterations",), "training steps per epoch", _COUNT),
    "from_plans": (("-p", "--from-plans"), "plans to start from", {"metavar": "PLANS"}),
    "configurations": (("-c", "--configurations"), "configurations of the plans", {"nargs": "+", "metavar": "C"}),
    "option": (
        ("--option",),
        "option or argument of the network, VALUE as in JSON; may be repeated",
        {"action": "append", "metavar": "NAME=VALUE"},
    ),
    # prediction
    "model": (("-m", "--model"), "model folder: TRAINER__PLANS__CONFIGURATION in nnUNet_results", _FOLDER),
    "folds": (("-f", "--folds"), "folds of the model, numbers or all", {"nargs": "+", "metavar": "F"}),
    "liver_model": (("--liver-model",), "model folder of a model that finds the liver", _FOLDER),
    "livers": (("--livers",), "folder of predicted liver masks", _FOLDER),
    "checkpoint": (("-chk", "--checkpoint"), "file name of the checkpoint in each fold", {"metavar": "FILE"}),
    "scales": (
        ("--scales",),
        "scales in plane at which each image is predicted, to be averaged",
        {"type": float, "nargs": "+", "metavar": "S"},
    ),
    "step_size": (
        ("-step_size", "--step-size"),
        "step of the sliding window as a fraction of the patch size",
        {"type": float, "metavar": "S"},
    ),
    "disable_tta": (("--disable_tta", "--disable-tta"), "no test-time mirroring: faster, less accurate", _FLAG),
    "device": (("-device", "--device"), "device to compute on", {"choices": ("cuda", "cpu", "mps")}),
    # how the work is done
    "workers": (("-np", "--workers"), "cases to process at the same time", _COUNT),
    "quiet": (("--quiet", "--disable_progress_bar"), "show no progress bar", _FLAG),
}
SYNONYMS = {  # what people type -> ours, where the spelling alone does not lead there
    "--processes": "--workers",
    "--jobs": "--workers",
    "--num-workers": "--workers",
    "--output": "--out",
    "--output-folder": "--out",
    "--fold": "--folds",
    "--folder": "--out",
    "--trainer": "--variant",
    "--tumor-model": "--model",
    "--images": "--input",
    "--predictions": "--input",
    "--no-dicom": "--formats",
    "--no-mirroring": "--disable-tta",
    "--rules": "--steps",
    "--disable-progress-bar": "--quiet",
}


def add(parser: argparse._ActionsContainer, *names: str, default: Any = None, says: str = "", **changes: Any) -> None:
    """Add shared options to a parser or to a group of one.

    Args:
        parser: Where to add them.
        names: Keys of ``OPTIONS``.
        default: The value if an option is not given.
        says: What the help calls the default, if the value itself would not say it.
        changes: Arguments of ``add_argument`` that are different here.
    """
    for name in names:
        flags, text, arguments = OPTIONS[name]
        if arguments is _FLAG:
            parser.add_argument(*flags, help=text, **arguments)
            continue
        shown = says or ("" if default is None else default)
        text += f" (default: {shown})" if shown != "" else ""
        parser.add_argument(*flags, dest=name, default=default, help=text, **{**arguments, **changes})


def options_of(texts: Sequence[str] | None) -> dict[str, Any]:
    """Names and values of ``--option NAME=VALUE``; what is not JSON is text, and a file's name its whole path."""
    return dict(_name_and_value(text) for text in texts or ())


def _name_and_value(text: str) -> tuple[str, Any]:
    import json

    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--option {text} has no value.\n  Write it as --option NAME=VALUE.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, str(Path(value).resolve()) if Path(value).is_file() else value


def counted(number: int, noun: str) -> str:
    """``1 case``, ``2 cases``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def put_json(target: str, content: Any) -> None:
    """Write what ``--json`` asked for to its file or to standard output."""
    import json

    from nnunet_livseg.core.files import write_json

    if target == STANDARD_OUTPUT:
        print(json.dumps(content, indent=2))
    else:
        write_json(target, content)


def finish(skipped: Sequence[str], out: Path, *, shown: int = 20, more: str = "") -> int:
    """Print what was skipped and where the results are; returns the exit status."""
    for text in skipped[:shown]:
        print(f"skipped: {text}")
    if len(skipped) > shown:
        print(f"  and {len(skipped) - shown} more{more}")
    print(f"written to {out}")
    return DONE_BUT if skipped else 0
