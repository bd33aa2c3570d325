"""measure networks beside nnU-Net's own: parameters, FLOPs, step time, memory, inference

Every network is measured in turns with the stock network of the same geometry, so that a noisy machine disturbs both;
figures are medians, and ratios to the stock network. On a GPU as nnU-Net trains there: mixed precision, torch.compile.

examples:
  livseg benchmark -m dpcnet dpcnet-ag --patch 64 64 64
  livseg benchmark --all --patch 128 128 128 -device cuda --json gpu.json
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg benchmark``."""
    parser.add_argument(
        "-m", "--variants", nargs="+", default=["dpcnet"], help="names of livseg list (default: dpcnet)"
    )
    parser.add_argument("--all", action="store_true", help="every network that exists at this number of dimensions")
    parser.add_argument("--patch", type=int, nargs="+", default=[64, 64, 64], metavar="N", help="voxels, order z y x")
    parser.add_argument("--batch", type=int, default=2, help="patches per training step (default: 2)")
    parser.add_argument("-device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each; their median counts (default: 5)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--no-compile", action="store_true", help="do not use torch.compile on a GPU")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")


def run(args: argparse.Namespace) -> None:
    """Measure and print the table."""
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.core.files import write_json
    from nnunet_livseg.diagnostics.benchmark import Setting, benchmark
    from nnunet_livseg.diagnostics.benchmark_table import to_json, to_markdown
    from nnunet_livseg.variants import VARIANTS, find_variant

    dim = len(args.patch)
    if dim not in (2, 3):
        raise UserError(f"--patch takes 2 or 3 numbers, not {dim}.")
    rows = [row for row in VARIANTS if dim in row.dims] if args.all else [find_variant(name) for name in args.variants]
    for row in rows:
        if dim not in row.dims:
            raise UserError(f"{row.name} does not exist in {dim}D.\n  Give a patch with {row.dims[0]} numbers.")
    setting = Setting.of(
        patch=tuple(args.patch),
        batch=args.batch,
        device=args.device,
        repeats=args.repeats,
        threads=args.threads,
        compiled=not args.no_compile,
    )
    result = benchmark(rows, setting)
    print(to_markdown(result))
    if args.json:
        write_json(args.json, to_json(result))
