"""Convert published datasets and your own files to nnU-Net raw datasets.

One module per source finds the cases (``SOURCES``); ``conversion.convert`` does the same to all of them.
"""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

_HOME = {
    "ConversionOptions": "convert_case",
    "SourceCase": "source_cases",
    "SourceDataset": "source_cases",
    "convert": "conversion",
}


def _find(module: str, source: Path) -> Any:
    return importlib.import_module(f"{__name__}.{module}").find(source)


# what finds the cases of a source; its module is loaded when it is used
SOURCES = {
    kind: partial(_find, module)
    for kind, module in (("lits", "lits"), ("msd", "msd"), ("ircadb", "ircadb"), ("folder", "plain_folder"))
}
__all__ = ["SOURCES", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
