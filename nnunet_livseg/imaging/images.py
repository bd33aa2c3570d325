"""Read one CT or label volume, and reject what cannot be trusted.

Damage that ITK reads without an error (truncation, NaN) is looked for in the file itself. Negative voxel sizes and
slightly skewed axes, both found in published datasets, are put right and noted; everything else that is not one scalar
3D volume is rejected.
"""

import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError, WriteError
from nnunet_livseg.core.files import atomic_path, is_full, why_no_bytes
from nnunet_livseg.core.names import ENDINGS, VOLUME_ENDINGS, ending, is_hidden
from nnunet_livseg.imaging.nifti import damage, named_as, not_finite, only_utf8, read_while_checking, utf8_folder
from nnunet_livseg.imaging.nifti_header import first_bytes

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
_VOLUMES = {
    "nifti": "",
    "nifti2": "",
    "nrrd": ".nrrd",
    "meta": ".mha",
    "gipl": ".gipl",
}  # content, and a name to read by

_PICTURE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM")
_GIPL = (b"\xef\xff\xe9\xb0", b"\x2a\xe3\x89\xb8")  # at byte 252

_BASE_BYTES = 300_000_000  # interpreter and libraries


class UnreadableError(UserError):
    """A file that is damaged or not an image; ``reason`` says which."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class LoadedImage:
    """A volume or 2D image as read.

    Args:
        image: Scalar image.
        notes: What of the header had to be put right; a file with notes must be rewritten, not linked.
    """

    image: sitk.Image
    notes: list[str] = field(default_factory=list)


def content_kind(path: Path) -> str:
    """``nifti``, ``nifti2``, ``nrrd``, ``meta``, ``gipl``, ``picture``, ``dicom``, or empty: none of them."""
    try:
        start = first_bytes(path)
    except (OSError, EOFError, zlib.error):
        return ""
    if start[344:347] == b"n+1":
        return "nifti"
    if start[4:7] in (b"n+2", b"ni2") and 540 in (int.from_bytes(start[:4], order) for order in ("little", "big")):
        return "nifti2"
    if start[128:132] == b"DICM":
        return "dicom"
    if start.startswith(b"NRRD"):
        return "nrrd"
    if start.lstrip()[:10] in (b"ObjectType", b"NDims = 3\n", b"NDims = 2\n"):
        return "meta"
    if start[252:256] in _GIPL:
        return "gipl"
    return "picture" if start.startswith(_PICTURE_STARTS) else ""


def list_volumes(folder: Path) -> list[Path]:
    """Volume files of a folder by name, hidden ones passed over."""
    return [path for path in sorted(folder.iterdir()) if ending(path) and not is_hidden(path) and path.is_file()]


def is_no_dicom(path: Path) -> bool:
    """Whether a file is a volume or a picture, by its content, or by its name where that tells nothing."""
    kind = content_kind(path) if path.is_file() else ""
    return kind in (*_VOLUMES, "picture") or (not kind and path.name.lower().endswith((*VOLUME_ENDINGS, *_PICTURES)))


def read_volume(path: str | Path) -> LoadedImage:
    """Read a scalar 3D volume (NIfTI, NRRD, MetaImage, GIPL), known by its content, whatever its name.

    Raises:
        UserError: The file is missing, empty, truncated, no volume, 2D, 4D, in color, sheared, or the fields of its
            header contradict each other.
    """
    path = Path(path)
    _check_file(path)
    kind = content_kind(path)
    if kind not in _VOLUMES:
        _check_ending(path, kind)
    volume = read_image(path)
    size = volume.image.GetSize()
    if len(size) < 3 or size[2] == 1:
        raise UserError(f"{path} is one 2D slice {size[:2]}, but a volume is needed. Give the whole CT or label map.")
    return volume


def read_image(path: str | Path) -> LoadedImage:
    """Read a scalar volume or 2D image of any format that ITK reads: nnU-Net has datasets of slices and of pictures.

    Raises:
        UserError: As ``read_volume``, but for 2D images and other formats.
    """
    path = Path(path)
    return _checked(path, *load_image(path))


def load_image(path: Path) -> tuple[sitk.Image, list[str]]:
    """An image of any format, dimension and voxel type, known by its content, and what was corrected in its header.

    Raises:
        UnreadableError: The file is damaged, or no image.
        UserError: It is missing, or its header cannot be trusted.
    """
    _check_file(path)
    kind = content_kind(path)
    if kind == "nifti2":
        raise UserError(f"{path} is NIfTI-2, which SimpleITK and nnU-Net do not read. Save it as NIfTI-1.")
    if kind == "dicom":
        raise UserError(
            f"{path} is a DICOM file, although its name says otherwise.\n"
            "  Convert the series to a volume first: livseg dicom convert"
        )
    trouble, read = read_while_checking(path) if kind == "nifti" else ("", None)
    if not kind and ending(path) in (".nii", ".nii.gz"):
        trouble = damage(path) or _no_nifti(path)
    if trouble:
        raise UnreadableError(
            f"{path}: {trouble}.\n"
            "  Copy or download it again. Other readers may open it without an error and fill the missing part with"
            " zeros or noise.",
            trouble,
        )
    if read is not None:
        return read()
    known = ending(path) == ".mhd" or not _VOLUMES.get(kind)  # .mhd has its voxels in a file beside it
    try:
        with named_as(path, path.suffix if known else _VOLUMES[kind]) as fitting:
            return sitk.ReadImage(str(fitting)), []
    except RuntimeError as error:
        raise UnreadableError(
            f"{path} cannot be read as a volume.\n  The reader said: {_last_line(error)}\n"
            "  Unpack or download the file again.",
            _last_line(error),
        ) from error


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _no_nifti(path: Path) -> str:
    """What is in a file with a NIfTI's name that is none."""
    with path.open("rb") as file:
        start = file.read(16)
    return f"it is damaged, or not a NIfTI file (it begins with {start!r})"


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(
            f"{path} is a folder, but one volume file was expected ({', '.join(ENDINGS)}).\n"
            "  Convert a DICOM series to a volume first: livseg dicom convert"
        )
    if not path.exists():
        broken = " (the file behind this link is gone)" if path.is_symlink() else ""
        raise UnreadableError(f"{path} does not exist{broken}.", f"it does not exist{broken}")
    if path.stat().st_size == 0:
        raise UnreadableError(f"{path} is empty (0 bytes). Copy or download it again.", "it is empty (0 bytes)")
    if path.name.startswith("._"):
        raise UserError(f"{path} is a hidden file of macOS, not the volume {path.name[2:]}. Delete it.")


def _check_ending(path: Path, kind: str) -> None:
    if kind == "picture" or path.name.lower().endswith(_PICTURES):
        raise UserError(
            f"{path} is a picture: it contains gray or color values of one slice, neither Hounsfield units nor"
            f" spacing.\n  Give volumes ({', '.join(ENDINGS)}) or the DICOM series that the picture was made from."
        )
    if not ending(path) and kind != "dicom":
        raise UserError(f"{path}: files ending in {path.suffix!r} are not read. Volumes end in {', '.join(ENDINGS)}.")


def without_fourth_axis(image: sitk.Image, notes: list[str]) -> tuple[sitk.Image, list[str]]:
    """The image without a fourth dimension of length 1, and the notes with one about that."""
    if image.GetDimension() < 4 or image.GetSize()[3] != 1:
        return image, notes
    return image[:, :, :, 0], [*notes, "fourth dimension of length 1 removed"]


def _checked(path: Path, image: sitk.Image, notes: list[str]) -> LoadedImage:
    image, notes = without_fourth_axis(image, notes)
    size = image.GetSize()
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise UserError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} values per voxel (color or vectors).\n"
            "  A CT or a label map has one. Save one channel."
        )
    if len(size) == 4:
        raise UserError(
            f"{path} is 4D: {size[3]} volumes in one file.\n"
            "  Save each phase as its own file; `livseg align` makes a multi-phase dataset of them."
        )
    if bad := not_finite(path, sitk.GetArrayViewFromImage(image)):
        raise UserError(f"{path}: {bad:,} voxels are NaN or infinite. Replace them by air (-1024) or background.")
    return LoadedImage(image, notes)


def on_grid(values: np.ndarray, grid: sitk.Image) -> sitk.Image:
    """``values (z, y, x)``, or ``(y, x)``, as an image with the geometry of ``grid``."""
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(grid)
    return image


def write_volume(image: sitk.Image, path: str | Path) -> None:
    """Write a volume whole or not at all, compressed.

    Raises:
        WriteError: It could not be written completely; ITK alone does not always notice a full disk.
    """
    path = Path(path)
    with atomic_path(path) as temporary, utf8_folder(temporary.parent) as folder:
        end = ending(path) or path.suffix
        lower = folder / only_utf8(temporary.name[: len(temporary.name) - len(end)] + end.lower())  # as ITK knows it
        try:
            sitk.WriteImage(image, str(lower), useCompression=True)
            trouble = damage(lower)
            if ending(path) in (".nii", ".nii.gz") and content_kind(lower) != "nifti":
                trouble = "the file has no header"
            if not trouble:
                lower.replace(temporary)
        except (RuntimeError, UserError) as error:
            trouble = _last_line(error)
        finally:
            if lower.name != temporary.name:
                lower.unlink(missing_ok=True)
        if trouble:
            raise WriteError(_why_not_written(path, str(trouble)))


def _why_not_written(path: Path, trouble: str) -> str:
    """The system's own reason, asked for by writing there: ITK does not hand it on."""
    why = why_no_bytes(path.parent)
    if not why:
        return f"{path} could not be written: {trouble}\n  Nothing incomplete was kept."
    question, remedy = " Is the disk full, or a quota reached?", "Make room"
    if not is_full(why):
        question, remedy = "", "Check the folder and its permissions"
    return (
        f"{path} could not be written completely: {why}.{question}\n"
        f"  Nothing incomplete was kept. {remedy} and run the same command again."
    )


def case_memory_bytes(path: Path) -> int:
    """Estimate of the peak memory of one case from a file's header; bytes of 512 x 512 x 500 voxels take 1 GB."""
    reader = sitk.ImageFileReader()
    try:
        with named_as(path, path.suffix) as fitting:
            reader.SetFileName(str(fitting))
            reader.ReadImageInformation()
    except RuntimeError:  # the case itself will say so
        return _BASE_BYTES
    name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    itemsize = next((int(bits) // 8 for bits in ("64", "32", "16") if bits in name), 1)
    return _BASE_BYTES + math.prod(reader.GetSize()) * (4 + 4 * itemsize)
