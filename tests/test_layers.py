"""Imports point one way, and torch stays out of what must start fast.

``UPWARD``, ``ACROSS``, ``CIRCLES``, ``TWINS``, ``HEAVY_STILL`` and ``MOCKS`` name what is still wrong and ``WALKS`` are
ceilings. The lists are compared exactly: whoever mends one takes it out, and nobody adds one.
"""

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "nnunet_livseg"


def words(*lines):
    return set(" ".join(lines).split())


# from the ground up: a part (a folder or module right below the package) imports itself and lower floors
FLOORS = (
    "core startup",
    "blocks recipes multiscale imaging",
    "networks rows data",
    "evaluation",
    "losses variants patient postprocessing",
    "phases report",
    "plans",
    "reference_networks training",
    "trainers planning",
    "discovery inference",
    "study",
    "diagnostics",
    "cli",
)
# what nnUNetv2_train, nnUNetv2_predict and livseg plan load; it imports nothing of the rest but the ground floor
PLUGIN = words(
    "startup blocks recipes multiscale networks rows losses variants phases plans reference_networks training trainers",
    "planning discovery",
)
# what the plugin half may take of the ground floor
GROUND = {
    f"nnunet_livseg.core.{name}" for name in words("errors names files nnunet_folders dataset_json labels allocator")
}
# what some parts may import of ours, beside `core` and themselves: closer than their floor
ALLOWED = {
    "core": set(),
    "blocks": set(),
    "imaging": set(),
    "networks": {"blocks"},
    "losses": {"networks"},
    "recipes": set(),
    "rows": {"recipes"},
    "variants": {"rows"},
    "phases": {"variants"},
    "plans": {"phases", "recipes", "variants"},
    "data": {"imaging"},
    "evaluation": {"data", "imaging"},
    "patient": {"data", "evaluation", "imaging"},
    "report": {"evaluation", "data", "imaging", "patient"},
    "postprocessing": {"evaluation", "imaging"},
}
HEAVY = {name: {"torch", "nnunetv2"} for name in words("imaging data evaluation patient postprocessing report")}
HEAVY["core"] = words("SimpleITK nibabel scipy skimage matplotlib torch nnunetv2")
# modules of ours that a start reaches, with the packages they lie in
WALKS = {
    "cli.segment": 78,
    "cli.attention": 70,
    "cli.evaluate": 74,
    "cli.two_stage": 58,
    "cli.postprocess": 66,
    "cli.align": 37,
    "cli.convert": 36,
    "discovery.livseg_trainers": 36,
}
UPWARD = set()
ACROSS = set()
CIRCLES = set()  # modules that import themselves by a detour
TWINS = set()  # names of files and public classes that exist more than once
HEAVY_STILL = set()
MOCKS = set()

MODULES = {
    ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}


def imported(module):
    """Dotted names that a module imports, also inside functions."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


ALL = {module: set(imported(module)) for module in MODULES}
OURS = {module: {name for name in found if name in MODULES and name != module} for module, found in ALL.items()}
ARROWS = [(module, name) for module, found in OURS.items() for name in found]


def part(module):
    return [*module.split("."), ""][1]


def short(*modules):
    names = tuple(module.removeprefix("nnunet_livseg.") for module in modules)
    return names if len(names) > 1 else names[0]


def reached(start, *, packages):
    seen, todo = set(), [start]
    while todo:
        module = todo.pop()
        found = OURS[module] | ({module.rpartition(".")[0]} & set(MODULES) if packages else set())
        todo += found - seen
        seen |= found
    return seen


def test_imports_go_down():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names.split()} | {"": -1}
    assert {part(module) for module in MODULES} == set(floor), "a part without a floor"
    up = {(a, b) for a, b in ARROWS if part(a) != part(b) and part(b) and floor[part(b)] >= floor[part(a)]}
    assert {short(*arrow) for arrow in up} == UPWARD


def test_the_plugin_half_stands_on_the_ground_floor_alone():
    across = {(a, b) for a, b in ARROWS if part(a) in PLUGIN and part(b) not in PLUGIN | {""} and b not in GROUND}
    assert {short(*arrow) for arrow in across} == ACROSS


@pytest.mark.parametrize("name", ALLOWED)
def test_parts_import_no_more_than_they_need(name):
    allowed = ALLOWED[name] | {name, "core", ""}
    wrong = {(a, b) for a, b in ARROWS if part(a) == name and part(b) not in allowed}
    assert not {short(*arrow) for arrow in wrong} - UPWARD - ACROSS


def test_there_is_no_circle():
    assert {short(module) for module in MODULES if module in reached(module, packages=False)} == CIRCLES


def test_a_name_exists_once():
    files = [
        p.name for p in MODULES.values() if p.stem != "__init__" and p.parent.name not in ("networks", "rows", "cli")
    ]
    classes = [
        node.name
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert {name for name, count in Counter(files + classes).items() if count > 1} == TWINS


def test_no_heavy_library_where_none_is_needed_and_no_mock():
    heavy = {(m, name) for m, found in ALL.items() for name in found if name.split(".")[0] in HEAVY.get(part(m), ())}
    assert {(short(module), name) for module, name in heavy} == HEAVY_STILL
    assert {short(m) for m, found in ALL.items() if any(name.startswith("unittest") for name in found)} == MOCKS


@pytest.mark.parametrize("start", WALKS)
def test_walks_stay_short(start):
    assert len(reached(f"nnunet_livseg.{start}", packages=True) | {f"nnunet_livseg.{start}"}) <= WALKS[start]


PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]
NAMED = sorted({name for page in PAGES for name in re.findall(r"\bnnunet_livseg(?:\.\w+)+", page.read_text("utf-8"))})


@pytest.mark.parametrize("name", NAMED)
def test_what_documents_name_can_be_imported(name):
    module, names = name, []
    while module not in MODULES:
        module, _, last = module.rpartition(".")
        names.insert(0, last)
    found = importlib.import_module(module)
    for attribute in names:
        found = getattr(found, attribute)


def test_the_page_of_rooms_names_every_part_and_only_files_that_exist():
    page = (PROJECT / "CONTRIBUTING.md").read_text("utf-8")
    rooms = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", page.split("## The house")[1].split("\n## ")[0], flags=re.MULTILINE)
    assert sorted(rooms) == sorted({part(module) for module in MODULES} - {""})
    floor = [number for room in rooms for number, names in enumerate(FLOORS) if room in names.split()]
    assert floor == sorted(floor), "the page is not in the order of the floors"
    for path in re.findall(r"`((?:[a-z_]+/)+(?:\w+\.py)?)`", page):
        assert "NAME" in path or (PACKAGE / path).exists() or (PROJECT / path).exists(), path


IMPORTS = sorted(
    {
        (module, name.strip())
        for page in PAGES
        for module, names in re.findall(r"from (nnunet_livseg[\w.]*) import ([\w, ]+)", page.read_text("utf-8"))
        for name in names.split(",")
    }
)


@pytest.mark.parametrize(("module", "name"), IMPORTS)
def test_what_examples_in_documents_import_is_there(module, name):
    if f"{module}.{name}" not in MODULES:
        assert hasattr(importlib.import_module(module), name)


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


@pytest.mark.parametrize("room", [m for m, path in MODULES.items() if "_HOME = " in path.read_text("utf-8")])
def test_every_name_that_a_room_hands_on_is_there(room):
    module = importlib.import_module(room)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense
