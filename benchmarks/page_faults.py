"""What kept memory pages save on a CPU: CPU time, page faults and peak memory of a training step and a prediction.

    python benchmarks/page_faults.py [-m dpcnet] [--patch 48 64 64] [--repeats 3] [--turns 2] [--threads 2]

Each measurement is a process of its own, the usual thresholds and ours in turns. Linux. See
``nnunet_livseg.core.allocator``.
"""

import argparse
import json
import resource
import subprocess
import sys
from statistics import median

WORK = {"training step": "step", "prediction": "predict"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--variant", default="dpcnet")
    parser.add_argument("--patch", type=int, nargs=3, default=(48, 64, 64))
    for name, value in (("repeats", 3), ("turns", 2), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measured(args, *args.measure)))
        return
    print("| work | pages | CPU time (user + system) | of it system | page faults | peak memory |")
    print("|---|---|---|---|---|---|")
    for work in WORK:
        turns = [(pages, in_a_process(work, pages)) for _ in range(args.turns) for pages in ("usual", "kept")]
        for pages in ("usual", "kept"):
            user, system, faults, peak = (median(v) for v in zip(*(m for p, m in turns if p == pages), strict=True))
            print(
                f"| {work} | {pages} | {user + system:.2f} s | {system:.2f} s | {faults:,.0f} | {peak:.2f} GiB |",
                flush=True,
            )


def in_a_process(work: str, pages: str) -> list[float]:
    """The figures of one measurement."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", work, pages]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured(args: argparse.Namespace, work: str, pages: str) -> tuple[float, float, float, float]:
    """User and system seconds and page faults of one call, and the peak of the process in GiB."""
    import torch

    from nnunet_livseg.core.allocator import kept_pages
    from nnunet_livseg.diagnostics.benchmark import BenchmarkedNetwork, BenchmarkSetup
    from nnunet_livseg.variants import find_variant

    torch.set_num_threads(args.threads)
    widths = (32, 64, 128, 256)
    setting = BenchmarkSetup(
        tuple(args.patch), 2, "cpu", "", 1, args.threads, compiled=False, torch="", features=widths
    )
    with kept_pages("cpu" if pages == "kept" else "none"):
        call = getattr(BenchmarkedNetwork.of(find_variant(args.variant), setting), WORK[work])
        call()  # fills caches
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(args.repeats):
            call()
        after = resource.getrusage(resource.RUSAGE_SELF)
    names = ("ru_utime", "ru_stime", "ru_minflt")
    user, system, faults = ((getattr(after, n) - getattr(before, n)) / args.repeats for n in names)
    return user, system, faults, after.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
