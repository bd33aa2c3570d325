"""The documents as a site: ``sphinx-build -W docs site``, then open ``site/index.html``."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import generate  # noqa: E402

from nnunet_livseg import __version__  # noqa: E402
from nnunet_livseg.cli import commands  # noqa: E402

project = "nnunet_livseg"
copyright = "the authors of nnunet_livseg; Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = f"nnunet_livseg {__version__}"
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "header_links_before_dropdown": 8,
    "footer_end": [],
}

# the pages of the commands follow from argparse, so they are written for each build and are not in the repository
(DOCS / "reference" / "cli").mkdir(exist_ok=True)
for command in commands():
    page, text = DOCS / "reference" / "cli" / f"{command}.md", generate.command_page(command)
    if not page.is_file() or page.read_text("utf-8") != text:
        page.write_text(text, "utf-8")
