"""nnU-Net raw datasets: found by id, name or folder, and read without torch."""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nnunet_livseg.core.dataset_json import FILE, DatasetJson, read_dataset_json
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import Structures
from nnunet_livseg.core.names import dataset_id, is_dataset_name
from nnunet_livseg.core.nnunet_folders import find_dataset

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
        return cls(folder, dict(read_dataset_json(folder).content))

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def id(self) -> int | None:
        """The number in the name; ``None`` if the folder is not named as nnU-Net wants it."""
        return dataset_id(self.name) if is_dataset_name(self.name) else None

    @cached_property
    def described(self) -> DatasetJson:
        """What ``dataset.json`` says."""
        return DatasetJson(self.folder / FILE, self.json)

    @property
    def channels(self) -> list[str]:
        """Names of the channels, in order."""
        return self.described.channels

    @property
    def labels(self) -> dict[str, int | list[int]]:
        """Label values by name; a region has several values."""
        return self.described.labels

    @property
    def structures(self) -> Structures:
        """What the labels mean; see ``DatasetJson.structures``."""
        return self.described.structures

    @property
    def file_ending(self) -> str:
        """Ending of images and label maps, with the dot."""
        return self.described.file_ending

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


def raw_case_names(dataset: str) -> set[str] | None:
    """The training cases of a raw dataset, given by number or name; ``None`` if it is not here."""
    try:
        return {case.name for case in RawDataset.open(find_dataset(dataset, "nnUNet_raw")).cases()}
    except UserError:
        return None
