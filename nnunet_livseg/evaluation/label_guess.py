"""Guess what label values mean without a dataset.json: by names inside the files, else by where the values lie."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER, TUMOR, Structures, structures_from_labels, structures_from_values
from nnunet_livseg.imaging.label_maps import read_label_map
from nnunet_livseg.imaging.label_names import label_names

_ENOUGH, _MOST = 3, 20  # files with both values to look at, and files to read for them
_SURROUNDED = 0.5  # median share of a tumor's faces that the liver covers; measured on LiTS: 0.95, on a spleen 0.05
_LISTED = 8  # values in a message
_CLEARER = 2  # how many times more of the tumor's faces than of the liver's lie on the other


def named_structures(files: Iterable[Path], side: str) -> Structures | None:
    """Liver and tumor by the names inside the files; None if no file has names.

    Raises:
        UserError: Two files give a name to different values, or no name is that of a liver or tumor.
    """
    labels: dict[str, int | list[int]] = {}
    source = ""
    for path in files:
        found = label_names(path)
        source = source or (f"the names in {path.name}" if found else "")
        for name, value in found.items():
            if labels.setdefault(name, value) != value:
                raise UserError(
                    f"the files of the {side} disagree: {name!r} has the values {labels[name]} and {value} (in"
                    f" {path.name}).\n  Convert them to the same values."
                )
    if not labels:
        return None
    structures = structures_from_labels(labels, source=source)
    values = {name: structures.values[name] for name in (LIVER, TUMOR) if name in structures.values}
    if not values:
        raise UserError(
            f"{source} are {', '.join(labels)}. None of them names a liver or a tumor.\n  {remedy(side, (1, 2))}"
        )
    return Structures(values, structures.known, source=source)


def guessed_structures(files: Sequence[Path], side: str) -> Structures:
    """Liver and tumor by where the values lie: of two values, the one inside the other is the tumor.

    Raises:
        UserError: The files have one value or more than two, or neither lies inside the other.
    """
    values, shares = _looked_at(files)
    found = _tumor_in_liver(shares)
    if found is None:
        listed = ", ".join(map(str, sorted(values)[:_LISTED])) or "none"
        more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
        raise UserError(
            f"no dataset.json says which labels of the {side} are liver and tumor, and their values ({listed}{more}) do"
            f" not show it.\n  {remedy(side, [value for value in sorted(values) if value > 0])}"
        )
    liver, tumor = found
    source = f"a guess for the {side}, where label {tumor} lies inside label {liver}"
    meant = structures_from_values([liver], [tumor])
    return Structures(meant.values, frozenset({0, liver, tumor}), source=source)


def require_no_contradiction(structures: Structures, files: Sequence[Path], side: str) -> None:
    """Reject the meaning of labels that another folder has declared where the files show the opposite.

    Raises:
        UserError: What is declared the tumor encloses what is declared the liver.
    """
    healthy, tumors = structures.healthy, structures.values.get(TUMOR, ())
    if len(healthy) != 1 or len(tumors) != 1:
        return
    found = _tumor_in_liver(_looked_at(files, [*healthy, *tumors])[1])
    if found == (*tumors, *healthy):
        raise UserError(
            f"{structures.source} says that {healthy[0]} is the liver and {tumors[0]} the tumor, but in the {side}"
            f" label {healthy[0]} lies inside label {tumors[0]}.\n  {remedy(side, found)}"
        )


def remedy(side: str, values: Sequence[int]) -> str:
    """The options to type for one side, with values that occur."""
    prefix = "--reference-" if side == "references" else "--"
    liver, tumor = (*values, 1, 2)[:2] if len(values) > 1 else (*values, 1)[:1] * 2
    both = f"{prefix}liver {liver} {prefix}tumor {tumor}"
    if liver == tumor:
        return f"Name it: {prefix}liver {liver} for the liver or {prefix}tumor {liver} for the tumor."
    return f"Name them with the values that are right, for example: {both}"


def _looked_at(
    files: Sequence[Path], wanted: Sequence[int] = ()
) -> tuple[set[int], dict[tuple[int, int], list[tuple[float, float]]]]:
    """Values in the files, and for pairs of them the shares of faces that each has on the other, file by file."""
    values: set[int] = set()
    shares: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for path in files[:_MOST]:
        try:
            labels = read_label_map(path).labels
        except UserError:  # the evaluation itself names the file
            continue
        present = [value for value in np.unique(labels).tolist() if value and (not wanted or value in wanted)]
        values |= set(present)
        if len(present) == 2:
            one, other = present
            pair = _share_on(labels, one, other), _share_on(labels, other, one)
            shares.setdefault((one, other), []).append(pair)
        if len(values) > 2 or sum(map(len, shares.values())) == _ENOUGH:
            break
    return values, shares if len(values) == 2 else {}


def _tumor_in_liver(shares: dict[tuple[int, int], list[tuple[float, float]]]) -> tuple[int, int] | None:
    """Liver and tumor, if all files agree on which lies inside which."""
    for (one, other), found in shares.items():
        on_other, on_one = np.array(found).T
        for inside, outside, order in ((on_one, on_other, (one, other)), (on_other, on_one, (other, one))):
            if (inside > _CLEARER * outside).all() and np.median(inside) >= _SURROUNDED:
                return order
    return None


def _share_on(labels: np.ndarray, value: int, other: int) -> float:
    """Share of the faces of label ``value`` in ``labels (*S)`` that border on label ``other``."""
    faces = touching = 0
    mask, neighbor = labels == value, labels == other
    for axis in range(labels.ndim):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        for here, there in ((low, high), (high, low)):
            border = mask[here] & ~mask[there]
            faces += np.count_nonzero(border)
            touching += np.count_nonzero(border & neighbor[there])
    return touching / max(faces, 1)
