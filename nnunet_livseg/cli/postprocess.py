"""remove what is no liver or tumor from predictions, by rules that help on the cross-validation

tune    tries the rules on the validation cases of a model's folds, keeps those that help, and writes
        livseg_postprocessing.json into the model's folder
apply   applies them, or rules that you name, to a folder of label maps

rules, in the order in which they are tried:
  largest-liver           only the largest connected part of the liver stays
  tumor-in-liver[=SHARE]  tumors must touch healthy liver, with this share of their surface at least (0 to 1)
  smallest-lesion=MM3     smaller lesions become liver

examples:
  livseg postprocess tune nnUNet_results/Dataset003_Liver/DPCNetTrainer__nnUNetPlans__3d_fullres
  livseg postprocess apply -i PREDICTIONS -o OUT -m MODEL_FOLDER
  livseg postprocess apply -i PREDICTIONS -o OUT --steps largest-liver smallest-lesion=30

Exit status: 0 all cases, 3 some cases were left out (they are named), 1 nothing could be done.
"""

import argparse
from pathlib import Path

LEFT_OUT = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of both commands."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="tune|apply")
    tune = commands.add_parser("tune", help="find out which rules help")
    tune.add_argument(
        "model", type=Path, metavar="MODEL_FOLDER", help="TRAINER__PLANS__CONFIGURATION in nnUNet_results"
    )
    tune.add_argument("references", type=Path, nargs="?", help="folder of reference label maps (default: nnU-Net's)")
    tune.add_argument("--folds", nargs="+", default=(), metavar="F", help="folds (default: all that were validated)")
    tune.add_argument("--volumes", type=float, nargs="+", default=(), metavar="MM3", help="smallest lesions to try")
    apply = commands.add_parser("apply", help="apply rules to a folder of label maps")
    apply.add_argument("-i", "--predictions", type=Path, required=True, help="folder of label maps")
    apply.add_argument("-o", "--out", type=Path, required=True, help="folder for the results")
    rules = apply.add_mutually_exclusive_group(required=True)
    rules.add_argument("-m", "--model", type=Path, metavar="MODEL_FOLDER", help="model that was tuned")
    rules.add_argument("--steps", nargs="+", metavar="RULE", help="rules, in this order")
    apply.add_argument("--liver", type=int, nargs="+", default=(), metavar="LABEL", help="label values of the liver")
    apply.add_argument("--tumor", type=int, nargs="+", default=(), metavar="LABEL", help="label values of the tumor")
    for command in (tune, apply):
        command.add_argument("--workers", type=int, help="processes at most (default: by processors and free memory)")
        command.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return _tune(args) if args.action == "tune" else _apply(args)


def _tune(args: argparse.Namespace) -> int:
    from nnunet_livseg.postprocessing.table import tuning_text
    from nnunet_livseg.postprocessing.tuning import require_writable, tune
    from nnunet_livseg.postprocessing.tuning_result import write_record

    require_writable(args.model)
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
    return _finish([f"{problem.case}: {problem.reason}" for problem in tuning.left_out], path)


def _apply(args: argparse.Namespace) -> int:
    from nnunet_livseg.evaluation.pairing import find_structures
    from nnunet_livseg.postprocessing import load_postprocessing, parse_step
    from nnunet_livseg.postprocessing.postprocess_folder import apply_to_folder
    from nnunet_livseg.postprocessing.table import steps_text

    steps = tuple(map(parse_step, args.steps)) if args.steps else load_postprocessing(args.model)
    structures = find_structures(args.model or args.predictions, liver=args.liver, tumor=args.tumor)
    done = apply_to_folder(
        args.predictions,
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
    return _finish([f"{problem.case}: {problem.reason}" for problem in done.problems], args.out)


def _finish(left_out: list[str], written: Path) -> int:
    """Say what was left out and where the results are; the exit status."""
    for text in left_out:
        print(f"left out: {text}")
    print(f"written to {written}")
    return LEFT_OUT if left_out else 0
