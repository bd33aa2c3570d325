"""Documents say what the code says."""

import ast
import functools
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


# --- the same of what the program says: errors, notes, reasons, help, headings of reports -----------------------------

PACKAGE = PROJECT / "nnunet_livseg"
ROOMS = sorted({PACKAGE / path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")})
SPOKEN = (  # turns that a page may quote, but that no message has
    *(r"\b[Rr]efus", r"\b[Ll]ea(?:ve|ves|ving|ft)\b[^,;:]{0,25}\bout\b", r"\bgo(?:es|ing)? on with\b", r"\bin lieu\b"),
    *(r"\bhas not\b(?! \w+(?:ed|en|un|ne)\b)", r"\b[Kk]nown are\b", r"\bbe had\b", r"\banew\b", r"\bout of its\b"),
)
LITTLE_WORDS = re.compile(r"\b(?:is|are|was|has|have|be|the|an?|of|to|not|no|in|on|for|and|or|with|by|from|that)\b")


def text_of(node):
    """A string expression, its values as X; ``None`` for any other one."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return None if left is right is None else (left or "X") + (right or "X")
    return None


def is_prose(text):
    """Four words, one of them little, and no markup."""
    return len(re.findall(r"[A-Za-z]{2,}", text)) > 3 and LITTLE_WORDS.search(text) and "<" not in text


def spoken(node, *, part=False):
    """Strings below ``node`` that read like a sentence, wherever they are: raised, returned, printed; no docstrings.

    A string that is ``part`` of another one is read with that one alone.
    """
    text = text_of(node)
    if text is not None and not part and is_prose(text):
        yield text
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            yield from spoken(child, part=text is not None and text_of(child) is not None)


def first_sentences(node):
    """The first sentence of the docstrings of a module and of its public classes and functions."""
    if text := ast.get_docstring(node):
        yield next(sentences(text.replace("``", "`")))
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield from first_sentences(child)


@functools.cache
def modules_of(room):
    return [ast.parse(path.read_text("utf-8")) for path in ([room] if room.suffix else sorted(room.rglob("*.py")))]


def faults(text):
    """What is not plain in ``text``, of which every line is read by itself."""
    for sentence in sentences(text.replace("\n", "\n\n")):
        yield from (turn for turn in (*TURNS, *SPOKEN) if re.search(turn, sentence))
        yield from BRITISH.findall(sentence)
        if len(sentence.split()) > LONGEST:
            yield f"{len(sentence.split())} words"


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.stem)
def test_what_the_program_says_is_in_plain_american_english(room):
    said = {text for module in modules_of(room) for text in spoken(module)}
    assert not [(found, text) for text in said if (found := list(faults(text)))]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.stem)
def test_docstrings_begin_in_plain_american_english(room):
    first = [text for module in modules_of(room) for text in first_sentences(module)]
    assert first
    assert not [(found, text) for text in first if (found := list(faults(text)))]


def test_the_reader_of_messages_sees_them_wherever_they_are():
    module = ast.parse(  # with deliberate faults
        '''"""The title of the module is no message."""
def run(parser, name):
    """A docstring is not a message."""
    parser.add_argument("--out", help="folder of results " + ", as it was said by ".join(name) + ", left out")
    if name:
        raise UserError(f"{name} is no model." "\\n  Give another, "
                        f"not {' and one of these '.join(name)}.")
    return {"note": "nobody has tried this one"}, "metrics.py", "<p>of a page, not of a text</p>", "liver, tumor"
'''
    )
    assert sorted(spoken(module)) == [
        " and one of these ",
        ", as it was said by ",
        "X is no model.\n  Give another, not X.",
        "folder of results X, left out",
        "nobody has tried this one",
    ]
    assert [text for text in spoken(module) if not list(faults(text))] == [", as it was said by ", " and one of these "]
    assert list(first_sentences(module)) == [
        "The title of the module is no message.",
        "A docstring is not a message.",
    ]
    assert len([text for room in ROOMS for one in modules_of(room) for text in spoken(one)]) > 1000
    assert list(faults(f"Short.\n{'long ' * 31}")) == ["31 words"]
    assert not list(faults(f"{'long ' * 30}\n{'long ' * 30}"))


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
