"""nnU-Net raw datasets: found by id, name or folder, and read without torch."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import dataset_id, is_dataset_name
from nnunet_livseg.core.nnunet_folders import find_dataset

REQUIRED_KEYS = ("channel_names", "labels", "numTraining", "file_ending")
LIVER_NAMES = ("liver",)
TUMOR_NAMES = ("tumor", "tumour", "tumors", "tumours", "lesion", "lesions", "cancer", "hcc", "metastasis", "metastases")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True)
class RawCase:
    """Files of one training case; they need not exist.

    Args:
        name: Identifier of the case.
        images: File of each channel, in order.
        label: Label map.
    """

    name: str
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class RawDataset:
    """A folder ``DatasetNNN_Name`` with its ``dataset.json``.

    Args:
        folder: The folder.
        json: Content of ``dataset.json``.
    """

    folder: Path
    json: dict

    @classmethod
    def open(cls, folder: str | Path) -> "RawDataset":
        """Read ``dataset.json`` of ``folder``.

        Raises:
            UserError: The file is missing, is no JSON, or lacks what nnU-Net needs.
        """
        folder = Path(folder).absolute()
        return cls(folder, read_dataset_json(folder))

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def id(self) -> int | None:
        """The number in the name; ``None`` if the folder is not named as nnU-Net wants it."""
        return dataset_id(self.name) if is_dataset_name(self.name) else None

    @cached_property
    def channels(self) -> list[str]:
        """Names of the channels, in order."""
        names = self.json["channel_names"]
        return [str(names[key]) for key in sorted(names, key=int)]

    @property
    def labels(self) -> dict[str, int | list[int]]:
        """Label values by name; a region has several values."""
        return self.json["labels"]

    @property
    def file_ending(self) -> str:
        """Ending of images and label maps, with the dot."""
        return self.json["file_ending"]

    @property
    def ignore_label(self) -> int | None:
        """Value of voxels that are not annotated."""
        return self.labels.get("ignore")

    @property
    def has_regions(self) -> bool:
        """Whether nnU-Net would train regions instead of labels."""
        return any(isinstance(value, list | tuple) and len(value) > 1 for value in self.labels.values())

    def values_of(self, names: tuple[str, ...]) -> set[int]:
        """Label values of the first label whose name is one of ``names`` (any case, also ``liver tumor``), or empty."""
        for label, value in self.labels.items():
            words = re.findall(r"[a-z]+", label.lower()) or [""]
            # "liver_tumor" is a tumor, not a liver: the last word decides
            if words[-1] in names or label.lower() in names:
                return {v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)}
        return set()

    @property
    def liver_values(self) -> set[int]:
        """Label values that are liver (with the tumors where ``liver`` is a region)."""
        return self.values_of(LIVER_NAMES)

    @property
    def tumor_values(self) -> set[int]:
        """Label values that are tumor."""
        return self.values_of(TUMOR_NAMES)

    def cases(self) -> list[RawCase]:
        """Training cases, by name, as nnU-Net finds them (or as the key ``dataset`` of ``dataset.json`` lists them)."""
        if "dataset" in self.json:
            return [self._listed_case(name, files) for name, files in sorted(self.json["dataset"].items())]
        names = sorted({case for case, _ in map(self.split_name, self.files("imagesTr")) if case})
        return [self.case(name) for name in names]

    def case(self, name: str, *, split: str = "Tr") -> RawCase:
        """Where the files of case ``name`` belong; ``split`` is ``"Tr"`` or ``"Ts"``."""
        images = (f"{name}_{channel:04d}{self.file_ending}" for channel in range(len(self.channels)))
        paths = tuple(self.folder / f"images{split}" / file for file in images)
        return RawCase(name, paths, self.folder / f"labels{split}" / f"{name}{self.file_ending}")

    def _listed_case(self, name: str, files: dict) -> RawCase:
        def place(text: str) -> Path:
            return self.folder / os.path.expandvars(text)

        return RawCase(name, tuple(place(text) for text in files["images"]), place(files["label"]))

    def files(self, subfolder: str) -> list[Path]:
        """Files with the dataset's ending in ``subfolder``, sorted, none of macOS's; empty without the folder."""
        return [path for path in self._all_files(subfolder) if not path.name.startswith("._")]

    def hidden_files(self, subfolder: str) -> list[Path]:
        """Hidden files with the dataset's ending (``._a.nii.gz`` of macOS), which nnU-Net takes for cases."""
        return [path for path in self._all_files(subfolder) if path.name.startswith("._")]

    def _all_files(self, subfolder: str) -> list[Path]:
        folder = self.folder / subfolder
        return sorted(p for p in folder.iterdir() if p.name.endswith(self.file_ending)) if folder.is_dir() else []

    def split_name(self, path: Path) -> tuple[str | None, int | None]:
        """Case and channel of an image file; both ``None`` if it is not named ``CASE_0000.ending``."""
        match = _CHANNEL.fullmatch(path.name.removesuffix(self.file_ending))
        return (match["case"], int(match["channel"])) if match else (None, None)


def read_dataset_json(folder: Path) -> dict:
    """Content of ``dataset.json`` with the keys and types that everything else rests on.

    Raises:
        UserError: The file is missing, is no JSON, or lacks what nnU-Net needs.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        raise UserError(
            f"{folder.name}: there is no dataset.json, so nnU-Net does not know channels and labels.\n"
            f"  Write {path} with the keys {', '.join(REQUIRED_KEYS)}."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{folder.name}: dataset.json is not valid JSON: {error}.\n  Correct {path}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{folder.name}: dataset.json holds no object but {type(content).__name__}.\n  Correct {path}.")
    _check_keys(folder, path, content)
    return content


def _check_keys(folder: Path, path: Path, content: dict) -> None:
    missing = [key for key in REQUIRED_KEYS if key not in content]
    if missing:
        hint = ' (nnU-Net v1 called it "modality")' if "channel_names" in missing and "modality" in content else ""
        raise UserError(
            f"{folder.name}: dataset.json lacks {' and '.join(missing)}{hint}, and nnU-Net will not start without.\n"
            f"  Add to {path}; an example: nnunet_livseg's docs/phantom.md."
        )
    kinds = {"channel_names": dict, "labels": dict, "file_ending": str, "numTraining": int}
    for key, kind in kinds.items():
        if not isinstance(content[key], kind) or (kind is not int and not content[key]):
            raise UserError(
                f"{folder.name}: {key} in dataset.json is {json.dumps(content[key])}, which is no"
                f" {'filled object' if kind is dict else kind.__name__}.\n  Correct {path}."
            )
    if any(not str(key).isdigit() for key in content["channel_names"]):
        raise UserError(
            f"{folder.name}: channel_names in dataset.json has the keys {', '.join(content['channel_names'])};"
            f' nnU-Net wants "0", "1", ... with the names as values.\n  Correct {path}, for one CT: {{"0": "CT"}}.'
        )


def find_raw_folder(name_or_id: str | int | Path) -> Path:
    """Folder of a raw dataset given by folder, name (``Dataset003_Liver``) or id (``3``).

    Raises:
        UserError: There is none, or several have the id; the message names the closest.
    """
    text = str(name_or_id)
    if os.sep in text or isinstance(name_or_id, Path) or (Path(text).is_dir() and not text.isdigit()):
        if not Path(text).is_dir():
            raise UserError(f"there is no folder {text}.\n  Give the folder of a raw dataset, its name or its id.")
        return Path(text).absolute()
    return find_dataset(text, "nnUNet_raw")


def find_raw_dataset(name_or_id: str | int | Path) -> RawDataset:
    """Open a raw dataset given by folder, name or id.

    Raises:
        UserError: There is none, several have the id, or its ``dataset.json`` cannot be used.
    """
    return RawDataset.open(find_raw_folder(name_or_id))


def channel_names(content: Mapping[str, Any]) -> list[str]:
    """Names of the channels in a ``dataset.json``; nnU-Net reads v1's ``modality`` as well."""
    return list((content.get("channel_names") or content["modality"]).values())
