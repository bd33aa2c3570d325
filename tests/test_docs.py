"""Documents say what the code says."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from nnunet_livseg import __version__
from nnunet_livseg.cli import commands, dispatch
from nnunet_livseg.variants import OWN, VARIANTS

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


def test_the_citation_file_says_what_the_package_says():
    said = (PROJECT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (\S+)$", said, re.MULTILINE)[1] == __version__
    assert f"## {__version__}" in (PROJECT / "CHANGELOG.md").read_text("utf-8")
    cited = re.sub(r"\W+", " ", said).lower()
    for paper in {row.paper for row in VARIANTS}:
        title = re.sub(r"\W+", " ", paper.citation.split(", ")[1]).lower()
        assert title in cited, paper.citation


def test_every_paper_has_its_page_with_its_rows():
    for paper in {row.paper for row in VARIANTS}:
        page = PROJECT / paper.page
        assert f"<!-- generated: variants {paper.key} -->" in page.read_text()


def test_printed_rows_name_variants_that_say_so():
    """The page and the rows' own texts agree on which table a variant is of."""
    generate = generator()
    variants = {row.name: row for row in VARIANTS}
    for table, names in generate.REPRODUCED_BY.items():
        numbers = "345" if table == "mpunet-3" else table.rpartition("-")[2]  # its title names three tables
        for name in {*names} - {generate.QUOTED, "nnUNetTrainer"}:
            row = variants[name]
            assert row.paper.key.replace("_", "-") == table.rpartition("-")[0]
            told = re.findall(r"Tables? ([\d, and]+)", row.reproduces)
            assert set(numbers) & set("".join(told)) or name == "sfan", (table, name)
    claimed = {row.name for row in VARIANTS if re.search(r"Tables? \d|Figs?\.", row.reproduces)}
    listed = {by for *_, by in generate.reproduced_rows()}
    assert claimed == listed - {generate.QUOTED, "nnUNetTrainer"}


# --- plain English: the rules that a program can check ----------------------------------------------------------------

WRITTEN = [  # by hand, and in the style of CONTRIBUTING.md's guide
    page
    for page in [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
    if page.name not in ("inputs.md", "support.md", "history.md") and page.parent.name != "cli"
]
LONGEST = 30  # words in a sentence
TURNS = (  # of phrase; each has a plainer form
    *(r"(?<![Tt]here )\bis no (?!longer)", r"\bnot one\b", r"\bnobody\b", r"\bmend", r"\bleft out\b", r"\bput right\b"),
    *(r"^Of (?:a|the|several)\b", r"^(?:Refused|Read|Taken) (?:is|are)\b", r"\bdata sets?\b", r"\brefuse"),
    *(r"\bgo(?:es)? on where\b", r"\bspecks?\b", r"\bat hand\b", r"\bbrought to\b", r"\bground truth\b"),
)
BRITISH = re.compile(
    r"\b\w*(?:(?:normal|initial|token|summar)is[ei]|normalisa|initialisa|optimis(?:e|a(?!ti?c))|neighbour|colour|behaviour"
    r"|labelled|artefact|grey|centre(?!\.)|licence|millimetre)\w*|\b(?:post-process|up-sampl|down-sampl|favour)\w*",
    re.IGNORECASE,
)
QUOTED = "benign liver tumours"  # in the title of a guideline


def prose(text):
    """Headings, list items and paragraphs, each on one line: no code, tables, comments or addresses."""
    text = re.sub(r"^```.*?^```$|^\|.*?$|<!--.*?-->", "\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]+`", "CODE", text)).replace("**", "")
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=#)", text):
        if line := re.sub(r"^(?:[-*#>]+|\d+\.) ", "", " ".join(block.split())):
            yield line


def sentences(text):
    for line in prose(text):
        yield from re.split(r"(?<=[.!?])[*)\"]? +(?!\d)", line)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_documents_are_in_plain_american_english(page):
    found = list(sentences(page.read_text("utf-8")))
    assert not [text for text in found if len(text.split()) > LONGEST]
    assert not [(turn, text) for text in found for turn in TURNS if re.search(turn, text)]
    assert not [text for text in found if BRITISH.search(text.replace(QUOTED, ""))]


def test_the_checks_of_english_see_what_they_look_for():
    text = f"# Title\n\nIt is {'very ' * 30}long. It is short, `a b`.\n\n| {'very ' * 40} |\n\n```text\nmend\n```"
    assert [len(one.split()) > LONGEST for one in sentences(text)] == [False, True, False]
    for text in ("This is no volume.", "Mended files.", "Then mend it.", "A data set.", "Of a model, one is used."):
        assert any(re.search(turn, text, re.IGNORECASE) for turn in TURNS), text
    words = (
        "normalisation",
        "Neighbours",
        "colour",
        "centre",
        "labelled",
        "optimiser",
        "post-processing",
        "initialised",
    )
    assert all(BRITISH.search(word) for word in words)
    assert not BRITISH.search("tumor-center, color, gray, labeled, normalization, optimistic, optimizer")


PLAIN_ROOMS = (  # whose messages are held to the same rules
    *("cli", "core", "data", "diagnostics", "evaluation", "imaging", "inference", "losses", "planning"),
    *("postprocessing", "report", "study", "training"),
)


def messages(path):
    """Texts of errors and findings in a module; values are X."""
    for call in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("UserError", "error", "warning", "_finding"):
            for part in ast.walk(call):
                if isinstance(part, ast.JoinedStr):
                    yield "".join(piece.value if isinstance(piece, ast.Constant) else "X" for piece in part.values)
                elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


@pytest.mark.parametrize("room", PLAIN_ROOMS)
def test_messages_are_in_plain_american_english(room):
    found = {text for path in (PROJECT / "nnunet_livseg" / room).rglob("*.py") for text in messages(path)}
    assert len(found) > 5  # it sees them
    assert not [(turn, text) for text in found for turn in TURNS if re.search(turn, text)]
    assert not [text for text in found if BRITISH.search(text)]


def anchors(page):
    """What MyST makes of headings: the address of each one."""
    headings = re.findall(
        r"^#{1,4} (.+)$", re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.S | re.M), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_to_sections_exist(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text("utf-8")):
        assert anchor in anchors(page.parent / target if target else page), (target, anchor)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_commands_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    for command in re.findall(r"^\s*livseg ([a-z-]+)", text, flags=re.MULTILINE):
        assert command in commands(), command
    for trainer in re.findall(r"-tr (\w+Trainer)\b", text):
        assert trainer in {row.trainer for row in (*VARIANTS, OWN)} | {"nnUNetTrainer"}, trainer


@pytest.mark.parametrize("page", [page for page in PAGES if "```bash" in page.read_text()], ids=lambda page: page.name)
def test_commands_have_the_options_that_pages_give_them(page):
    for line, (command, *words) in written_commands(page.read_text()):
        try:
            dispatch._parse(command, words)
        except SystemExit as end:
            pytest.fail(f"{line}: exit status {end.code}")


def written_commands(text):
    """Command lines of livseg in the code blocks of a page, in words."""
    for block in re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in re.findall(r"^livseg ([a-z].*)", block.replace("\\\n", " "), flags=re.MULTILINE):
            yield line, shlex.split(line, comments=True)
