"""Fixtures and switches that all tests share."""

import os
from pathlib import Path

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny networks: threads that wait for each other cost more than they bring

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run the tests marked `long` (hours)")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="a long run by hand: pytest --long -m long"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real CTs (LIVSEG_REAL_DATA); they are not part of the project, so tests that need them may skip."""
    folder = Path(os.environ.get("LIVSEG_REAL_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real CTs at {folder} (set LIVSEG_REAL_DATA)")
    return folder
