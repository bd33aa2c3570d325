"""Fixtures and switches that all tests share."""

import os
from pathlib import Path

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny networks: threads that wait for each other cost more than they bring

import pytest

from nnunet_livseg.core.allocator import keep_pages

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
    if os.environ.get("PYTEST_XDIST_WORKER"):  # the longest first, so that no core waits at the end
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome, report.longrepr = "failed", f"skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real CTs (LIVSEG_REAL_DATA); they are not part of the project, so tests that need them may skip."""
    folder = Path(os.environ.get("LIVSEG_REAL_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real CTs at {folder} (set LIVSEG_REAL_DATA)")
    return folder
