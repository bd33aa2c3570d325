"""Names of nnU-Net's datasets: what nnU-Net 2.8 finds by a number, and nothing else."""

import re

_DATASET_NAME = re.compile(r"Dataset(\d{3}|[1-9]\d{3,})(\D.*)?")


def is_dataset_name(name: str) -> bool:
    """Whether nnU-Net finds a folder ``name`` by its number: ``Dataset003_Liver``, ``Dataset1011_My Liver``."""
    return _DATASET_NAME.fullmatch(name) is not None


def dataset_id(name: str) -> int:
    """The number in a dataset's name."""
    match = _DATASET_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no dataset name")
    return int(match.group(1))


def has_id(name: str, number: int) -> bool:
    """Whether nnU-Net takes the dataset ``name`` for ``-d number``: by how it begins, so that 101 is 1011 as well."""
    return is_dataset_name(name) and name.startswith(f"Dataset{number:03d}")


def suggest_dataset_name(wrong: str) -> str:
    """A name close to ``wrong`` that nnU-Net finds, for error messages."""
    number = re.search(r"\d+", wrong)
    words = re.sub(r"(?i)dataset|\d+|[^A-Za-z]", "", wrong) or "Phantom"
    return f"Dataset{int(number.group()) if number else 901:03d}_{words}"
