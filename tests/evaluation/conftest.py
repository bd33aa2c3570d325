"""Shared drawings as fixtures."""

import importlib.util
from pathlib import Path

import pytest


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def draw():
    """The module ``drawings``."""
    return _load("drawings")


@pytest.fixture(scope="session")
def brute():
    """The module ``brute_force``: the definitions written a second time."""
    return _load("brute_force")
