"""Parallel work with bounded memory, and workers that die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.workers import WorkerDied, run_jobs, worker_count
from nnunet_livseg.imaging.images import case_memory_bytes, read_volume


def test_memory_bounds_the_number_of_workers():
    assert worker_count(100, 2_000_000_000, workers=8, memory_gb=5) == 2
    assert worker_count(100, 9_000_000_000, workers=8, memory_gb=5) == 1  # one case must run, whatever it takes
    assert worker_count(3, 1, workers=8, memory_gb=5) == 3
    assert worker_count(100, 1, workers=4, memory_gb=5) == 4


def test_memory_need_grows_with_the_image(tmp_path):
    import numpy as np
    import SimpleITK as sitk

    small, large = (np.zeros(shape, dtype) for shape, dtype in (((20, 30, 40), np.uint8), ((80, 90, 100), np.float32)))
    for name, labels in (("s", small), ("l", large)):
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / f"{name}.nii.gz"))
    assert case_memory_bytes(tmp_path / "l.nii.gz") - case_memory_bytes(tmp_path / "s.nii.gz") > large.nbytes
    (tmp_path / "broken.nii.gz").write_bytes(b"")
    assert case_memory_bytes(tmp_path / "broken.nii.gz") > 0


def test_results_and_exceptions_come_back():
    found = dict(run_jobs(_root, [4.0, -1.0, 9.0], workers=1))
    assert (found[4.0], found[9.0]) == (2.0, 3.0)
    assert isinstance(found[-1.0], ValueError)
    assert "_root" in found[-1.0].traceback_text


def test_a_worker_that_is_killed_costs_only_its_own_job():
    """Jobs come from this file's functions by path, as spawned workers import no test module."""
    found = list(run_jobs(os.system, ["exit 0", f"kill -9 $PPID", "exit 0", "exit 3"], workers=2))  # noqa: F541
    results = {}
    for job, result in found:
        results.setdefault(job, []).append(result)
    assert len(found) == 4
    assert isinstance(results["kill -9 $PPID"][0], WorkerDied)
    assert results["exit 0"] == [0, 0]
    assert results["exit 3"] == [3 << 8]


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="Windows has no process groups that a signal can be sent to")
@pytest.mark.parametrize(
    ("seconds", "to"),
    [(0.2, "killpg"), (2.0, "killpg"), (2.0, "kill")],  # as workers start, as they work; not to them
)
def test_an_interruption_is_not_a_traceback_of_every_worker(tmp_path, seconds, to):
    script = """
if __name__ == "__main__":
    import signal
    import time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started the tests in the background
    from nnunet_livseg.core.workers import run_jobs
    print("begins", flush=True)
    try:
        list(run_jobs(time.sleep, [60, 60, 60], workers=2))
    except KeyboardInterrupt:
        print("interrupted")
"""
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, str(tmp_path / "script.py")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "begins\n"
    time.sleep(seconds)
    getattr(os, to)(process.pid, signal.SIGINT)
    assert process.communicate(timeout=120) == ("interrupted\n", "")


def test_no_more_jobs_are_in_flight_than_workers(tmp_path):
    """Each job leaves a mark while it runs and reports how many marks it sees."""
    script = "touch {0}/$$; sleep 0.2; ls {0} | wc -l > {0}.$$; rm {0}/$$".format(tmp_path / "marks")
    (tmp_path / "marks").mkdir()
    start = time.monotonic()
    list(run_jobs(os.system, [script] * 4, workers=2))
    seen = [int(path.read_text()) for path in Path(tmp_path).glob("marks.*")]
    assert len(seen) == 4
    assert max(seen) <= 2
    assert time.monotonic() - start > 0.4


def _root(x: float) -> float:
    if x < 0:
        raise ValueError("negative")
    return x**0.5


def test_root_is_what_it_says():
    assert _root(4.0) == pytest.approx(2.0)


def test_an_error_that_cannot_travel_between_processes_ends_its_own_job_alone(tmp_path):
    files = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path in files:
        path.touch()
    found = dict(run_jobs(read_volume, files, workers=2))  # UnreadableError takes two arguments, and pickles one
    assert all(isinstance(found[path], UserError) and "is empty" in str(found[path]) for path in files)
