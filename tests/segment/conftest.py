"""Fixtures of the tests of livseg segment."""

import sys
from pathlib import Path

import pytest

for part in ("io", "segment"):  # io_samples, known_model, known_network; pytest's importlib mode adds no path
    sys.path.insert(0, str(Path(__file__).parents[1] / part))


@pytest.fixture
def model(tmp_path):
    from known_model import make_model

    return make_model(tmp_path / "results")
