"""Scores of finished trainings in small files of their own, one per fold, and their summary over folds."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_livseg.core.files import atomic_path, with_floats, write_json
from nnunet_livseg.core.labels import LIVER, TUMOR, Structures
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.results import CaseResult, FolderResult, Inputs
from nnunet_livseg.evaluation.summary import summarize

LABELS = {LIVER: (1, 2), TUMOR: (2,)}


def write_scores(file: Path, head: Mapping[str, Any], result: FolderResult) -> None:
    """``head`` and every score of the cases, as JSON in gzip."""
    with atomic_path(file) as temporary:
        write_json(temporary, {**head, "cases": [case.as_dict() for case in result.cases]})
        temporary.write_bytes(gzip.compress(temporary.read_bytes(), mtime=0))


def read_scores(file: Path) -> dict[str, Any]:
    """What ``write_scores`` wrote."""
    return with_floats(json.loads(gzip.decompress(file.read_bytes())))


def folder_result(name: str, cases: Sequence[dict[str, Any]]) -> FolderResult:
    """The evaluation of a method over the patients of all folds."""
    results, options = sorted((CaseResult(**case) for case in cases), key=lambda case: case.case), Options()
    inputs = Inputs(name, Structures(LABELS), [])
    return FolderResult(inputs, options, results, [], summary=summarize(results, options))


def summary_of(result: FolderResult) -> dict[str, Any]:
    """Dice of both structures, lesions found by size, false lesions per case, and each patient's Dice."""
    summary = result.summary
    strata = [{key: row[key] for key in ("stratum", "n", "found", "false")} for row in summary["lesion_strata"]]
    return {
        "scores": {name: _scores(summary["structures"][name]) for name in LABELS},
        "lesions": {"strata": strata, "false_per_case": summary["lesions"]["false_per_case"]["matched_0"]},
        "dice_of_patient": {
            case.case: {name: round(case.structures[name]["dice"], 4) for name in LABELS} for case in result.cases
        },
    }


def _scores(structure: dict) -> dict[str, Any]:
    dice = structure["metrics"]["dice"]
    return {"n": dice["n"], "global": structure["dice_global"]} | {key: dice[key] for key in ("mean", "ci95", "median")}
