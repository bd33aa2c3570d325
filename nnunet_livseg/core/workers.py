"""Run jobs in parallel processes, never more at once than the memory holds."""

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from nnunet_livseg.core.errors import UserError, WorkerDied

Job = TypeVar("Job")
Result = TypeVar("Result")

_INTERRUPTED = 130
_LEAST_BYTES = 300_000_000  # taken for free whatever the system says


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
    return max(min(limits), _LEAST_BYTES)


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
    and one that kills its worker again ends in ``WorkerDied``; all others are still run.
    """
    if workers <= 1 or len(jobs) <= 1:
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
            yield (
                job,
                WorkerDied(
                    "its worker process was killed twice, most likely for lack of memory.\n"
                    "  Run fewer at once, or use a larger machine."
                ),
            )


def _guarded(function: Callable[[Job], Result], job: Job) -> Result | Exception:
    try:
        return function(job)
    except Exception as error:
        error.traceback_text = traceback.format_exc()  # exceptions lose their traceback on the way between processes
        return error


def _in_worker(function: Callable[[Job], Result], job: Job) -> Result | Exception:
    """``_guarded``, and an exception that does not survive the way between processes would end the whole pool."""
    result = _guarded(function, job)
    if isinstance(result, Exception):
        try:
            pickle.loads(pickle.dumps(result))
        except Exception:
            plain = UserError(str(result)) if isinstance(result, UserError) else RuntimeError(repr(result))
            plain.traceback_text = result.traceback_text
            return plain
    return result


def _pool(
    function: Callable[[Job], Result], rest: list[Job], suspects: list[Job], workers: int
) -> Iterator[tuple[Job, Result | Exception]]:
    """Work off ``rest`` until it is empty or the pool breaks; what was in flight then goes to ``suspects``."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_quietly) as pool:
        flying: dict[Future, Job] = {}
        try:
            while rest or flying:
                while rest and len(flying) < workers:
                    with _interruptions_held():  # a worker that starts inherits it, until it can end quietly
                        flying[pool.submit(_in_worker, function, rest[0])] = rest[0]
                    rest.pop(0)
                done, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    if isinstance(result, Exception):  # a traceback of here would begin here
                        result.__cause__ = RuntimeError(f"in a worker process:\n{result.traceback_text}")
                    yield flying.pop(future), result
        except BrokenProcessPool:
            suspects.extend(flying.values())
        except (KeyboardInterrupt, GeneratorExit):  # the workers' results are not needed any more
            _interrupt(active_children())
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


# --- Ctrl-C, which a terminal sends to every process: the main one says what happened, workers print no traceback


@contextmanager
def _interruptions_held() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(workers: Sequence[BaseProcess]) -> None:
    """Interrupt the workers, which do not see a signal that was sent to the main process alone."""
    for worker in workers:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(worker.pid, signal.SIGINT if hasattr(signal, "pthread_sigmask") else signal.SIGTERM)


def _end_quietly() -> None:
    """In a worker: from now on an interruption ends it, after its files are put in order."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(_INTERRUPTED))
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    except SystemExit:  # it came while the worker started
        os._exit(_INTERRUPTED)
