"""check a network of yours before training: shapes, gradients, float16, checkpoint, cost

Builds the network as livseg plan --network does, at the patch of a dataset's plans or of --patch, and tries it on
noise. The exit status is 1 if something would stop a training or lose its result, and 0 if there are only
warnings.

examples:
  livseg check-net my_package.MyNet --option width=32
  livseg check-net monai.networks.nets.UNETR -d 3 -c 3d_fullres --option hidden_size=384
  livseg check-net my_package.MyNet --patch 96 160 160 --json findings.json
"""

import argparse
from typing import Any

from nnunet_livseg.cli.shared_options import STANDARD_OUTPUT, add, options_of, put_json

STEP = "plan and train"
FORMAT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg check-net``."""
    parser.add_argument("network", metavar="CLASS", help="import path of the network: my_package.MyNet")
    add(parser, "dataset", says="none: one channel, liver and tumor")
    add(parser, "from_plans", default="nnUNetPlans")
    add(parser, "configurations", says="all of the plans")
    add(parser, "patch", says="the plans'; without a dataset 128 128 128, or 512 512 for a network in 2D")
    add(parser, "batch", says="the plans'; without a dataset 2")
    add(parser, "option", says="none")
    add(parser, "device", choices=("cuda", "cpu"), says="cuda if it is available")
    add(parser, "json", says="text")


def run(args: argparse.Namespace) -> int:
    """Print one line per finding, and return 1 if there is an error."""
    import torch

    from nnunet_livseg.diagnostics.network_check import check_network
    from nnunet_livseg.inference.devices import require_device

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    require_device(device)
    findings, shown = [], None
    for finding in check_network(_tasks(args), device=device):
        findings.append(finding)
        if args.json != STANDARD_OUTPUT:
            print("" if finding.case == shown else f"{args.network}, {finding.case}:\n", end="")
            print(finding.as_text(), flush=True)
        shown = finding.case
    errors = sum(finding.severity == "error" for finding in findings)
    if args.json:
        content = {"format": FORMAT, "network": args.network, "errors": errors}
        put_json(args.json, {**content, "findings": [finding.as_dict() for finding in findings]})
    return int(errors > 0)


def _tasks(args: argparse.Namespace) -> list[Any]:
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.core.nnunet_folders import find_dataset
    from nnunet_livseg.diagnostics.network_task import dataset_tasks, reference_tasks
    from nnunet_livseg.plans import Overrides, require_sizes

    require_sizes(Overrides(patch=args.patch, batch=args.batch))
    options = options_of(args.option)
    if args.dataset is not None:
        return dataset_tasks(
            find_dataset(args.dataset),
            args.network,
            options,
            source=args.from_plans,
            configurations=args.configurations,
            patch=args.patch,
            batch=args.batch,
        )
    if args.configurations:
        raise UserError("-c names configurations of a dataset's plans.\n  Give the dataset with -d, or use --patch.")
    return reference_tasks(args.network, options, patch=args.patch, batch=args.batch)
