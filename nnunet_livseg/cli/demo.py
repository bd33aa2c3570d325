"""make synthetic CTs, train DPC-Net on them, predict new ones: everything once, in minutes

Runs nnU-Net's own commands on a phantom: plan and preprocess, train, predict; then a table of Dice values and a
report with pictures. All of it lands in one folder. Run again, it goes on where it stopped.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg demo``."""
    parser.add_argument("--out", default="livseg_demo", metavar="FOLDER", help="where to work (default: livseg_demo)")
    parser.add_argument("-m", "--variant", default="dpcnet", help="a network of livseg list (default: dpcnet)")
    parser.add_argument("-device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--cases", type=int, default=8, help="training CTs (default: 8)")
    parser.add_argument("--epochs", type=int, default=4, help="default: 4")
    parser.add_argument("--iterations", type=int, help="training steps per epoch (default: 25 on a CPU, 100 on a GPU)")


def run(args: argparse.Namespace) -> None:
    """Run the demo and say where everything is."""
    from pathlib import Path

    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.diagnostics.demo import Demo
    from nnunet_livseg.variants import find_variant

    if args.cases < 2 or args.epochs < 1:
        raise UserError("a demo needs at least --cases 2 (one to train on, one to validate on) and --epochs 1.")
    demo = Demo(
        Path(args.out).absolute(),
        find_variant(args.variant),
        device=args.device,
        cases=args.cases,
        epochs=args.epochs,
        iterations=args.iterations,
    )
    demo.run()
