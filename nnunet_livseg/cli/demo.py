"""make synthetic CTs, train DPC-Net on them, predict new ones: everything once, in minutes

Runs nnU-Net's own commands on a phantom: plan and preprocess, train, predict. Then it writes a table of Dice values and
a report with pictures. All files are in one folder. The same command resumes an interrupted demo.
"""

import argparse
from pathlib import Path

from nnunet_livseg.cli.shared_options import add

STEP = "more"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg demo``."""
    add(parser, "out", default=Path("livseg_demo"))
    add(parser, "variant", default="dpcnet")
    add(parser, "device", choices=("cuda", "cpu"), says="cuda if it is available")
    add(parser, "cases", default=8)
    add(parser, "epochs", default=4)
    add(parser, "iterations", says="25 on a CPU, 100 on a GPU")


def run(args: argparse.Namespace) -> None:
    """Run the demo and say where everything is."""
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.diagnostics.demo import Demo
    from nnunet_livseg.variants import find_variant

    if args.cases < 2 or args.epochs < 1:
        raise UserError("a demo needs at least --cases 2 (one to train on, one to validate on) and --epochs 1.")
    demo = Demo(
        args.out.absolute(),
        find_variant(args.variant),
        device=args.device,
        cases=args.cases,
        epochs=args.epochs,
        iterations=args.iterations,
    )
    demo.run()
