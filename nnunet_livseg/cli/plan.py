"""write nnU-Net plans with a network, its loss and its recipe

Reads nnU-Net's own plans of a dataset and writes a second plans file beside them, which every nnU-Net command takes
with -p. Where spacing and intensities stay the same, the preprocessed data is shared. No other file is touched, and
plans that say something else are never replaced: choose another name with -o.

examples, and the names of their plans:
  livseg plan -d 3 -m dpcnet                      DPCNetPlans: at nnU-Net's geometry, trained as in the paper
  livseg plan -d 3 -m dpcnet --recipe nnunet      DPCNetNnunetPlans: trained as nnU-Net trains, for a fair comparison
  livseg plan -d 3 -m dpcnet --preset paper       DPCNetPaperPlans: the paper's spacing, patch, batch and network
  livseg plan -d 3 -m dpcnet -p nnUNetResEncUNetMPlans    DPCNetResEncUNetMPlans: from other plans of nnU-Net
  livseg plan -d 3 -m dpcnet --init FILE          DPCNetInitPlans: from the weights of another training
  livseg plan -d 3 -m dpcnet -c 3d_fullres --spacing 4 4 4 --patch 64 80 80 --features 8 16 32 64 96 -o SmallPlans
"""

import argparse
import json
from pathlib import Path
from typing import Any

from nnunet_livseg.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg plan``."""
    parser.add_argument("-d", "--dataset", required=True, help="dataset id or name")
    parser.add_argument("-m", "--variant", required=True, help="a name or trainer of livseg list")
    parser.add_argument("-p", "--from-plans", default="nnUNetPlans", help="plans to start from (default: nnUNetPlans)")
    parser.add_argument("-o", "--name", help="name of the new plans (default: as in the examples)")
    parser.add_argument(
        "-c", "--configurations", nargs="+", help="only these (default: all that the variant exists in)"
    )
    parser.add_argument("--preset", default="default", help="paper, table4, ... (default: nnU-Net's own numbers)")
    parser.add_argument("--recipe", default="paper", help="paper or nnunet: how it is trained (default: paper)")
    parser.add_argument("--epochs", type=int, help="number of epochs")
    parser.add_argument("--iterations", type=int, help="training steps per epoch")
    parser.add_argument("--validation-iterations", type=int, help="validation steps per epoch")
    parser.add_argument("--learning-rate", type=float, help="initial learning rate")
    parser.add_argument("--loss", help="loss of every output, as ce or dice_ce (default: the row's or the preset's)")
    parser.add_argument("--patch", type=int, nargs="+", metavar="N", help="patch size in voxels, order z y x")
    parser.add_argument("--batch", type=int, help="patches per training step")
    parser.add_argument("--spacing", type=float, nargs="+", metavar="MM", help="voxel spacing in mm, order z y x")
    parser.add_argument(
        "--features", type=int, nargs="+", metavar="N", help="channels of each stage, finest first: as many stages"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the network, VALUE as in JSON"
    )
    parser.add_argument("--init", metavar="CHECKPOINT", help="start from the matching weights of another training")


def run(args: argparse.Namespace) -> None:
    """Write the plans and say what to run next."""
    from nnunet_livseg.core.nnunet_folders import find_dataset
    from nnunet_livseg.planning.next_commands import next_commands
    from nnunet_livseg.planning.plans_file import write_plans
    from nnunet_livseg.plans import RECIPES, Overrides
    from nnunet_livseg.variants import find_variant

    variant = find_variant(args.variant)
    if args.recipe not in RECIPES:
        raise UserError(f"there is no recipe {args.recipe!r}; known are {', '.join(RECIPES)}.")
    dataset = find_dataset(args.dataset)
    overrides = Overrides(
        recipe=args.recipe,
        epochs=args.epochs,
        iterations=args.iterations,
        validation_iterations=args.validation_iterations,
        learning_rate=args.learning_rate,
        loss=args.loss,
        patch=tuple(args.patch) if args.patch else None,
        batch=args.batch,
        spacing_mm=tuple(args.spacing) if args.spacing else None,
        features=tuple(args.features) if args.features else None,
        init=args.init,
        options=dict(_option(text) for text in args.option),
        configurations=tuple(args.configurations) if args.configurations else None,
    )
    written = write_plans(
        dataset, variant, source=args.from_plans, preset=args.preset, name=args.name, overrides=overrides
    )
    print("\n".join(next_commands(written, dataset, variant, cases=_raw_cases(dataset))))


def _raw_cases(dataset: Path) -> set[str] | None:
    """The training cases of the raw dataset; ``None`` if it is not here."""
    from nnunet_livseg.core.nnunet_folders import find_dataset
    from nnunet_livseg.data.raw_dataset import RawDataset

    try:
        return {case.name for case in RawDataset.open(find_dataset(dataset.name, "nnUNet_raw")).cases()}
    except UserError:
        return None


def _option(text: str) -> tuple[str, Any]:
    """Name and value of ``NAME=VALUE``; what is no JSON is text, and what names a file becomes its absolute path."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--option {text} has no value.\n  Write it as --option NAME=VALUE.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, str(Path(value).resolve()) if Path(value).is_file() else value
