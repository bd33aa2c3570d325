"""Run jobs in parallel processes, never more at once than the memory holds."""

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import SimpleITK as sitk

Job = TypeVar("Job")
Result = TypeVar("Result")

_BASE_BYTES = 300_000_000  # interpreter and libraries


class WorkerDied(RuntimeError):
    """A worker was killed from outside, most often for its memory."""


def memory_need_bytes(path: Path) -> int:
    """Estimate of the peak memory of one case from a file's header; bytes of 512 x 512 x 500 voxels take 1 GB."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # the case itself will say so
        return _BASE_BYTES
    voxels = 1
    for size in reader.GetSize():
        voxels *= size
    name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    itemsize = next((int(bits) // 8 for bits in ("64", "32", "16") if bits in name), 1)
    return _BASE_BYTES + voxels * (4 + 4 * itemsize)


def available_memory_bytes() -> int:
    """Memory that is free for us: the machine's and the container's limit, whichever is less."""
    limits = [8_000_000_000]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")] or limits
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit != "max":
            limits.append(int(limit) - int(used))
    except (OSError, ValueError):  # not Linux, or no such control group
        pass
    return max(min(limits), _BASE_BYTES)


def worker_count(n_jobs: int, need_bytes: int, *, workers: int | None = None, memory_gb: float | None = None) -> int:
    """How many cases run at once: by processors, jobs and memory (80 % of what is free, or ``memory_gb``)."""
    budget = memory_gb * 1e9 if memory_gb else 0.8 * available_memory_bytes()
    cpus = workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return max(1, min(cpus, n_jobs, int(budget // need_bytes)))


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int
) -> Iterator[tuple[Job, Result | Exception]]:
    """Yield each job with its result or with the exception it ended in, in the order they finish.

    At most ``workers`` jobs are in flight. Where a worker dies, the jobs that were in flight run again one at a time,
    and
    one that kills its worker again ends in ``WorkerDied``; all others are still run.
    """
    if workers <= 1:
        for job in jobs:
            yield job, _guarded(function, job)
        return
    suspects: list[Job] = []
    rest = list(jobs)
    while rest:
        yield from _pool(function, rest, suspects, workers)
    for job in suspects:
        alone: list[Job] = []
        one = [job]
        yield from _pool(function, one, alone, 1)
        if alone:
            yield job, WorkerDied("its worker process was killed, most likely for lack of memory; try a larger machine")


def _guarded(function: Callable[[Job], Result], job: Job) -> Result | Exception:
    try:
        return function(job)
    except Exception as error:
        error.traceback_text = traceback.format_exc()  # exceptions lose their traceback on the way between processes
        return error


def _pool(
    function: Callable[[Job], Result], rest: list[Job], suspects: list[Job], workers: int
) -> Iterator[tuple[Job, Result | Exception]]:
    """Work off ``rest`` until it is empty or the pool breaks; what was in flight then goes to ``suspects``."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        flying: dict[Future, Job] = {}
        try:
            while rest or flying:
                while rest and len(flying) < workers:
                    flying[pool.submit(_guarded, function, rest[0])] = rest[0]
                    rest.pop(0)
                done, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    yield flying.pop(future), result
        except BrokenProcessPool:
            suspects.extend(flying.values())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
