"""Imports point one way, and torch stays out of what must start fast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "nnunet_livseg"
# what each part may import of ours, beside `errors`, `names`, `files`, `folders` and itself
ALLOWED = {
    "blocks": set(),
    "networks": {"blocks"},
    "losses": {"data", "networks"},
    "recipes": set(),
    "rows": {"recipes"},
    "variants": {"rows"},
    "phases": {"variants"},
    "plans": {"phases", "recipes", "variants"},
    "data": set(),
    "evaluation": {"data"},
    "patient": {"evaluation", "data"},
    "report": {"evaluation", "data", "patient"},
    "postprocessing": {"evaluation", "data"},
}
COMMON = {"__version__", "errors", "names", "files", "folders"}


def imported(path):
    """Parts of our package that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.ImportFrom):
            modules = (
                [node.module] if node.module != "nnunet_livseg" else [f"nnunet_livseg.{a.name}" for a in node.names]
            )
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        yield from (m.split(".")[1] for m in modules if m and m.startswith("nnunet_livseg."))


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part):
    files = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").exists() else (PACKAGE / part).rglob("*.py")
    for path in files:
        wrong = set(imported(path)) - ALLOWED[part] - COMMON - {part}
        assert not wrong, f"{path.relative_to(PACKAGE)} imports {wrong}"


@pytest.mark.parametrize(
    "command",
    [["--help"], ["phantom", "--help"], ["list", "--no-parameters"], ["env"], ["plan", "--help"], ["check", "--help"]],
)
def test_commands_that_need_no_torch_do_not_import_it(command):
    code = (
        "import sys; from nnunet_livseg.cli import main\n"
        f"try: main({command!r})\nexcept SystemExit: pass\n"
        "assert not {'torch', 'nnunetv2', 'SimpleITK', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_importing_the_package_imports_next_to_nothing():
    code = "import sys; import nnunet_livseg, nnunet_livseg.variants; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    import nnunet_livseg

    for name in nnunet_livseg.__all__:
        assert getattr(nnunet_livseg, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = nnunet_livseg.nonsense
