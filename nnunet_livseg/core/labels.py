"""Which values of a label map are the liver, the tumor and the rest."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from nnunet_livseg.core.errors import UserError

LIVER, TUMOR = "liver", "tumor"
TUMOR_WORDS = {
    *("tumor", "tumors", "tumour", "tumours", "lesion", "lesions", "cancer", "cancers", "carcinoma", "hcc"),
    *("metastasis", "metastases", "neoplasm", "neoplasms", "mass", "masses"),
}
LIVER_WORDS = {"liver", "hepatic", "parenchyma", "whole", "healthy", "normal", "organ"}


@dataclass(frozen=True)
class Structures:
    """What is evaluated.

    Args:
        values: Label values of each structure; the liver includes the tumor's.
        known: Every value that may occur (``None``: any value; what is no structure counts as background).
        ignore: Value of reference voxels that count neither way, as in nnU-Net.
    """

    values: Mapping[str, tuple[int, ...]]
    known: frozenset[int] | None = None
    ignore: int | None = None
    source: str = field(default="", compare=False)

    def as_dict(self) -> dict:
        known = None if self.known is None else sorted(self.known)
        return {"values": {k: list(v) for k, v in self.values.items()}, "known": known, "ignore": self.ignore}

    @classmethod
    def from_dict(cls, content: Mapping) -> "Structures":
        known = content["known"]
        values = {name: tuple(v) for name, v in content["values"].items()}
        return cls(values, None if known is None else frozenset(known), content["ignore"])


def explicit_structures(
    liver: Iterable[int] = (), tumor: Iterable[int] = (), *, base: Structures | None = None
) -> Structures:
    """Structures from label values that a person names; ``base`` (a dataset.json's) still says what may occur.

    Raises:
        UserError: No value at all, background named as a structure, or a value that ``base`` does not know.
    """
    liver, tumor = tuple(liver), tuple(tumor)
    if not liver and not tumor:
        raise UserError("no label values for liver or tumor: name at least one, such as --liver 1 --tumor 2")
    if any(value <= 0 for value in liver + tumor):
        raise UserError(f"label values of liver {liver} and tumor {tumor} must be above 0, which is the background")
    values = {LIVER: tuple(sorted({*liver, *tumor}))} if liver else {}
    if tumor:
        values[TUMOR] = tuple(sorted(set(tumor)))
    known, ignore = (base.known, base.ignore) if base else (None, None)
    unknown = sorted({*liver, *tumor} - known) if known is not None else []
    if unknown:
        raise UserError(f"{base.source} knows no label {unknown[0]}, only {', '.join(map(str, sorted(known)))}.")
    return Structures(values, known, ignore, "given label values")


def dataset_structures(dataset_json: Mapping, *, source: str = "dataset.json") -> Structures:
    """Structures from the ``labels`` of nnU-Net's ``dataset.json``, regions included.

    Names of tumors (tumour, lesion, cancer, HCC, ...) become ``tumor``, the liver takes in the tumor's values, every
    other label stays a structure of its own.

    Raises:
        UserError: There is no readable ``labels`` section.
    """
    labels = dataset_json.get("labels")
    if not isinstance(labels, Mapping) or not labels:
        raise UserError(f"{source}: there is no 'labels' section, so nobody knows what is liver and what is tumor.")
    values = {name: _values(value, name, source) for name, value in labels.items()}
    ignore = values.pop("ignore", (None,))[0]
    known = frozenset({0}.union(*values.values()))
    named = {name: tuple(v for v in found if v) for name, found in values.items()}
    named = {name: found for name, found in named.items() if found}
    structures = _liver_and_tumor(named)
    return Structures(structures, known, ignore, source)


def _liver_and_tumor(named: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    tumors = [name for name in named if _words(name) & TUMOR_WORDS]
    livers = [name for name in named if name not in tumors and _is_liver(name)]
    tumor = sorted({v for name in tumors for v in named[name]})
    liver = sorted({v for name in livers for v in named[name]}.union(tumor)) if livers else []
    merged = {LIVER: tuple(liver), TUMOR: tuple(tumor)}
    single = {name for group in (livers, tumors) if len(group) == 1 for name in group}
    others = {name: found for name, found in named.items() if name not in single and name not in livers}
    return {name: found for name, found in merged.items() if found} | {
        name: found for name, found in others.items() if name not in merged
    }


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower())) - {""}


def _is_liver(name: str) -> bool:
    words = _words(name)
    return bool(words & {"liver", "hepatic"}) and words <= LIVER_WORDS


def _values(value: object, name: str, source: str) -> tuple[int, ...]:
    values = value if isinstance(value, (list, tuple)) else [value]
    try:
        return tuple(int(v) for v in values)
    except (TypeError, ValueError):
        raise UserError(
            f"{source}: label {name!r} has the value {value!r}, which is no integer or list of integers."
        ) from None


def select(labels: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """Boolean mask of the voxels of ``labels (*S)`` that have one of ``values``."""
    if len(values) == 1:
        return labels == values[0]
    return np.isin(labels, values)
