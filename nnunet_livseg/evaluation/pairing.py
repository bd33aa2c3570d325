"""Pair predictions with references, and find out what their labels mean."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from nnunet_livseg.core.dataset_json import read_splits
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import Structures
from nnunet_livseg.core.nnunet_folders import fold_folders, trained_dataset
from nnunet_livseg.data.dicom.referenced_series import find_objects
from nnunet_livseg.evaluation.label_meaning import LabelValues, structures_of_pairs
from nnunet_livseg.evaluation.results import CasePaths, Inputs, SkippedCase
from nnunet_livseg.imaging.label_maps import LABEL_MAP_ENDINGS, label_map_ending, label_map_stem

DICOM_ENDING = ".dcm"


def find_inputs(
    predictions: str | Path,
    references: str | Path | None = None,
    *,
    values: LabelValues | None = None,
    images: str | Path | None = None,
    fallback: Structures | None = None,
    folds: Sequence[str] = (),
) -> Inputs:
    """Pair predictions with references by file name.

    Args:
        predictions: Folder of label maps, one label map, or a model folder (the ``validation`` folders of its folds).
        references: Folder of label maps or one label map. For a model folder, defaults to those in ``nnUNet_raw`` or
            ``nnUNet_preprocessed``.
        values: Label values of liver and tumor, if no ``dataset.json`` says them.
        images: Folder of the CTs, for pictures.
        fallback: What the labels mean if neither ``dataset.json`` nor ``values`` say it.
        folds: Only these folds of a model folder.

    Raises:
        UserError: If a folder is missing or empty, no names match, or the meaning of the labels is not clear.
    """
    predictions = existing(predictions, "predictions")
    folders, notes = _prediction_folders(predictions)
    folders = _only(folds, folders, predictions) if folds else folders
    stated = Path(references) if references else None
    references = existing(references, "references") if references else _training_references(predictions)
    found, problems = _collect(folders)
    expected, more = _collect({"": references})
    wanted = {case: path for case, (_, path) in expected.items()}
    if predictions.is_file() and found.keys() & wanted.keys():  # one case of a folder of references
        wanted = {case: path for case, path in wanted.items() if case in found}
    if predictions.resolve() == references.resolve():
        notes = [*notes, "predictions and references are the same files, so every score is perfect"]
    validated = _validated_cases(predictions, list(folders))
    if validated is not None:
        others = wanted.keys() - validated - found.keys()
        notes += [f"{len(others)} references belong to folds that are not here"] if others else []
        wanted = {case: path for case, path in wanted.items() if case not in others}
    guess = []
    if not found.keys() & wanted.keys() and (renamed := _by_what_differs([*found], wanted)):
        case = min(found.keys() & renamed.keys())
        guess = [f"files paired by the part of their names that differs, such as {case} and {renamed[case].name}"]
        wanted = renamed
    cases, unpaired = _paired(found, wanted, predictions, references)
    pairs = [(paths.predicted, paths.reference) for paths in cases]
    values = values or LabelValues()
    structures, labels = structures_of_pairs(predictions, stated, pairs, values=values, fallback=fallback)
    cases = [_with_image(paths, images, references) for paths in cases]
    named = {problem.case for problem in problems + more}
    unpaired = [problem for problem in unpaired if problem.case not in named]
    folds = sorted(fold for fold in folders if fold)
    return Inputs(_method(predictions), structures, cases, problems + more + unpaired, folds, notes, guess + labels)


def existing(path: str | Path, what: str) -> Path:
    """The path.

    Raises:
        UserError: There is nothing; ``what`` says what it should be.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"the {what} do not exist: {path}\n  Correct the path.")
    return path


def _method(predictions: Path) -> str:
    name = predictions.resolve().name
    return label_map_stem(name) if predictions.is_file() else name


_SEEN = "fold_all was trained on the cases that it predicts here: these are not the scores on new cases"


def _prediction_folders(predictions: Path) -> tuple[dict[str, Path], list[str]]:
    """Fold to folder; one entry without a fold for a plain folder."""
    if (predictions / "validation").is_dir() and predictions.name.startswith("fold_"):
        fold = predictions.name.removeprefix("fold_")
        return {fold: predictions / "validation"}, [_SEEN] * (fold == "all")
    folds = {fold: folder / "validation" for fold, folder in fold_folders(predictions, "validation").items()}
    if len(folds) > 1 and "all" in folds:
        del folds["all"]
        return folds, ["fold_all was trained on the cases that it predicts, so it is skipped"]
    return folds or {"": predictions}, [_SEEN] * ("all" in folds)


def _only(folds: Sequence[str], folders: dict[str, Path], predictions: Path) -> dict[str, Path]:
    missing = [fold for fold in folds if fold not in folders]
    if missing:
        raise UserError(
            f"{predictions} has no validation cases of fold {', '.join(missing)}; "
            f"it has those of fold {', '.join(filter(None, folders)) or 'none'}."
            "\n  nnUNetv2_train ... --val writes them."
        )
    return {fold: folders[fold] for fold in folds}


def _collect(folders: dict[str, Path]) -> tuple[dict[str, tuple[str, Path]], list[SkippedCase]]:
    """Case to (fold, file); cases that occur twice, and links to nothing, are problems."""
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for fold, folder in folders.items():
        for path in _files(folder):
            found[_case(path, folder)].append((fold, path))
    if not found:
        places = ", ".join(map(str, folders.values()))
        if any(next(folder.glob("fold_*"), None) for folder in folders.values() if folder.is_dir()):
            raise UserError(
                f"no fold of {places} has a folder 'validation' yet.\n  nnUNetv2_train ... --val writes it."
            )
        raise UserError(
            f"there is no label map in {places}\n"
            f"  Label maps end in one of {', '.join((*LABEL_MAP_ENDINGS, DICOM_ENDING))}, or are folders with a"
            " DICOM SEG or RT structure set."
        )
    twice = {case: files for case, files in found.items() if len(files) > 1}
    problems = [
        SkippedCase(case, "found more than once: " + ", ".join(str(path) for _, path in files))
        for case, files in twice.items()
    ]
    once = {case: files[0] for case, files in found.items() if case not in twice}
    gone = {case: f"the file behind the link {path} is gone" for case, (_, path) in once.items() if not path.exists()}
    if len(gone) == len(found):
        raise UserError(f"{next(iter(gone.values()))}.\n  Copy the label maps themselves, or repair the links.")
    problems += [SkippedCase(case, why) for case, why in gone.items()]
    return {case: file for case, file in once.items() if case not in gone}, problems


def _files(folder: Path) -> list[Path]:
    """The label maps of a folder; a folder in it with a DICOM SEG or RT structure set is a case, too."""
    if folder.is_file():
        return [folder]
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found += find_objects(path)
        elif label_map_ending(path.name) or path.suffix.lower() == DICOM_ENDING:
            found.append(path)
    return found


def _case(path: Path, folder: Path) -> str:
    """The file's name, or that of the folder in which it was found."""
    if path != folder and path.parent != folder:
        return path.relative_to(folder).parts[0]
    return label_map_stem(path.name) if label_map_ending(path.name) else path.stem


def _paired(
    found: dict[str, tuple[str, Path]], expected: dict[str, Path], predictions: Path, references: Path
) -> tuple[list[CasePaths], list[SkippedCase]]:
    if predictions.is_file() and references.is_file():
        ((case, (fold, path)),) = found.items()
        return [CasePaths(case, path, references, fold)], []
    both = sorted(found.keys() & expected.keys())
    if not both:
        raise UserError(
            "no prediction has the name of a reference, so nothing can be compared.\n"
            f"  predictions, such as {next(iter(found.values()))[1].name}: {predictions}\n"
            f"  references, such as {next(iter(expected.values())).name}: {references}\n"
            "  Rename them, so that both files of a case have the same name except for the ending."
        )
    missing = [
        SkippedCase(case, "has a reference, but no prediction") for case in sorted(expected.keys() - found.keys())
    ]
    extra = [SkippedCase(case, "has a prediction, but no reference") for case in sorted(found.keys() - expected.keys())]
    return [CasePaths(case, found[case][1], expected[case], found[case][0]) for case in both], missing + extra


def _by_what_differs(found: list[str], expected: Mapping[str, Path]) -> dict[str, Path]:
    """References under the predictions' names, if the names differ only in what all files of a folder share.

    ``volume-7_pred`` belongs to ``segmentation-7`` if every prediction finds its reference so; else nothing is paired.
    """
    cases, names = _differing_parts(found), _differing_parts([*expected])
    if not cases or not cases.keys() <= names.keys():
        return {}
    return {cases.get(part, name): expected[name] for part, name in names.items()}


def _differing_parts(names: list[str]) -> dict[str, str]:
    """What is left of each name without the beginning and the end that all have; numbers stay whole."""
    if len(names) < 2:
        return {}
    start = _common_start(names).rstrip("0123456789")
    end = _common_start([name[len(start) :][::-1] for name in names])[::-1].lstrip("0123456789")
    parts = {name[len(start) : len(name) - len(end)]: name for name in names}
    return parts if len(parts) == len(names) and all(parts) else {}


def _common_start(names: list[str]) -> str:
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letter for letter, *_ in alike)


def _training_references(predictions: Path) -> Path:
    """The references of a training: nnU-Net's raw labels, or the copy it keeps with the preprocessed data."""
    name = trained_dataset(predictions)
    places = []
    for variable, folder in (("nnUNet_raw", "labelsTr"), ("nnUNet_preprocessed", "gt_segmentations")):
        if os.environ.get(variable) and name:
            places.append(Path(os.environ[variable]) / name / folder)
    for place in places:
        if place.is_dir():
            return place
    looked = f" Looked at {', '.join(map(str, places))}." if places else ""
    raise UserError(
        f"no references were given, and none were found for {predictions}.{looked}\n"
        "  Name their folder as the last argument, or set nnUNet_raw or nnUNet_preprocessed for a model folder."
    )


def _validated_cases(predictions: Path, folds: list[str]) -> set[str] | None:
    """The cases that a training's folds should have predicted, by nnU-Net's splits; ``None`` if unknown."""
    if not any(fold.isdigit() for fold in folds):
        return None
    path = Path(os.environ.get("nnUNet_preprocessed", "")) / (trained_dataset(predictions) or "") / "splits_final.json"  # noqa: SIM112
    if path.is_file():
        splits = read_splits(path)
        return {case for fold in folds if int(fold) < len(splits) for case in splits[int(fold)]["val"]}
    return None if len(folds) >= 5 else set()


def _with_image(paths: CasePaths, images: str | Path | None, references: Path) -> CasePaths:
    """Add the CT (nnU-Net's channel 0), if it lies in ``images`` or beside the references."""
    folder = references if references.is_dir() else references.parent
    places = [Path(images)] if images else [folder.with_name(folder.name.replace("labels", "images"))]
    if not images and os.environ.get("nnUNet_raw") and folder.name == "gt_segmentations":  # noqa: SIM112 - nnU-Net's name
        places.append(Path(os.environ["nnUNet_raw"]) / folder.parent.name / "imagesTr")  # noqa: SIM112
    for place in places:
        for name in (f"{paths.case}_0000", paths.case):
            for ending in LABEL_MAP_ENDINGS:
                if place != folder and (place / f"{name}{ending}").is_file():
                    return CasePaths(
                        paths.case, paths.predicted, paths.reference, paths.fold, place / f"{name}{ending}"
                    )
    return paths
