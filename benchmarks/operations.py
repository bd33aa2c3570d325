"""Which operations the time of a network goes into, beside nnU-Net's own network, on one CPU thread.

    python benchmarks/operations.py -m mpunet --patch 64 64 64 [--batch 1] [--repeats 5]

The networks take turns. Times are CPU seconds of the process, medians: on one thread other work on the machine disturbs
them less than the clock. The table splits one training step and one prediction by torch's profiler, in parts of the
stock network's whole time, so that its columns add up to 1 and to the ratio of the times.
"""

import argparse
import os
from collections import Counter
from collections.abc import Callable
from statistics import median
from time import process_time

from nnunet_livseg.diagnostics.benchmark import BenchmarkedNetwork, BenchmarkSetup
from nnunet_livseg.variants import find_variant

FAMILIES = {  # the first one of which a word is in the operation's name
    "attention": ("scaled_dot_product", "_attend"),
    "convolution": ("conv",),
    "matrix product": ("mm",),
    "normalization": ("norm",),
    "activation": ("relu", "elu", "sigmoid"),
    "pooling": ("pool",),
    "up-sampling": ("upsample",),
    "softmax": ("softmax", "logsumexp"),
    "dropout": ("bernoulli", "dropout"),
}
REST = "sums, copies, the rest"


def family(operation: str) -> str:
    """The family of a profiled operation."""
    name = operation.lower()
    return next((family for family, words in FAMILIES.items() if any(word in name for word in words)), REST)


def split(call: Callable[[], None]) -> dict[str, float]:
    """Share of each family in the time of one call."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    times = Counter()
    for event in profiler.key_averages():
        times[family(event.key)] += event.self_cpu_time_total
    return {name: time / times.total() for name, time in times.items()}


def cpu_seconds(call: Callable[[], None]) -> float:
    start = process_time()
    call()
    return process_time() - start


def compare(stock: BenchmarkedNetwork, ours: BenchmarkedNetwork, what: str, repeats: int) -> str:
    """Table of one kind of work, ``step`` or ``predict``."""
    calls = [getattr(subject, what) for subject in (stock, ours)]
    for call in (*calls, *calls):
        call()  # fills caches
    turns = [[cpu_seconds(call) for call in calls] for _ in range(repeats)]
    times = [median(column) for column in zip(*turns, strict=True)]
    ratio, flops = times[1] / times[0], ours.figures.flops / stock.figures.flops
    shares = [[split(call) for call in calls] for _ in range(repeats)]
    lines = [
        f"{ours.figures.name}, {what}: {times[1]:.2f} s beside {times[0]:.2f} s, ratio {ratio:.2f} for {flops:.2f} of "
        f"the FLOPs: {ratio / flops:.2f}",
        "",
        f"| operation | nnU-Net | {ours.figures.name} |",
        "|---|---|---|",
    ]
    for name in (*FAMILIES, REST):
        parts = [median(turn[i].get(name, 0.0) for turn in shares) for i in (0, 1)]
        if max(parts) > 0.005:
            lines.append(f"| {name} | {parts[0]:.2f} | {parts[1] * ratio:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--variants", nargs="+", required=True, metavar="NAME", help="names of livseg list")
    parser.add_argument("--patch", type=int, nargs="+", default=[64, 64, 64], metavar="N", help="voxels, z y x")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    os.environ["KINETO_LOG_LEVEL"] = "5"  # its notes would stand between the tables
    setting = BenchmarkSetup.of(patch=tuple(args.patch), batch=args.batch, device="cpu", threads=1)
    stock = BenchmarkedNetwork.of(None, setting)
    for name in args.variants:
        ours = BenchmarkedNetwork.of(find_variant(name), setting)
        for what in ("step", "predict"):
            print(compare(stock, ours, what, args.repeats), flush=True)


if __name__ == "__main__":
    main()
