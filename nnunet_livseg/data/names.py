"""Names of nnU-Net raw datasets."""

import re

_DATASET_NAME = re.compile(r"Dataset(\d{3})_(\w[\w.-]*)")


def is_dataset_name(name: str) -> bool:
    """Whether ``name`` is ``DatasetNNN_Name``."""
    return _DATASET_NAME.fullmatch(name) is not None


def dataset_id(name: str) -> int:
    """The number in ``DatasetNNN_Name``."""
    match = _DATASET_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no dataset name")
    return int(match.group(1))


def suggest_dataset_name(wrong: str) -> str:
    """A valid name close to ``wrong``, for error messages."""
    number = re.search(r"\d{1,3}(?!\d)", wrong)
    words = re.sub(r"(?i)dataset|\d+|[^A-Za-z]", "", wrong) or "Phantom"
    return f"Dataset{int(number.group()) if number else 901:03d}_{words}"
