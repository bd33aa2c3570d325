"""Registration at interpreter start: what a fresh environment knows after pip install."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from nnunet_livseg.startup import VARIABLE, discovery_folder, is_nnunet_command, with_discovery_folder

PROJECT = Path(__file__).resolve().parents[1]
FIND = (
    "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find;"
    "import nnunet_livseg.trainers as trainers, pickle;"
    "found = find('DPCNetTrainer');"
    "assert found is trainers.DPCNetTrainer;"
    "assert pickle.loads(pickle.dumps(found)) is found;"
    "print('found in', trainers.__file__)"
)


def clean_environment():
    env = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "PYTHONPATH")}
    return env | {"PYTHONWARNINGS": "ignore"}


def test_what_the_user_has_set_stays_in_front():
    once = with_discovery_folder("/mine")
    assert once.split(os.pathsep) == ["/mine", discovery_folder()]
    assert with_discovery_folder(once) == once
    assert with_discovery_folder(None) == discovery_folder()


def test_the_folder_that_nnunet_scans_holds_one_module():
    assert [path.name for path in Path(discovery_folder()).glob("*.py")] == ["livseg_trainers.py"]


def run_python(code, **variables):
    return subprocess.run(
        [sys.executable, "-c", code], env=clean_environment() | variables, capture_output=True, text=True, check=True
    ).stdout


def test_a_plain_interpreter_is_registered_and_has_imported_no_torch():
    said = run_python(f"import os, sys; print(os.environ.get('{VARIABLE}', ''), 'torch' in sys.modules)")
    assert said.split() == [discovery_folder(), "False"]


def test_opting_out():
    assert run_python(f"import os; print(os.environ.get('{VARIABLE}'))", LIVSEG_NO_AUTOREGISTER="1").split() == ["None"]


def test_start_up_costs_less_than_five_milliseconds():
    """Every Python process of the environment pays it."""
    code = (
        "import sys, time\n"
        "for name in [name for name in sys.modules if name.startswith('nnunet_livseg')]: del sys.modules[name]\n"
        "start = time.perf_counter(); import nnunet_livseg.startup as startup; startup.register()\n"
        "print((time.perf_counter() - start) * 1e3)"
    )
    assert min(float(run_python(code)) for _ in range(5)) < 5


REFUSE = "from nnunet_livseg.core.errors import UserError\nprint('epoch 0')\nraise UserError('no data.\\n  Make some.')"


def run_program(folder, name, code):
    (folder / name).write_text(code)
    env = clean_environment() | {"PYTHONPATH": str(PROJECT)}
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([sys.executable, folder / name], env=env, text=True, **both)
    assert done.returncode == 1
    return done.stdout


def test_nnunets_commands_show_our_message_alone_and_last(tmp_path):
    assert run_program(tmp_path, "nnUNetv2_train", REFUSE) == "epoch 0\n\nlivseg: no data.\n  Make some.\n"


def test_other_errors_and_other_programs_keep_their_traceback(tmp_path):
    assert "Traceback" in run_program(tmp_path, "mine.py", REFUSE)
    fault = run_program(tmp_path, "nnUNetv2_predict", "import nnunet_livseg.core.errors\nraise ValueError('a bug')")
    assert "Traceback" in fault and fault.endswith("ValueError: a bug\n")
    assert "Traceback" in run_program(tmp_path, "nnUNetv2_plan_experiment", "raise ValueError('without us')")


def test_nnunets_commands_are_known_by_name_and_by_module():
    assert is_nnunet_command(["python", "/env/bin/nnUNetv2_train", "3"])
    assert is_nnunet_command(["python", "-m", "nnunetv2.run.run_training", "3"])
    assert not is_nnunet_command(["python", "-c", "from multiprocessing.spawn import spawn_main", "nnUNetv2_train"])
    assert not is_nnunet_command(["python"])


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["-e"]], ids=["install", "editable"])
def test_pip_install_is_all_the_set_up(how, tmp_path):
    """A new environment that borrows the heavy packages of this one, and installs ours for real."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    source = tmp_path / "source"
    files = ["nnunet_livseg", "pyproject.toml", "README.md", "LICENSE"]
    source.mkdir()
    for name in files:
        subprocess.run(["cp", "-r", PROJECT / name, source], check=True)
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", *how, str(source)], check=True, env=clean_environment()
    )
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    assert (site / "nnunet_livseg_startup.pth").read_text().startswith("import nnunet_livseg.startup")
    assert (site / "nnunet_livseg_startup.start").read_text().strip() == "nnunet_livseg.startup:register"  # PEP 829
    # after our own path file in the order of `site`, so that the borrowed packages cannot provide ours
    (site / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    said = subprocess.run([python, "-c", FIND], env=clean_environment(), capture_output=True, text=True, cwd=tmp_path)
    assert said.returncode == 0, said.stderr[-2000:]
    home = source if how else site
    assert f"found in {home / 'nnunet_livseg' / 'trainers.py'}" in said.stdout
