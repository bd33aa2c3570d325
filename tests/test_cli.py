"""The command line as a whole: help, wrong commands, exit statuses, what list says."""

import argparse
import ast
import errno
import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_livseg import __version__
from nnunet_livseg.cli import commands, dispatch, main
from nnunet_livseg.cli.shared_options import SYNONYMS
from nnunet_livseg.core.errors import UserError, explain
from nnunet_livseg.core.names import shell_path
from nnunet_livseg.variants import VARIANTS

PROJECT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert f"usage: livseg {command}" in said and "exit status: 0 done" in said


def test_overview_lists_every_command_with_a_sentence(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    for command in commands():
        (line,) = [line for line in said.splitlines() if line.startswith(f"  {command} ")]
        assert len(line.split()) > 3
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nnunet-livseg {__version__}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["plann"], "livseg: there is no command 'plann'. Did you mean plan"),
        (["list", "--jsno"], "livseg list: there is no option --jsno. Did you mean --json"),
        (["list", "--no-parameter=1"], "there is no option --no-parameter. Did you mean --no-parameters"),
        (["check", "3", "--processes", "4"], "there is no option --processes. Did you mean --workers?"),
        (["segment", "a", "-m", "b", "-o", "c", "--fold", "0"], "there is no option --fold. Did you mean --folds"),
        (["segment", "a", "-m", "b", "-o", "c", "--quality", "fst"], "'fst' (choose from"),
        (["plan", "-d", "3", "-m", "dpcnet", "--recipe", "sgd"], "'sgd' (choose from"),
        (
            ["two-stage", "data", "-d", "3", "-o", "a", "--mode", "mask"],
            "data: there is no option --mode. Did you mean --crop-mode",
        ),
        (["two-stage", "predict", "-i", "a", "-o", "b"], "livseg two-stage predict: the following arguments are"),
        (["doctor", "all"], "livseg doctor: unexpected argument 'all'."),
    ],
)
def test_a_wrong_command_line(args, message, capsys):
    try:
        status = main(args)
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr().err
    assert status == 2 and message in said and "--help" in said


# --- one language -----------------------------------------------------------------------------------------------------

PARSERS = [one for command in commands() for one in dispatch.all_parsers(dispatch.parser_of(command))]
OPTIONS = [
    (parser.prog, action)
    for parser in PARSERS
    for action in parser._actions
    if action.option_strings and action.dest != "help"
]
TWO_THINGS = {  # -m is the model: a network where it is made, a folder where it is used; -o is what is written
    "-m": {"model", "variant"},
    "-o": {"out", "plans_name"},
}
NNUNET = {"--disable_tta", "--disable_progress_bar"}  # spelled with underscores there


def test_an_option_is_the_same_in_every_command():
    found, of_flag = {}, {}
    for prog, action in OPTIONS:
        text = action.help.partition(" (default: ")[0]
        metavar = action.metavar if isinstance(action.metavar, str) else None  # (Z, Y, X) counts
        now = (prog, (tuple(action.option_strings), text, action.type, type(action)), metavar)
        first = found.setdefault(action.dest, now)
        assert (first[1] == now[1] and None in (first[2], now[2])) or first[1:] == now[1:], (first, now)
        for flag in action.option_strings:
            of_flag.setdefault(flag, set()).add(action.dest)
    assert {flag: dests for flag, dests in of_flag.items() if len(dests) > 1} == TWO_THINGS


def test_no_two_words_for_one_thing():
    flags = {flag for _, action in OPTIONS for flag in action.option_strings}
    unwanted = set(SYNONYMS) - {"--images"}  # the CTs of a report, where the input is predictions
    assert not flags & unwanted
    assert {target for target in SYNONYMS.values() if target not in flags} == set()
    helps = {}
    for _, action in OPTIONS:
        helps.setdefault(action.help.partition(" (default: ")[0], set()).add(action.dest)
    assert not {text: dests for text, dests in helps.items() if len(dests) > 1}
    long = [flag for flag in flags if flag.startswith("--")]
    assert not [flag for flag in long if "_" in flag and flag not in NNUNET]
    assert not [
        flag for flag in flags if not flag.startswith("--") and "_" in flag and f"-{flag.replace('_', '-')}" not in long
    ]


REQUIRED_IN_ONE_USE = {"out", "id", "model"}  # no default: align and postprocess apply need them in one of two uses


def test_every_option_has_one_plain_sentence_and_its_default():
    for prog, action in OPTIONS:
        where, text = f"{prog} {action.option_strings[-1]}: {action.help}", action.help
        assert text and not text.endswith(".") and (text[0].islower() or text.startswith(("HU ", "1: "))), where
        if action.nargs != 0 and not action.required:  # takes a value
            assert "(default: " in text or action.dest in REQUIRED_IN_ONE_USE, where
        assert action.choices is None or action.metavar is None, where  # so that the help lists the choices


def test_every_argument_has_a_help_and_a_name():
    for parser in PARSERS:
        for action in parser._actions:
            assert action.help or isinstance(action, argparse._SubParsersAction), parser.prog
            if not action.option_strings and action.choices is None:
                assert action.metavar and action.metavar.isupper(), (parser.prog, action.dest)


def written_commands():
    """Every command line that help texts and documents show."""
    texts = {command: dispatch._module(command).__doc__ for command in commands()}
    texts |= {str(page): page.read_text("utf-8") for page in (PROJECT / "docs").rglob("*.md")}
    texts["README.md"] = (PROJECT / "README.md").read_text("utf-8")
    for place, text in texts.items():
        text = text.replace("\\\n", " ")
        for line in re.findall(r"(?:^ *(?:\d+ s +)?|`)(livseg [a-z-]+ [^`\n]*)", text, flags=re.MULTILINE):
            yield place, re.split(r"   +| #", line)[0]


def test_every_option_that_help_and_documents_name_exists():
    count = 0
    for place, line in written_commands():
        _, command, *words = line.split()
        assert command in commands(), (place, line)
        if getattr(dispatch._module(command), "PASSES_ON", False):
            continue
        parsers = dispatch.all_parsers(dispatch.parser_of(command))
        known = {flag for one in parsers for flag in one._option_string_actions}
        options = {word.partition("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
        assert options <= known, (place, line)
        count += len(options)
    assert count > 100


def test_choices_are_those_of_the_package():
    from nnunet_livseg.cli.plan import LOSSES
    from nnunet_livseg.data.phantom import TUMOR_TYPES
    from nnunet_livseg.inference.engines import ENGINES
    from nnunet_livseg.inference.quality import PRESETS
    from nnunet_livseg.losses import LOSSES as KNOWN

    assert list(LOSSES) == list(KNOWN)
    actions = {(prog, action.dest): action for prog, action in OPTIONS}
    assert list(actions["livseg segment", "quality"].choices) == list(PRESETS)
    assert actions["livseg segment", "engine"].choices == ENGINES
    assert all(kind in actions["livseg phantom", "tumor_types"].help for kind in TUMOR_TYPES)


def test_help_groups_all_commands(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert {dispatch._module(command).STEP for command in commands()} == set(dispatch.STEPS)
    assert [said.index(f"\n{step}:\n") for step in dispatch.STEPS] == sorted(
        said.index(f"\n{step}:\n") for step in dispatch.STEPS
    )


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
    command.error = IsADirectoryError(errno.EISDIR, "Is a directory", "/data/.incomplete-1", None, "/data/y")
    assert main(["plan"]) == 1
    assert "Is a directory: /data/y\n" in capsys.readouterr().err
    command.error = KeyboardInterrupt()
    assert main(["plan"]) == 130


TOLD_TO_END = """
import os, signal, sys
from pathlib import Path
from nnunet_livseg.cli import dispatch

place = Path(sys.argv[1])


class Command:
    "a command"

    def add_arguments(self, parser):
        pass

    def run(self, args):
        place.mkdir()
        try:
            child = os.fork()
            if not child:
                os.kill(os.getpid(), signal.SIGTERM)  # as pools end their workers
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            place.rmdir()


dispatch._module = lambda name: Command()
before = signal.getsignal(signal.SIGTERM)
status = dispatch.main(["segment"])
assert signal.getsignal(signal.SIGTERM) is before
sys.exit(status)
"""


def test_being_told_to_end_cleans_up_as_an_interruption_does(tmp_path):
    """At SIGTERM, unpacked CTs stayed in the folder for temporary files. In a process of its own: libraries of engines
    that other tests load do not survive a fork.
    """
    place = tmp_path / "unpacked"
    ended = subprocess.run([sys.executable, "-c", TOLD_TO_END, str(place)], capture_output=True, text=True)
    assert ended.returncode == 143 and not place.exists(), ended.stderr
    assert "segment: ended by SIGTERM. What was finished is kept" in ended.stderr


def test_printed_commands_can_be_pasted(capsys, monkeypatch, tmp_path):
    """Paths with blanks; a study file of another folder, of which the name alone was printed."""
    (tmp_path / "my studies").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["study", "new", "my studies/one.toml"]) == 0
    assert "livseg study run 'my studies/one.toml'" in capsys.readouterr().out
    assert shell_path(tmp_path / "my studies" / "one.toml") == "'my studies/one.toml'"
    assert shell_path(Path("..") / "a b") == "'../a b'" and shell_path("/else/where") == "/else/where"


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
        assert figures["hours"] is None  # counts are stored of the 3D networks
    said = capsys.readouterr().out
    assert "| nnU-Net |" in said and "1000 epochs" not in said


def test_no_command_shows_warnings_of_other_libraries():
    command = [sys.executable, "-m", "nnunet_livseg.cli", "doctor"]
    assert "Warning" not in subprocess.run(command, capture_output=True, text=True).stderr


def test_garbage_is_looked_for_less_often_during_a_command(monkeypatch, capsys):
    usual, during = gc.get_threshold(), []
    monkeypatch.setattr("nnunet_livseg.cli.list.run", lambda args: during.append(gc.get_threshold()))
    assert main(["list"]) == 0 and gc.get_threshold() == usual
    (seen,) = during
    assert seen[:2] == usual[:2] and seen[2] > usual[2]  # often among young objects: they may hold a CT


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


def test_a_name_that_the_terminal_cannot_show_and_a_closed_output_end_no_command(tmp_path):
    command = f"{sys.executable} -m nnunet_livseg.cli"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    for line, said in (
        (f"{command} study new gr\u00f6\u00dfe.toml", b"wrote gr\\xf6\\xdfe.toml"),
        (f"{command} --version >&-", b""),
    ):
        ended = subprocess.run(["bash", "-c", line], capture_output=True, check=False, env=environment, cwd=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, b"") and said in ended.stdout, line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "Check the permissions"),
        (OSError(errno.EIO, "Input/output error"), "Check disk, network drive"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
        (UserError("no such file"), "no such file"),
        (IndexError("list index out of range"), "a fault of this program (IndexError: list index out of range)"),
    ],
)
def test_one_text_for_an_error(error, message, caplog):
    for _ in range(2):
        assert message in explain(error)
    assert ("room" in explain(error)) == ("room" in message)
    assert len(caplog.records) == isinstance(error, IndexError)  # a bug's traceback, once


def test_every_progress_bar_says_what_it_counts():
    for path in (PROJECT / "nnunet_livseg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tqdm":
                assert {"desc", "unit"} <= {keyword.arg for keyword in node.keywords}, (path.name, node.lineno)
