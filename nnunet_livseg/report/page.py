"""The parts of every report: a page, sections, tables, key figures, a grid of figures.

All functions return HTML text; what comes from outside passes ``escape``. A page needs nothing but itself, and its
policy (Content-Security-Policy) forbids the browser to fetch anything or to run any script but the page's own.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files

# Okabe and Ito's colors, which color-blind readers can tell apart; the second is darker than theirs, because words are
# written in it on white
PALETTE = ("#0072b2", "#c25400", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a6a00", "#555555")
SERIES = tuple(f"var(--series-{number})" for number in range(len(PALETTE)))  # of charts; page.css has lighter ones


def escape(text: object) -> str:
    """Text made safe for HTML."""
    return html.escape(str(text))


def page(title: str, *, kicker: str, facts: Iterable[str], body: Iterable[str], footer: str, script: str = "") -> str:
    """A whole document.

    Args:
        title: Heading, plain text.
        kicker: Small line above it, plain text.
        facts: Short facts below it, plain text.
        body: Sections, HTML.
        footer: Last line, plain text.
        script: JavaScript that runs when the page is open.
    """
    css = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    series = " ".join(f"--series-{number}: {color};" for number, color in enumerate(PALETTE))
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    header = f'<p class="kicker">{escape(kicker)}</p><h1>{escape(title)}</h1><ul class="facts">{facts}</ul>'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n:root {{ {series} }}\n{css}</style>\n</head>\n<body>\n<main>\n"
        f"<header>{header}</header>\n"
        + "\n".join(part for part in body if part)
        + f"\n<footer>{escape(footer)}</footer>\n</main>\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def _policy(script: str) -> str:
    """What the browser may load: pictures inside the page, its styles, and this one script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def section(title: str, *parts: str, lead: str = "", name: str = "") -> str:
    """A headed section; ``lead`` is a plain sentence below the heading, ``name`` what links call it."""
    lead = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    name = f' id="{escape(name)}"' if name else ""
    content = "\n".join(part for part in parts if part)
    return f"<section{name}><h2>{escape(title)}</h2>{lead}\n{content}\n</section>"


def key_figures(figures: Iterable[tuple[str, str, str]]) -> str:
    """A row of large numbers: (label, number, small print)."""
    cells = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for label, value, note in figures
    )
    return f'<dl class="figures">{cells}</dl>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, caption: str = "") -> str:
    """A table; the first ``left`` columns are text, the others numbers."""

    def cell(text: str, index: int, tag: str) -> str:
        side = ' class="t"' if index < left else ""
        return f"<{tag}{side}>{rich(text)}</{tag}>"

    head = "".join(cell(text, i, "th") for i, text in enumerate(header))
    body = "".join("<tr>" + "".join(cell(c, i, "td") for i, c in enumerate(row)) + "</tr>\n" for row in rows)
    caption = f"<caption>{escape(caption)}</caption>" if caption else ""
    dense = ' class="dense"' if len(header) > 8 else ""
    rows = f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody>"
    return f'<div class="scroll"><table{dense}>{caption}{rows}</table></div>'


def folded(title: str, *parts: str) -> str:
    """Something that opens with a click on its plain title; printed open."""
    return f"<details><summary>{escape(title)}</summary>{''.join(parts)}</details>"


def rich(cell: str) -> str:
    """A Markdown cell as HTML: ``**bold**``, ``[7](#name-57)`` as a link within the page, what follows a ± in gray,
    the number of infinite values below.
    """
    text = re.sub(r"\*\*(.+)\*\*", r"<b>\1</b>", escape(cell))
    text = re.sub(r"\[(\d+)\]\((#[a-z]+-\d+)\)", r'<a href="\2">\1</a>', text)
    text = re.sub(r" \((\d+ inf)\)", r"<small>\1</small>", text)
    return re.sub(r"( ± [^<(]+)", r"<i>\1</i>", text)


def figure(svg: str, title: str = "", note: str = "") -> str:
    """A figure with its title above and a note below, both plain text."""
    title = f"<figcaption>{escape(title)}</figcaption>" if title else ""
    note = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<figure>{title}{svg}{note}</figure>"


def drawn_for_a_file(svg: str) -> str:
    """A figure that stands without a page: with a light page's colors and typeface of its own."""
    light, _, _ = files(__package__).joinpath("page.css").read_text(encoding="utf-8").partition("@media")
    colors = dict(re.findall(r"--([\w-]+): ([^;]+);", light))
    colors |= {f"series-{number}": color for number, color in enumerate(PALETTE)}
    colored = re.sub(r"var\(--([\w-]+)\)", lambda found: colors[found[1]], svg)
    return colored.replace("<svg ", '<svg font-family="Helvetica, Arial, sans-serif" ', 1)


def figures(*items: str) -> str:
    """Figures side by side as the width allows."""
    return '<div class="grid">' + "\n".join(item for item in items if item) + "</div>"


def warning(title: str, items: Iterable[tuple[str, str]]) -> str:
    """A prominent warning box: (name, reason) each."""
    rows = "".join(f"<li><b>{escape(name)}</b> {escape(reason)}</li>" for name, reason in items)
    return f'<aside class="warning"><h2>{escape(title)}</h2><ul>{rows}</ul></aside>'


def definitions(items: Iterable[tuple[str, str]]) -> str:
    """Terms and what they mean."""
    return (
        '<dl class="defs">'
        + "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in items)
        + "</dl>"
    )
