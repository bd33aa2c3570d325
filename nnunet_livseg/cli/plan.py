r"""write nnU-Net plans with a network, its loss and its recipe

Reads nnU-Net's own plans of a dataset and writes a second plans file beside them, which every nnU-Net command takes
with -p. If spacing and intensities stay the same, the preprocessed data is shared. No other file is touched, and plans
that say something else are never replaced: choose another name with -plans_name.

examples, and the names of their plans:
  livseg plan -d 3 -m dpcnet                      DPCNetPlans: at nnU-Net's geometry, trained as in the paper
  livseg plan -d 3 -m dpcnet --recipe nnunet      DPCNetNnunetPlans: trained as nnU-Net trains, for a fair comparison
  livseg plan -d 3 -m dpcnet --preset paper       DPCNetPaperPlans: the paper's spacing, patch, batch and network
  livseg plan -d 3 -m dpcnet -p nnUNetResEncUNetMPlans    DPCNetResEncUNetMPlans: from other plans of nnU-Net
  livseg plan -d 3 -m dpcnet --init FILE          DPCNetInitPlans: from the weights of another training
  livseg plan -d 4 -m dpcnet-unet --preset tumors --init starter
                                                  DPCNetUNetTumorsInitPlans: from the weights of the starter model
  livseg plan -d 3 --network monai.networks.nets.UNETR --option hidden_size=384
                                                  UNETRPlans: a network of yours, for nnUNetv2_train -tr LivSegTrainer
  livseg plan -d 3 -m dpcnet -c 3d_fullres --spacing 4 4 4 --patch 64 80 80 --features 8 16 32 64 96 \
      -plans_name SmallPlans
"""

import argparse

from nnunet_livseg.cli.shared_options import add, options_of

STEP = "plan and train"
LOSSES = ("dice_ce", "ce", "dice", "pooled_dice_ce", "pooled_dice", "weighted_ce", "tversky_ce", "tversky_ce_code")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg plan``."""
    from nnunet_livseg.plans import RECIPES
    from nnunet_livseg.recipes import AUGMENTATIONS

    own = parser.add_argument
    add(parser, "dataset", required=True)
    network = parser.add_mutually_exclusive_group(required=True)
    add(network, "variant", says="the network of --network")
    network.add_argument(
        "--network",
        metavar="CLASS",
        help="import path of your own network: my_package.MyNet (default: the variant's network)",
    )
    add(parser, "from_plans", default="nnUNetPlans")
    own("-o", "-plans_name", "--plans-name", metavar="PLANS",
        help="name of the new plans (default: as in the examples)")  # fmt: skip
    add(parser, "configurations", says="all that the variant exists in")
    own("--preset", default="default", metavar="PRESET",
        help="settings by name: paper, table4, ..., see livseg list --json (default: nnU-Net's)")  # fmt: skip
    own("--recipe", default="paper", choices=RECIPES, help="how the network is trained (default: paper)")
    add(parser, "epochs", "iterations", says="the recipe's")
    own("--validation-iterations", type=int, metavar="N", help="validation steps per epoch (default: the recipe's)")
    own("--learning-rate", type=float, metavar="RATE", help="initial learning rate (default: the recipe's)")
    own("--augmentation", choices=AUGMENTATIONS,
        help="nnU-Net's, or ct: also noise, contrast, slices and fields of view of other CTs, and oral contrast"
        " (default: the recipe's)")  # fmt: skip
    own("--synthetic-tumors", type=float, metavar="SHARE",
        help="share of training patches with tumors drawn into the liver (default: the recipe's)")  # fmt: skip
    own("--loss", metavar="LOSS", help=f"loss of every output: {', '.join(LOSSES)} (default: the variant's)")
    add(parser, "patch", "batch", "spacing", says="the preset's")
    own("--features", type=int, nargs="+", metavar="N",
        help="channels of each stage, finest first; sets the number of stages (default: nnU-Net's)")  # fmt: skip
    add(parser, "option", says="none")
    own("--init", metavar="CHECKPOINT",
        help="weights of another training to start from: .pth or .safetensors, or starter (default: none)")  # fmt: skip
    add(parser, "seed", says="chance")


def run(args: argparse.Namespace) -> None:
    """Write the plans and say what to run next."""
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.core.nnunet_folders import find_dataset
    from nnunet_livseg.data.raw_dataset import raw_case_names
    from nnunet_livseg.planning.next_commands import next_commands
    from nnunet_livseg.planning.plans_file import write_plans
    from nnunet_livseg.plans import Overrides
    from nnunet_livseg.variants import OWN, find_variant

    if args.network == "":
        raise UserError("--network is empty. Name a class by its import path, such as my_package.MyNet.")
    variant = OWN if args.network else find_variant(args.variant)
    dataset = find_dataset(args.dataset)
    options = options_of(args.option)
    overrides = Overrides(
        recipe=args.recipe,
        epochs=args.epochs,
        iterations=args.iterations,
        validation_iterations=args.validation_iterations,
        learning_rate=args.learning_rate,
        augmentation=args.augmentation,
        synthetic_tumors=args.synthetic_tumors,
        loss=args.loss,
        patch=tuple(args.patch) if args.patch else None,
        batch=args.batch,
        spacing_mm=tuple(args.spacing) if args.spacing else None,
        features=tuple(args.features) if args.features else None,
        init=_initial_weights(args),
        seed=args.seed,
        options={"network": args.network, "arguments": options} if args.network else options,
        configurations=tuple(args.configurations) if args.configurations else None,
    )
    written = write_plans(
        dataset, variant, source=args.from_plans, preset=args.preset, name=args.plans_name, overrides=overrides
    )
    print("\n".join(next_commands(written, dataset, variant, cases=raw_case_names(dataset.name))))


def _initial_weights(args: argparse.Namespace) -> str | None:
    if args.init != "starter":
        return args.init
    from nnunet_livseg.inference.starter_model import starter_weights  # imports SimpleITK

    return str(starter_weights(args.preset))
