"""remove false positives from predictions, with rules selected by cross-validation

tune    tries the rules on the validation cases of a model's folds, keeps those that help, and writes
        livseg_postprocessing.json into the model folder
apply   applies these rules, or rules that you name, to a folder of label maps

rules, in the order in which they are tried:
  largest-liver           keeps only the largest connected part of the liver
  tumor-in-liver[=SHARE]  removes tumors that do not touch healthy liver, or with less than this share of their surface
  smallest-lesion=MM3     turns smaller lesions into liver

examples:
  livseg postprocess tune -m nnUNet_results/Dataset003_Liver/DPCNetTrainer__nnUNetPlans__3d_fullres
  livseg postprocess apply -i PREDICTIONS -o OUT -m MODEL_FOLDER
  livseg postprocess apply -i PREDICTIONS -o OUT --steps largest-liver smallest-lesion=30
"""

import argparse
from pathlib import Path

from nnunet_livseg.cli.shared_options import add, finish

STEP = "predict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of both commands."""
    commands = parser.add_subparsers(dest="step", required=True, metavar="tune|apply")
    tune = commands.add_parser("tune", help="choose the rules that help")
    add(tune, "model", required=True)
    tune.add_argument(
        "references", type=Path, nargs="?", metavar="REFERENCES",
        help="folder of reference label maps (default: those of the training)")  # fmt: skip
    add(tune, "folds", default=(), says="all validated folds")
    tune.add_argument(
        "--volumes", type=float, nargs="+", default=(), metavar="MM3",
        help="volumes in mm3 to try for smallest-lesion (default: several, and quantiles of the lesions)")  # fmt: skip
    apply = commands.add_parser("apply", help="apply rules to a folder of label maps")
    add(apply, "input", "out", required=True)
    rules = apply.add_mutually_exclusive_group(required=True)
    add(rules, "model")
    rules.add_argument(
        "--steps", nargs="+", metavar="RULE", help="rules to apply, in this order (default: the model's)"
    )
    add(apply, "liver", "tumor", default=(), says="those of dataset.json")
    for command in (tune, apply):
        add(command, "workers", says="by processors and free memory")
        add(command, "quiet")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return _tune(args) if args.step == "tune" else _apply(args)


def _tune(args: argparse.Namespace) -> int:
    from nnunet_livseg.core.output_folder import require_folder
    from nnunet_livseg.postprocessing.table import tuning_text
    from nnunet_livseg.postprocessing.tuning import tune
    from nnunet_livseg.postprocessing.tuning_result import write_record

    require_folder(args.model, remedy="Copy the model's folder to a place of your own.")
    tuning = tune(
        args.model,
        args.references,
        folds=args.folds,
        volumes_mm3=args.volumes,
        workers=args.workers,
        progress=not args.quiet,
    )
    path = write_record(args.model, tuning)
    print(tuning_text(tuning))
    return finish([f"{problem.case}: {problem.reason}" for problem in tuning.left_out], path)


def _apply(args: argparse.Namespace) -> int:
    from nnunet_livseg.evaluation.label_meaning import find_structures
    from nnunet_livseg.postprocessing import load_postprocessing, parse_step
    from nnunet_livseg.postprocessing.postprocess_folder import apply_to_folder
    from nnunet_livseg.postprocessing.table import steps_text

    steps = tuple(map(parse_step, args.steps)) if args.steps else load_postprocessing(args.model)
    structures = find_structures(args.model or args.input, liver=args.liver, tumor=args.tumor)
    done = apply_to_folder(
        args.input,
        args.out,
        steps=steps,
        structures=structures,
        workers=args.workers,
        progress=not args.quiet,
    )
    for name, changes in done.changes.items():
        for change in changes:
            print(f"{name}: {change}")
    changed = sum(map(bool, done.changes.values()))
    reused = f", {done.n_reused} of them done before" if done.n_reused else ""
    print(f"{steps_text(steps)}: changed {changed} of {len(done.changes)} label maps{reused}")
    return finish([f"{problem.case}: {problem.reason}" for problem in done.problems], args.out)
