"""How precise `livseg list --cost` is: its estimate beside measured training steps.

    python benchmarks/training_cost.py [-m dpcnet sfan] [--patch 64 64 64] [--batch 1] [--repeats 2] [--save FILE]

The speed of the machine is measured with nnU-Net's network as the command does it, but in CPU seconds of one thread:
other work on the machine disturbs them less than the clock. `--save` writes this speed for the table of
docs/evidence/training_cost.md.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from time import process_time

from nnunet_livseg.core.files import write_json
from nnunet_livseg.diagnostics.benchmark import STOCK, BenchmarkedNetwork, BenchmarkSetup
from nnunet_livseg.diagnostics.training_cost import BATCH, FORWARDS, GIGA, MEASURED_PATCH, MachineSpeed
from nnunet_livseg.variants import find_variant

SYSTEMS = (STOCK, "dpcnet", "sfan", "mpunet", "mfcnet", "sam-urim")


def cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median, after a first call that fills caches."""
    times = []
    for _ in range(repeats + 1):
        start = process_time()
        call()
        times.append(process_time() - start)
    return median(times[1:])


def measured(name: str, setting: BenchmarkSetup) -> tuple[float, float]:
    """Billions of operations and CPU seconds of a training step."""
    subject = BenchmarkedNetwork.of(None if name == STOCK else find_variant(name), setting)
    return FORWARDS * subject.figures.flops / GIGA, cpu_seconds(subject.step, setting.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--variants", nargs="*", default=SYSTEMS, metavar="NAME", help="names of livseg list")
    parser.add_argument("--patch", type=int, nargs="+", default=[64, 64, 64], metavar="N", help="voxels, z y x")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the machine's speed as JSON")
    args = parser.parse_args()
    small = BenchmarkSetup.of(
        patch=MEASURED_PATCH["cpu"], batch=BATCH, device="cpu", repeats=args.repeats, threads=1, compiled=False
    )
    operations, seconds = measured(STOCK, small)
    speed = MachineSpeed(operations / seconds, small.device_name, small.threads, small.patch, small.torch)
    print(f"{speed}\n")
    print("| network | operations of a step | estimated | measured | measured / estimated |\n|---|---|---|---|---|")
    if args.save:
        write_json(args.save, asdict(speed))
    setting = replace(small, patch=tuple(args.patch), batch=args.batch)
    for name in args.variants:
        operations, seconds = measured(name, setting)
        estimated = operations / speed.gflop_per_s
        print(
            f"| {name} | {operations:.0f} G | {estimated:.1f} s | {seconds:.1f} s | {seconds / estimated:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
