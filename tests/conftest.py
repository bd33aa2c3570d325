"""Fixtures and switches that all tests share."""

import os
from itertools import islice
from pathlib import Path
from pydoc import locate

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny networks: threads that wait for each other cost more than they bring
os.environ.setdefault("nnUNet_def_n_proc", "1")  # which nnU-Net reads when it is imported

import pytest

from nnunet_livseg.core.allocator import keep_pages
from nnunet_livseg.variants import VARIANTS

keep_pages("cpu")  # thousands of small networks in one process: a quarter of their time went into page faults

PROJECT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run the tests marked `long` (hours)")
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped fails (everything is installed)")


@pytest.hookimpl(trylast=True)  # after the folders have set their marks
def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        items[:] = slow_first(items, workers)


def slow_first(items, workers):
    """An order in which each worker's share under ``--dist worksteal`` (equal, consecutive) begins with slow tests.

    Quick tests come last and are what workers take from each other, so that no core waits at the end.
    """
    slow = [item for item in items if item.get_closest_marker("slow")]
    fast = iter([item for item in items if not item.get_closest_marker("slow")])
    ordered = []
    for worker in range(workers):
        ordered += slow[worker::workers]
        end = len(items) * (worker + 1) // workers
        ordered += islice(fast, max(0, end - len(ordered)))
    return [*ordered, *fast]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome, report.longrepr = "failed", f"skipped: {report.longrepr}"
    return report


@pytest.fixture
def narrow_networks(monkeypatch):
    """Networks that choose their widths, whatever the plans say, start with 8 channels (ResNet-34 with 64)."""
    for path in {variant.network for variant in VARIANTS}:
        defaults = locate(path).__init__.__kwdefaults__ or {}
        if "width" in defaults:
            monkeypatch.setitem(defaults, "width", 8)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real CTs (LIVSEG_REAL_DATA); they are not part of the project, so tests that need them may skip."""
    folder = Path(os.environ.get("LIVSEG_REAL_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real CTs at {folder} (set LIVSEG_REAL_DATA)")
    return folder
