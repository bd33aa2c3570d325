"""Masks and spacing in, numbers out. Knows nothing of networks.

``evaluate_case`` for one pair of label maps, ``evaluate_folder`` for a folder of predictions or a training by nnU-Net,
``compare`` for several methods. Definitions of every number: docs/reference/metrics.md.
"""

import importlib
from typing import Any

# public names, imported where they are first used, so that one module of this room does not load all of it
_HOME = {
    "CaseResult": "nnunet_livseg.evaluation.results",
    "Comparison": "nnunet_livseg.evaluation.results",
    "FolderResult": "nnunet_livseg.evaluation.results",
    "Options": "nnunet_livseg.evaluation.options",
    "compare": "nnunet_livseg.evaluation.comparison",
    "evaluate_case": "nnunet_livseg.evaluation.case_evaluation",
    "evaluate_folder": "nnunet_livseg.evaluation.folder_evaluation",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
