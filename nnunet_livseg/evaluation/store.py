"""Finished cases on disk: one JSON file each, written whole or not at all, and reused while its inputs stay the
same."""

import hashlib
import json
import math
from pathlib import Path

from nnunet_livseg.core.files import write_json
from nnunet_livseg.core.labels import Structures
from nnunet_livseg.evaluation.case_evaluation import CaseResult
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.pairing import CasePaths

SCHEMA = "nnunet_livseg.evaluation/1"


def case_key(paths: CasePaths, structures: Structures, options: Options) -> str:
    """Changes when a file, the meaning of the labels, an option or the schema changes.

    Files are known by path, size and time of change: hashing them would take as long as evaluating them.
    """
    files = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in (paths.predicted, paths.reference)
    ]
    what = [SCHEMA, files, paths.fold, structures.as_dict(), options.as_dict()]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def case_file(out: Path, case: str) -> Path:
    return out / "cases" / f"{case}.json"


def save_case(out: Path, result: CaseResult, key: str) -> None:
    write_json(case_file(out, result.case), to_json({"schema": SCHEMA, "key": key, **result.as_dict()}))


def load_case(out: Path, case: str, key: str) -> CaseResult | None:
    """The stored result of a case, or ``None`` where there is none or its inputs have changed since."""
    path = case_file(out, case)
    try:
        content = from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.pop("key", None) != key or content.pop("schema", None) != SCHEMA:
        return None
    return CaseResult(**content)


def to_json(value: object) -> object:
    """JSON has no NaN and no infinity: ``null`` and ``"Infinity"`` stand for them."""
    if isinstance(value, dict):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def from_json(value: object) -> object:
    """The reverse of ``to_json``."""
    if isinstance(value, dict):
        return {key: from_json(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [from_json(entry) for entry in value]
    if value is None:
        return math.nan
    return {"Infinity": math.inf, "-Infinity": -math.inf}.get(value, value) if isinstance(value, str) else value
