"""Liver and liver-tumor segmentation in CT on nnU-Net v2. Importing this package imports no torch."""

import importlib
from typing import Any

__version__ = "0.1.0"

# public names, imported where they are first used
_HOME = {
    "VARIANTS": "nnunet_livseg.variants",
    "find_variant": "nnunet_livseg.variants",
    "check_dataset": "nnunet_livseg.data.check_dataset",
    "make_case": "nnunet_livseg.data.phantom",
    "write_dataset": "nnunet_livseg.data.phantom",
    "evaluate_case": "nnunet_livseg.evaluation",
    "evaluate_folder": "nnunet_livseg.evaluation",
    "compare": "nnunet_livseg.evaluation",
    "segment": "nnunet_livseg.inference.segment_jobs",
    "Segmenter": "nnunet_livseg.inference.segmenter",
    "attention_maps": "nnunet_livseg.inference.attention_maps",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
