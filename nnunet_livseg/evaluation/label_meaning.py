"""Which labels of predictions and references are liver and tumor: given values, dataset.json, or a guess."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from nnunet_livseg.core.dataset_json import DatasetJson, read_dataset_json
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import (
    LIVER,
    TUMOR,
    Structures,
    declared,
    of_both,
    structures_from_values,
    with_other_references,
)
from nnunet_livseg.core.nnunet_folders import trained_dataset
from nnunet_livseg.data.segment_files import names_its_segments
from nnunet_livseg.evaluation.label_guess import guessed_structures, named_structures, require_no_contradiction

PREDICTIONS, REFERENCES = "predictions", "references"


@dataclass(frozen=True)
class LabelValues:
    """Label values that the user has given.

    Args:
        liver: Values of the liver; its tumors need not be among them.
        tumor: Values of the tumor.
        reference_liver: Values of the liver in the references, if they differ.
        reference_tumor: Values of the tumor in the references, if they differ.
    """

    liver: tuple[int, ...] = ()
    tumor: tuple[int, ...] = ()
    reference_liver: tuple[int, ...] = ()
    reference_tumor: tuple[int, ...] = ()

    def of(self, side: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Liver and tumor of ``predictions`` or ``references``."""
        if side == PREDICTIONS:
            return tuple(self.liver), tuple(self.tumor)
        return tuple(self.reference_liver), tuple(self.reference_tumor)


def find_structures(folder: Path, *, liver: Iterable[int] = (), tumor: Iterable[int] = ()) -> Structures:
    """What the labels in ``folder`` mean by the given values, else by the nearest ``dataset.json``; never a guess.

    Raises:
        UserError: Neither says it, or the folder does not exist.
    """
    if not folder.exists():
        raise UserError(f"{folder} does not exist. Give a folder of label maps or a model folder.")
    described = _described(folder)
    if liver or tumor:
        return _given((tuple(liver), tuple(tumor)), [described])
    if described is None:
        raise UserError(
            f"there is no dataset.json beside {folder} that says which labels are liver and tumor.\n"
            "  Name them: --liver 1 --tumor 2"
        )
    return described.structures


def structures_of_pairs(
    predictions: Path,
    references: Path | None,
    pairs: Sequence[tuple[Path, Path]],
    *,
    values: LabelValues,
    fallback: Structures | None = None,
) -> tuple[Structures, list[str]]:
    """What the labels of both sides mean, and notes on what was guessed or translated.

    Args:
        predictions: Folder or file, for the nearest ``dataset.json``.
        references: The same of the references; None if they are those of the predictions' training.
        pairs: Files of each case, prediction and reference, to guess from.
        values: Given values; those of the predictions hold for the references unless these have their own.
        fallback: The meaning if neither values nor a ``dataset.json`` say it.

    Raises:
        UserError: The meaning of one side is not clear, or the sides have nothing in common.
    """
    described = {PREDICTIONS: _described(predictions), REFERENCES: _described(references)}
    if any(values.of(PREDICTIONS)) and not any(values.of(REFERENCES)):
        return _given(values.of(PREDICTIONS), described.values()), []
    files = {PREDICTIONS: [one for one, _ in pairs], REFERENCES: [other for _, other in pairs]}
    plain = [side for side in files if not files[side] or not all(map(names_its_segments, files[side]))]
    if len(plain) < 2:
        return _with_named_segments(*plain, described=described, files=files, values=values, fallback=fallback)
    found = {side: _stated(values.of(side), described[side], files[side], side) for side in described}
    if fallback is not None and not any(found.values()):
        return fallback, []
    guessed = [side for side in found if found[side] and not described[side] and not any(values.of(side))]
    for side, other in ((PREDICTIONS, REFERENCES), (REFERENCES, PREDICTIONS)):
        if found[side] is None and described[other] and not any(values.of(other)):
            found[side] = found[other]  # a dataset.json beside either speaks for both
            if references is not None:
                require_no_contradiction(found[side], files[side], side)
        elif found[side] is None:
            found[side] = guessed_structures(files[side], side)
            guessed.append(side)
    both = _joined(found, files, trained=bool(trained_dataset(predictions)))
    translated = both.references and not any(values.of(REFERENCES))
    return both, _notes(found) if guessed or translated else []


def _with_named_segments(
    plain: str = "",
    *,
    described: dict[str, DatasetJson | None],
    files: dict[str, list[Path]],
    values: LabelValues,
    fallback: Structures | None,
) -> tuple[Structures, list[str]]:
    """Segments with names get the values of the ``plain`` side; where both sides have names, liver is 1 and tumor 2."""
    if not plain:
        return fallback or structures_from_values((1,), (2,)), []
    spoken = described[plain] or next(filter(None, described.values()), None)
    stated = _stated(values.of(plain), spoken, files[plain], plain) or fallback
    found = stated or guessed_structures(files[plain], plain)
    return found, [] if stated else _notes(dict.fromkeys(described, found))


def _stated(
    values: tuple[tuple[int, ...], tuple[int, ...]], described: DatasetJson | None, files: Sequence[Path], side: str
) -> Structures | None:
    if any(values):
        return _given(values, [described])
    return described.structures if described else named_structures(files, side)


def _given(values: tuple[tuple[int, ...], tuple[int, ...]], described: Iterable[DatasetJson | None]) -> Structures:
    files = {one.path.resolve(): one for one in described if one}
    sides = [declared(one.labels, source=str(one.path)) for one in files.values()]
    return structures_from_values(*values, base=reduce(of_both, sides) if sides else None)


def _described(place: Path | None) -> DatasetJson | None:
    """The dataset.json in or above (by two folders) ``place``."""
    for folder in (place, *place.resolve().parents[:2]) if place else ():
        if (folder / "dataset.json").is_file():
            return read_dataset_json(folder, required=("labels",))
    return None


def _joined(found: dict[str, Structures], files: dict[str, list[Path]], *, trained: bool) -> Structures:
    """One meaning for both sides; the references of a training must have the predictions' values."""
    predicted, reference = found[PREDICTIONS], found[REFERENCES]
    if predicted == reference:
        return predicted
    if predicted.known is not None and reference.known is not None:
        try:
            return of_both(predicted, reference)
        except UserError:
            if trained:
                raise
            for side in found:
                require_no_contradiction(found[side], files[side], side)
    return with_other_references(predicted, reference)


def _notes(found: dict[str, Structures]) -> list[str]:
    """What each side's labels were taken for, and the options that say so."""
    said, options = [], []
    for side, structures in found.items():
        meant = {LIVER: structures.healthy, TUMOR: structures.values.get(TUMOR, ())}
        meant = {name: " ".join(map(str, values)) for name, values in meant.items() if values}
        listed = ", ".join(f"{name} {values}" for name, values in meant.items())
        said.append(f"labels of the {side}: {listed} ({structures.source})")
        prefix = "--" if side == PREDICTIONS else "--reference-"
        options += [f"{prefix}{name} {values}" for name, values in meant.items()]
    same = found[PREDICTIONS].values == found[REFERENCES].values
    options = [option for option in options if not (same and option.startswith("--reference-"))]
    return [*said, f"to confirm or correct these labels: {' '.join(options)}"]
