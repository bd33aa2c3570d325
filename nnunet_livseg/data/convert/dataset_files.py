"""The files around the volumes of a raw dataset: ``dataset.json``, ``cases.csv``, ``splits_final.json``, record."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import nnunet_livseg
from nnunet_livseg.core.dataset_json import read_splits
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json, write_json, write_text
from nnunet_livseg.core.labels import LIVER_AND_TUMOR
from nnunet_livseg.core.names import share_a_number
from nnunet_livseg.core.nnunet_folders import folder as nnunet_folder
from nnunet_livseg.core.tables import csv_text
from nnunet_livseg.data.convert.convert_case import files_of
from nnunet_livseg.data.convert.source_cases import SourceDataset
from nnunet_livseg.data.splits import Split

_PREPROCESSED = "nnUNet_preprocessed"
RECORD = "conversion.json"
_PARTS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


def dataset_folder(raw: Path | None, dataset_id: int, name: str) -> Path:
    """``<raw>/DatasetXXX_Name``, rejecting ids and names that nnU-Net cannot handle.

    Args:
        raw: nnU-Net's raw folder; default: the environment variable ``nnUNet_raw``.

    Raises:
        UserError: No raw folder, id below 1 or taken by another dataset, impossible name.
    """
    raw = nnunet_folder("nnUNet_raw") if raw is None else raw
    if dataset_id < 1:
        raise UserError(f"--id {dataset_id}: nnU-Net's dataset numbers begin at 1.")
    if not re.fullmatch(r"[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*", name):
        raise UserError(
            f"--name {name!r}: use letters, digits, - and single _ only; nnU-Net splits folder names at double ones."
        )
    folder = raw / f"Dataset{dataset_id:03d}_{name}"
    names = [path.name for path in raw.iterdir() if path.is_dir()] if raw.is_dir() else []
    others = sorted(name for name in names if name != folder.name and share_a_number(name, folder.name))
    if others:
        raise UserError(
            f"--id {dataset_id} is taken by {raw / others[0]}: nnU-Net would find both by one number.\n"
            "  Choose another number, or give that dataset's --name."
        )
    return folder


def read_records(folder: Path) -> list[dict]:
    """Records of an earlier run, finished or not (none: an empty list)."""
    path = folder / RECORD
    if not path.is_file():
        return []
    return read_json(path, keys=("cases",), remedy="Delete it to convert everything again.")["cases"]


def write_records(folder: Path, records: Sequence[dict]) -> None:
    """Save what was done so far."""
    content = {
        "converted_by": f"nnunet_livseg {nnunet_livseg.__version__}",
        "cases": sorted(records, key=lambda r: r["case"]),
    }
    write_json(folder / RECORD, content)


def begin(folder: Path, records: Sequence[dict]) -> None:
    """Mark the folder as ours from its first file on, and as unfinished until ``finish``."""
    write_records(folder, records)
    (folder / "dataset.json").unlink(missing_ok=True)


def finish(folder: Path, records: Sequence[dict], splits: list[Split], source: SourceDataset, suffix: str) -> None:
    """Remove what an earlier run with other choices left, then write tables, splits and last ``dataset.json``."""
    _remove_leftovers(folder, records, {case.identifier for case in source.cases})
    write_records(folder, records)
    write_text(folder / "cases.csv", csv_text(_table(records, splits)))
    if splits:
        write_json(folder / "splits_final.json", splits)
    else:  # one patient, who can only be trained on
        (folder / "splits_final.json").unlink(missing_ok=True)
    write_json(folder / "dataset.json", _dataset_json(folder, records, source, suffix))


def _remove_leftovers(folder: Path, records: Sequence[dict], cases: set[str]) -> None:
    """Delete volumes of this source's cases that no record names: nnU-Net would take them for cases of the dataset."""
    wanted = {folder / file for record in records for file in files_of(record)}
    for path in [path for part in _PARTS for path in folder.glob(f"{part}/*") if path not in wanted]:
        if re.sub(r"(_\d{4})?\.nii(\.gz)?$", "", path.name) in cases:
            path.unlink()


def _dataset_json(folder: Path, records: Sequence[dict], source: SourceDataset, suffix: str) -> dict:
    return {
        # the name that makes nnU-Net keep the Hounsfield scale, whatever the phase
        "channel_names": {str(channel): "CT" for channel in range(len(source.phases))},
        "labels": LIVER_AND_TUMOR,
        "numTraining": sum(record["part"] == "Tr" for record in records),
        "file_ending": suffix,
        "overwrite_image_reader_writer": "SimpleITKIO",  # the reader that the files were checked with
        "name": folder.name,
        "description": source.description,
        "licence": source.licence,
        "converted_by": f"nnunet_livseg {nnunet_livseg.__version__}",
        **({"livseg": {"phases": list(source.phases)}} if len(source.phases) > 1 else {}),
    }


def _table(records: Sequence[dict], splits: list[Split]) -> list[dict]:
    fold_of = {case: fold for fold, split in enumerate(splits) for case in split["val"]}
    rows = []
    for record in records:
        single = "val" if record["case"] in fold_of else "train"
        part = "test" if record["part"] == "Ts" else single if len(splits) == 1 else "train"
        fold = fold_of.get(record["case"], "") if len(splits) > 1 else ""
        rows.append(
            {
                "case": record["case"],
                "patient": record["patient"],
                "part": part,
                "fold": fold,
                **dict(zip(("slices", "rows", "columns"), record["shape"], strict=True)),
                **dict(zip(("spacing_z_mm", "spacing_y_mm", "spacing_x_mm"), record["spacing_mm"], strict=True)),
                "orientation": record["orientation"],
                "liver_ml": record.get("liver_ml"),
                "tumor_ml": record.get("tumor_ml"),
                "image": record["image"]["how"],
                "label": record.get("label", {}).get("how"),
                "notes": "; ".join(record["notes"]),
            }
        )
    return rows


def conflicting_splits(dataset_name: str, splits: list[Split]) -> Path | None:
    """The preprocessed dataset's ``splits_final.json``, if it differs: nnU-Net's trainer would use that one."""
    preprocessed = os.environ.get(_PREPROCESSED)
    path = Path(preprocessed or "", dataset_name, "splits_final.json")
    if not preprocessed or not path.is_file():
        return None
    try:
        return None if read_splits(path) == splits else path
    except UserError:  # damaged: it differs, and the remedy is the same
        return path
