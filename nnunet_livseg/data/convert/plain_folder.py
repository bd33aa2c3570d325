"""A plain folder (``images`` and ``labels``) or a CSV table of image and label files."""

import re
from collections import Counter
from pathlib import Path
from zipfile import is_zipfile

from nnunet_livseg.core.dataset_json import read_dataset_json
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import ENDINGS, ending, stem
from nnunet_livseg.core.tables import read_csv
from nnunet_livseg.data.convert.dicom_cases import DicomSeries, LabelFile
from nnunet_livseg.data.convert.source_cases import FileVolume, SourceCase, SourceDataset, VolumeSource, our_values
from nnunet_livseg.data.dicom.referenced_series import find_objects
from nnunet_livseg.imaging.images import content_kind

_IMAGES, _LABELS = ("images", "imagesTr", "image"), ("labels", "labelsTr", "label", "masks", "segmentations")
_CHANNEL = re.compile(r"_0000$")


def find(source: Path) -> SourceDataset:
    """Find the cases of a folder or of a CSV table.

    A folder holds ``images`` and ``labels`` with equal file names (``_0000`` of the image may be missing). An image
    may be a folder of a DICOM series; a label map a DICOM SEG or RT structure set, or a folder with one. A table has
    the columns ``image`` and ``label`` and may have ``case``, ``patient`` and ``part`` (``train`` or ``test``); its
    paths are relative to the table, and a row without a label is a test case. What label values mean stands in the
    folder's ``dataset.json``, if it has one.

    Raises:
        UserError: Nothing found, image without label, names twice, wrong columns, files missing.
    """
    cases = _from_table(source) if source.is_file() else _from_folder(source)
    twice = [name for name, count in Counter(case.identifier for case in cases).items() if count > 1]
    if twice:
        raise UserError(f"{source}: case {twice[0]} is there twice. Rename one, or use a table with a column 'case'.")
    described = source / "dataset.json"  # of nnU-Net, whose names may mean other values
    meaning = our_values(read_dataset_json(source, required=("labels",)).structures) if described.is_file() else {}
    return SourceDataset(cases, "Liver", f"Liver CT, converted from {source.name}", "not stated", label_map=meaning)


def _from_folder(source: Path) -> list[SourceCase]:
    folders = {kind: [source / n for n in names if (source / n).is_dir()] for kind, names in _KINDS.items()}
    if not folders["images"] or not folders["labels"]:
        raise UserError(
            f"{source} contains no folders 'images' and 'labels' (found: {_contents(source)}).\n"
            "  Arrange the files so, or give a CSV table with the columns image,label[,patient]."
        )
    images, labels = _volumes(folders["images"][0]), _volumes(folders["labels"][0], named=True)
    if not images:
        raise UserError(f"{folders['images'][0]} contains no volumes ({', '.join(ENDINGS)}); it contains: "
                        f"{_contents(folders['images'][0])}.")  # fmt: skip
    unlabeled = sorted(set(images) - set(labels))
    if unlabeled:
        raise UserError(
            f"{images[unlabeled[0]]} has no label of the same name in {folders['labels'][0]}"
            f" ({len(unlabeled)} of {len(images)} images). Names must be equal, or use a CSV table."
        )
    unseen = sorted(set(labels) - set(images))
    if unseen:
        raise UserError(
            f"{labels[unseen[0]]} has no image of the same name in {folders['images'][0]}."
            " Names must be equal, or use a CSV table."
        )
    return [
        SourceCase(_clean(name), _clean(name), _image(images[name], labels[name]), LabelFile(labels[name]))
        for name in sorted(images)
    ]


_KINDS = {"images": _IMAGES, "labels": _LABELS}


def _contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return (", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "nothing"


def _volumes(folder: Path, *, named: bool = False) -> dict[str, Path]:
    """Volumes by case, and folders of DICOM series; with ``named`` DICOM segmentations, in folders or not."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        fits = _is_study(path) or ending(path) or (named and path.suffix.lower() == ".dcm")
        if path.name.startswith(".") or not fits:
            continue
        name = _CHANNEL.sub("", path.name if path.is_dir() else stem(path))
        if name in found:
            raise UserError(f"{found[name]} and {path} would become the same case. Remove one.")
        found[name] = _object_in(path) if named and path.is_dir() else path
    return found


def _is_study(folder: Path) -> bool:
    return folder.is_dir() and any(content_kind(file) == "dicom" for file in folder.rglob("*") if file.is_file())


def _from_table(table: Path) -> list[SourceCase]:
    found = read_csv(table, required=("image", "label"), known=("case", "patient", "part"))
    if not found.rows:
        raise UserError(f"{table} has no rows below its header.\n  Write one row for each case.")
    return [_row(table, row.line, row.values) for row in found.rows]


def _row(table: Path, line: int, row: dict[str, str]) -> SourceCase:
    part = row.get("part") or ("train" if row["label"] else "test")
    if part not in ("train", "test"):
        raise UserError(f"{table}, line {line}: part is {part!r}, but must be train or test.")
    if part == "train" and not row["label"]:
        raise UserError(f"{table}, line {line}: a training case needs a label. Give it, or write test as its part.")
    if not row["image"]:
        raise UserError(f"{table}, line {line}: no image is given. Give it, or remove the row.")
    image = table.parent / row["image"]
    label = table.parent / row["label"] if row["label"] else None
    for path in filter(None, (image, label)):
        if not path.exists():
            raise UserError(f"{table}, line {line}: {path} does not exist. Paths are relative to the table.")
    name = _clean(row.get("case") or _CHANNEL.sub("", stem(image)))
    label = _object_in(label) if label and label.is_dir() else label
    source = LabelFile(label) if label else None
    return SourceCase(name, row.get("patient") or name, _image(image, label), source, test=part == "test")


def _image(path: Path, label: Path | None) -> VolumeSource:
    return DicomSeries(path, label) if path.is_dir() or is_zipfile(path) else FileVolume(path)


def _object_in(folder: Path) -> Path:
    """The segmentation among the DICOM files of a folder."""
    found = find_objects(folder)
    if len(found) != 1:
        raise UserError(
            f"{folder} contains {len(found)} DICOM SEGs or RT structure sets, but a case has one label map.\n"
            "  Name the file that counts in a CSV table with the columns image,label."
        )
    return found[0]


def _clean(name: str) -> str:
    """nnU-Net case names go into file names and regular expressions: letters, digits, dot, dash, underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)
