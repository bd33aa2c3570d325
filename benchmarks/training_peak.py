"""Memory of one training step on a CPU, every network in a process of its own, beside nnU-Net's own network.

    python benchmarks/training_peak.py [-m dpcnet sfan] [--patch 128 128 128] [--batch 1] [--threads 4]

The peak is how far the process's resident memory rises above what it needed before the network was built: parameters,
their gradients, what is kept for the backward pass, and what forward and backward pass need in passing. `livseg
benchmark` counts the third of these alone on a CPU, because it runs two networks in one process.
"""

import argparse
import json
import resource
import subprocess
import sys

from nnunet_livseg.diagnostics.benchmark import STOCK, BenchmarkedNetwork, BenchmarkSetup
from nnunet_livseg.variants import find_variant

SYSTEMS = ("dpcnet", "sfan", "mpunet", "mfcnet", "sam-urim")


def peak_mib() -> float:
    """Largest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform != "darwin" else 2**20)


def run_one(name: str, setting: BenchmarkSetup) -> None:
    """In a child process: build a network, train one step, print the figures as JSON."""
    before = peak_mib()
    subject = BenchmarkedNetwork.of(None if name == STOCK else find_variant(name), setting)
    subject.step()
    peak = peak_mib() - before  # before the next line makes it larger
    kept = subject.kept_for_backward_mib()
    print(json.dumps({"gflops": subject.figures.flops / 1e9, "kept_mib": kept, "peak_mib": peak}))


def measure(name: str, arguments: list[str]) -> dict[str, float] | None:
    """Figures of one network from a fresh process, or ``None`` if it did not fit."""
    done = subprocess.run([sys.executable, __file__, "--one", name, *arguments], capture_output=True, text=True)
    if done.returncode < 0:  # killed: out of memory
        return None
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, found: dict[str, float] | None, stock: dict[str, float]) -> str:
    """A row of the Markdown table, with the ratios to the stock network."""
    if found is None:
        return f"| {name} | did not fit | | |"
    units = {"gflops": ("{:.0f} G", 1), "kept_mib": ("{:.2f} GiB", 1024), "peak_mib": ("{:.2f} GiB", 1024)}
    ratio = "" if found is stock else " ({:.2f}x)"
    cells = [
        form.format(found[key] / unit) + ratio.format(found[key] / stock[key]) for key, (form, unit) in units.items()
    ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--variants", nargs="+", default=SYSTEMS, metavar="NAME", help="names of livseg list")
    parser.add_argument("--patch", type=int, nargs="+", default=[128, 128, 128], metavar="N", help="voxels, z y x")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        setting = BenchmarkSetup.of(patch=tuple(args.patch), batch=args.batch, device="cpu", threads=args.threads)
        run_one(args.one, setting)
        return
    arguments = [f"--batch={args.batch}", f"--threads={args.threads}", "--patch", *map(str, args.patch)]
    stock = measure(STOCK, arguments)
    if stock is None:
        raise SystemExit("nnU-Net's own network does not fit into the memory of this machine.")
    print("| network | FLOPs (forward) | kept for backward | peak of a training step |\n|---|---|---|---|")
    print(row(STOCK, stock, stock))
    for name in args.variants:
        print(row(name, measure(name, arguments), stock), flush=True)


if __name__ == "__main__":
    main()
