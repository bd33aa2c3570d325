"""Documents say what the code says."""

import importlib.util
import re
from pathlib import Path

import pytest

from nnunet_livseg.cli import commands
from nnunet_livseg.variants import VARIANTS

PROJECT = Path(__file__).resolve().parents[1]


def generator():
    spec = importlib.util.spec_from_file_location("generate", PROJECT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = [
    PROJECT / "README.md",
    PROJECT / "CHANGELOG.md",
    PROJECT / "CONTRIBUTING.md",
    *sorted((PROJECT / "docs").rglob("*.md")),
]


def test_generated_tables_are_up_to_date():
    generate = generator()
    stale = [page.name for page in generate.PAGES if generate.filled(page.read_text()) != page.read_text()]
    assert not stale, f"run python docs/generate.py: {stale}"


def test_every_paper_has_its_page_with_its_rows():
    for paper in {row.paper for row in VARIANTS}:
        page = PROJECT / paper.page
        assert f"<!-- generated: variants {paper.key} -->" in page.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_commands_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists() or (PROJECT / target).exists(), target
    for command in re.findall(r"^\s*livseg ([a-z-]+)", text, flags=re.MULTILINE):
        assert command in commands(), command
    for trainer in re.findall(r"-tr (\w+Trainer)\b", text):
        assert trainer in {row.trainer for row in VARIANTS} | {"nnUNetTrainer"}, trainer
