"""What this package needs at run time is free of the GPL."""

import importlib.util
import re
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

PROJECT = Path(__file__).resolve().parents[1]
LGPL = {"connected-components-3d"}  # nnU-Net's own requirement, through acvl-utils; nothing of ours imports it


@pytest.fixture(scope="module")
def licenses():
    spec = importlib.util.spec_from_file_location("licenses", PROJECT / "docs" / "licenses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_gpl(text):
    return re.search(r"GPL|General Public License", text) is not None


def test_no_requirement_is_under_the_gpl(licenses):
    found = {name: licenses.license_of(one) for name, (one, _) in licenses.installed_requirements().items()}
    assert len(found) > 40 and {"torch", "nnunetv2", "numpy", "pandas"} <= found.keys()  # indirect ones too
    assert {name for name, text in found.items() if is_gpl(text)} - LGPL == set()
    assert not any(text == "not stated" for name, text in found.items() if not licenses.NVIDIA.match(name))


def test_the_page_lists_what_this_package_requires(licenses):
    page = licenses.PAGE.read_text("utf-8")
    for name, (_, by) in licenses.installed_requirements().items():
        if licenses.OURS in by:
            assert re.search(rf"^\| {re.escape(name)} \| .* \| this package \|$", page, re.MULTILINE), name


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("License-Expression", "GPL-3.0-only"), ("License", "MIT")], "GPL-3.0-only"),
        (
            [("Classifier", "License :: OSI Approved"), ("Classifier", "License :: OSI Approved :: GNU GPLv3 (GPLv3)")],
            "GNU GPLv3 (GPLv3)",
        ),
        ([("License", "\n   GNU GENERAL: see GPL\nand so on")], "GNU GENERAL: see GPL"),
        ([], "not stated"),
    ],
)
def test_a_license_is_read_from_whatever_states_it(licenses, fields, expected):
    metadata = Message()
    for name, value in fields:
        metadata[name] = value
    said = licenses.license_of(SimpleNamespace(metadata=metadata))
    assert said == expected and is_gpl(said) == (expected != "not stated")
