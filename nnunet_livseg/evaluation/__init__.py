"""Masks and spacing in, numbers out. Knows nothing of networks.

``evaluate_case`` for one pair of label maps, ``evaluate_folder`` for a folder of predictions or a training by nnU-Net,
``compare`` for several methods. Definitions of every number: docs/evaluation.md.
"""

from nnunet_livseg.evaluation.case import CaseResult, evaluate_case
from nnunet_livseg.evaluation.compare import Comparison, compare
from nnunet_livseg.evaluation.folder import FolderResult, evaluate_folder
from nnunet_livseg.evaluation.options import Options

__all__ = ["CaseResult", "Comparison", "FolderResult", "Options", "compare", "evaluate_case", "evaluate_folder"]
