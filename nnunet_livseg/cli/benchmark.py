"""measure networks beside nnU-Net's own: parameters, FLOPs, step time, memory, inference

Every network is measured in turns with the stock network of the same geometry, so that a noisy machine disturbs both;
figures are medians, and ratios to the stock network. On a GPU as nnU-Net trains there: mixed precision, torch.compile.

examples:
  livseg benchmark -m dpcnet dpcnet-ag --patch 64 64 64
  livseg benchmark -m all --patch 128 128 128 -device cuda --json gpu.json
"""

import argparse

from nnunet_livseg.cli.shared_options import STANDARD_OUTPUT, add, put_json

STEP = "more"
ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg benchmark``."""
    add(parser, "variant", nargs="+", default=["dpcnet"], says="dpcnet; all: every network of these dimensions")
    add(parser, "patch", default=[64, 64, 64], says="64 64 64")
    add(parser, "batch", default=2)
    add(parser, "device", choices=("cuda", "cpu"), says="cuda if it is available")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements, for the median (default: 5)")
    parser.add_argument("--threads", type=int, metavar="N", help="number of CPU threads (default: chosen by torch)")
    parser.add_argument("--no-compile", action="store_true", help="do not use torch.compile on a GPU")
    add(parser, "json", says="text")


def run(args: argparse.Namespace) -> None:
    """Measure and print the table."""
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.diagnostics.benchmark import BenchmarkSetup, benchmark
    from nnunet_livseg.diagnostics.benchmark_table import to_json, to_markdown
    from nnunet_livseg.variants import VARIANTS, find_variant, is_installed

    dim = len(args.patch)
    if dim not in (2, 3):
        raise UserError(f"--patch takes 2 or 3 numbers, not {dim}.")
    every = args.variant == [ALL]
    rows = (
        [row for row in VARIANTS if dim in row.dims and is_installed(row)]
        if every
        else [find_variant(name) for name in args.variant]
    )
    for row in rows:
        if dim not in row.dims:
            raise UserError(f"{row.name} does not exist in {dim}D.\n  Give a patch with {row.dims[0]} numbers.")
    setting = BenchmarkSetup.of(
        patch=tuple(args.patch),
        batch=args.batch,
        device=args.device,
        repeats=args.repeats,
        threads=args.threads,
        compiled=not args.no_compile,
    )
    result = benchmark(rows, setting)
    if args.json != STANDARD_OUTPUT:
        print(to_markdown(result))
    if args.json:
        put_json(args.json, to_json(result))
