"""Check a folder of images in nnU-Net's layout before a model is loaded and a folder made."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import is_hidden
from nnunet_livseg.data.raw_dataset import RawDataset
from nnunet_livseg.imaging.grid import grid_differences, spelled
from nnunet_livseg.imaging.hounsfield import require_hounsfield
from nnunet_livseg.imaging.images import read_image


def require_images(folder: Path, dataset: RawDataset) -> dict[str, list[Path]]:
    """Files of every case, by channel; rejects what nnU-Net would not find, not read, or read as something else.

    Args:
        folder: Images ``CASE_0000.ending``, a file per channel.
        dataset: What the model was trained on.

    Raises:
        UserError: There is no such folder, or the first file that is missing, is named otherwise, is damaged, or holds
            no Hounsfield units.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}.\n  -i takes a folder of images named CASE_0000.nii.gz.")
    cases = _cases(folder, dataset)
    for paths in cases.values():
        first = None
        for channel, path in zip(dataset.channels, paths, strict=True):
            image = read_image(path).image
            if channel.casefold() == "ct":
                require_hounsfield(sitk.GetArrayViewFromImage(image), str(path), remedy="-1024 to its values")
            first = first or image
            if differences := grid_differences(image, first):
                raise UserError(
                    f"{path} is on another grid than {paths[0].name}, so a network would see different places of"
                    f" the patient.\n  {spelled(differences, path.name, paths[0].name)}\n"
                    "  Register the phases first: livseg align."
                )
    return cases


def _cases(folder: Path, dataset: RawDataset) -> dict[str, list[Path]]:
    """Files of every case, by channel."""
    wanted = f"CASE_0000{dataset.file_ending}"
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not is_hidden(path)]
    fitting = [path for path in files if path.name.endswith(dataset.file_ending)]
    named = {path: dataset.split_name(path) for path in fitting}
    names = sorted({case for case, _ in named.values() if case})
    if not names:
        there = f" (it has {files[0].name})" if files else ": it is empty"
        raise UserError(
            f"{folder} contains no image named {wanted}{there}.\n"
            "  The number is that of the channel, 0000 if there is one channel. livseg segment accepts any file name."
        )
    if wrong := [path.name for path, (case, _) in named.items() if not case]:
        raise UserError(
            f"{folder} contains {wrong[0]}, which is not named as {wanted}, and nnU-Net would cut its name in the wrong"
            " place.\n  Rename it, or move it away."
        )
    cases = {
        name: [folder / f"{name}_{channel:04d}{dataset.file_ending}" for channel in range(len(dataset.channels))]
        for name in names
    }
    for path in (path for paths in cases.values() for path in paths if not path.is_file()):
        raise UserError(
            f"{path} is missing, but the model needs {len(dataset.channels)} channels of every case.\n"
            "  Add it, or remove the case."
        )
    return cases


@contextmanager
def without_hidden_files(folder: Path) -> Iterator[Path]:
    """The folder, or one with links to its files where hidden ones would be taken for cases."""
    files = list(folder.iterdir())
    if not any(is_hidden(path) for path in files):
        yield folder
        return
    with TemporaryDirectory(prefix="livseg-") as other:
        for path in files:
            if not is_hidden(path):
                (Path(other) / path.name).symlink_to(path.absolute())
        yield Path(other)
