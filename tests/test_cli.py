"""The command line as a whole: help, wrong commands, exit statuses, what list says."""

import errno
import json
import os
import subprocess
import sys

import pytest

from nnunet_livseg import __version__
from nnunet_livseg.cli import commands, dispatch, main
from nnunet_livseg.core.errors import UserError, explain
from nnunet_livseg.variants import VARIANTS


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: livseg {command}" in capsys.readouterr().out


def test_overview_lists_every_command_with_a_sentence(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    for command in commands():
        (line,) = [line for line in said.splitlines() if line.startswith(f"  {command} ")]
        assert len(line.split()) > 3
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nnunet-livseg {__version__}\n"


def test_a_wrong_command(capsys):
    assert main(["plann"]) == 1
    assert "there is no command 'plann'. Did you mean plan" in capsys.readouterr().err


def test_user_errors_have_no_traceback_and_bugs_do(capsys, monkeypatch):
    assert main(["plan", "-d", "3", "-m", "nonsense"]) == 1
    assert "Traceback" not in capsys.readouterr().err

    class Command:
        """a command"""

        def add_arguments(self, parser):
            pass

        def run(self, args):
            raise self.error

    command = Command()
    monkeypatch.setattr(dispatch, "_module", lambda name: command)
    command.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        main(["plan"])
    command.error = FileNotFoundError(errno.ENOENT, "a bug too")
    with pytest.raises(FileNotFoundError):
        main(["plan"])
    command.error = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    assert main(["plan"]) == 1
    assert "No space left on device: /data/x" in capsys.readouterr().err
    command.error = KeyboardInterrupt()
    assert main(["plan"]) == 130


def test_list_is_the_table(capsys):
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["trainer"] for row in rows] == [row.trainer for row in VARIANTS]
    assert {row["name"]: row["parameters"] for row in rows}["dpcnet"] > 32_000_000
    assert main(["list", "--no-parameters", "--paper", "dpcnet"]) == 0
    said = capsys.readouterr().out
    assert "DPCNetTrainer" in said and "Table 2, row 6" in said
    assert main(["list", "--paper", "dpcnt"]) == 1
    assert "there is no paper 'dpcnt'. Did you mean dpcnet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--patch", "64"], "--patch takes 2 or 3 numbers, not 1"),
        (["--patch", "40", "64", "64"], "every size must be a multiple of 32"),
        (["-m", "dpcnett"], "Did you mean dpcnet"),
        (["-device", "cuda"], "there is no device cuda here"),
    ],
)
def test_benchmark_refuses(args, message, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["benchmark", *args]) == 1
    assert message in capsys.readouterr().err


def test_benchmark_measures_beside_the_stock_network(capsys, tmp_path):
    out = tmp_path / "figures.json"
    assert (
        main(
            [
                "benchmark",
                "--patch",
                "32",
                "32",
                "--batch",
                "2",
                "--repeats",
                "1",
                "-device",
                "cpu",
                "--json",
                str(out),
            ]
        )
        == 0
    )
    (pair,) = json.loads(out.read_text())["networks"]
    stock, ours = pair["stock"], pair["variant"]
    assert ours["parameters"] > stock["parameters"]
    assert ours["flops"] > stock["flops"] > 1e6
    for figures in (stock, ours):
        assert figures["step_s"] > 0 and figures["inference_s"] > 0 and figures["memory_mib"] > 0
    assert "| nnU-Net |" in capsys.readouterr().out


def test_no_command_shows_warnings_of_other_libraries():
    command = [sys.executable, "-m", "nnunet_livseg.cli", "doctor"]
    assert "Warning" not in subprocess.run(command, capture_output=True, text=True).stderr


def test_a_bug_asks_for_a_report(capsys, monkeypatch):
    class Command:
        """a command"""

        def add_arguments(self, parser):
            pass

        def run(self, args):
            raise KeyError("a bug")

    monkeypatch.setattr(dispatch, "_module", lambda name: Command())
    with pytest.raises(KeyError):
        main(["plan"])
    assert capsys.readouterr().err.startswith("livseg plan: a fault of this program. Please report it")


@pytest.mark.parametrize("command", ["list --no-parameters", "--help", "plan --help", "no-command 2>&1"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_fault(command, unbuffered):
    pipe = f"{sys.executable} -m nnunet_livseg.cli {command} | true; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode in (0, 141), ended.stderr) == (True, "")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "Check the permissions"),
        (OSError(errno.EIO, "Input/output error"), "Check disk, network drive"),
        (MemoryError(), "not enough memory"),
        (UserError("no such file"), "no such file"),
        (IndexError("list index out of range"), "a fault of this program (IndexError: list index out of range)"),
    ],
)
def test_one_text_for_an_error(error, message, caplog):
    for _ in range(2):
        assert message in explain(error)
    assert ("room" in explain(error)) == ("room" in message)
    assert len(caplog.records) == isinstance(error, IndexError)  # a bug's traceback, once
