"""Fixtures of the tests of data-in."""

import sys
from pathlib import Path

import pytest

from nnunet_livseg.cli import main

sys.path.insert(0, str(Path(__file__).parent))  # io_samples, beside this file; pytest's importlib mode adds no path


@pytest.fixture
def livseg(capsys):
    """Run the command line in this process; returns exit status and what it printed on stderr and stdout together."""

    def call(*arguments: object) -> tuple[int, str]:
        status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return call
