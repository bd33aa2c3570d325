"""NIfTI files, written so that a full disk is noticed and read so that nothing of a header is guessed.

SimpleITK reads truncated files, NaN and contradicting headers without a word, nibabel rejects others that are sound. So
``nifti_header`` reads the fields, and ITK reads only what it reads right; the rest is read here or rejected by name.
"""

import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path
from nnunet_livseg.imaging.grid import ROUNDING_VOXELS, ImageGrid, distance_mm
from nnunet_livseg.imaging.nifti_header import (
    LPS_TO_RAS,
    NiftiHeader,
    first_bytes,
    is_nifti,
    is_packed,
    opened,
    read_header,
)

_SKEW_TOLERANCE = 0.02  # largest |cosine| between two axes that is rounding of a header, not a shear
_CHUNK = 1 << 20
_MOST_PACKED = 1032  # bytes that gzip makes of one, at most
_GZIP = 31  # zlib's word for a stream in gzip's format


def write_nifti(
    path: str | Path,
    array: np.ndarray,
    *,
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float],
) -> None:
    """Write ``array (Z, Y, X)`` as an axis-parallel NIfTI image, whole or not at all, bit-identical for equal input.

    nibabel, not SimpleITK: ITK's NIfTI writer ignores failing writes and leaves a truncated file on a full disk.

    Args:
        path: Ends in ``.nii`` or ``.nii.gz``.
        array: Voxels, (Z, Y, X).
        spacing_mm: (z, y, x).
        origin_mm: Center of the first voxel (z, y, x), LPS as in SimpleITK.

    Raises:
        OSError: The disk is full, the folder cannot be written to.
    """
    import nibabel

    affine = np.diag([*spacing_mm[::-1], 1.0])
    affine[:3, 3] = origin_mm[::-1]
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.T), LPS_TO_RAS @ affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def damage(path: Path) -> str | None:
    """What is wrong with a NIfTI file as a file, or ``None``; other formats are left to their reader.

    SimpleITK reads truncated and corrupt NIfTI files without an error and fills the rest, so nnU-Net would train on
    half an image.
    """
    try:
        start = first_bytes(path)
    except (OSError, EOFError, zlib.error) as error:
        return f"it is damaged ({error})"
    if not is_nifti(start):
        return None
    header = read_header(path, start)
    try:
        found, expected = _unpacked_size(path), header.bytes_of_file
    except (OSError, EOFError, zlib.error) as error:
        return f"it is damaged ({error})"
    return f"it ends after {found:,} of {expected:,} bytes" if found < expected else None


def _could_be_whole(path: Path) -> bool:
    """Whether a NIfTI file is large enough for what its header says, unpacked."""
    try:
        expected = read_header(path, first_bytes(path)).bytes_of_file
    except (OSError, EOFError, zlib.error, UserError):
        return False
    return expected <= path.stat().st_size * (_MOST_PACKED if is_packed(path) else 1)


def _unpacked_size(path: Path) -> int:
    """Bytes of the unpacked content; checks the checksums of packed content. What hangs behind it does not count.

    Raises:
        EOFError, OSError, zlib.error: Packed content that is damaged or not whole.
    """
    if not is_packed(path):
        return path.stat().st_size
    size, unpacker = 0, zlib.decompressobj(_GZIP)
    with path.open("rb") as file:
        data = file.read(_CHUNK)
        while data:
            size += len(unpacker.decompress(data, _CHUNK))
            data = unpacker.unconsumed_tail or (b"" if unpacker.eof else file.read(_CHUNK))
            if unpacker.eof:
                data = unpacker.unused_data or file.read(_CHUNK)
                if not data.startswith(b"\x1f\x8b"):
                    return size
                unpacker = zlib.decompressobj(_GZIP)
    size += len(unpacker.flush())
    if not unpacker.eof:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")
    return size


def read_while_checking(path: Path) -> tuple[str | None, Callable[[], tuple[sitk.Image, list[str]]]]:
    """``damage``, and a call that gives what ``read_nifti`` does; at the same time, because both unpack the file."""
    if not _could_be_whole(path):  # ITK would take memory for what the header says
        return damage(path), partial(read_nifti, path)
    with ThreadPoolExecutor(2) as pool:
        trouble, image = pool.submit(damage, path), pool.submit(read_nifti, path)
    return trouble.result(), image.result


def read_nifti(path: Path) -> tuple[sitk.Image, list[str]]:
    """The image of a NIfTI-1 file without ``damage``, on the grid that its header means, and what was corrected.

    Raises:
        UserError: The field of the header that cannot be trusted.
    """
    header = read_header(path, first_bytes(path))
    if header.is_color:
        raise UserError(
            f"{path} has {header.bitpix // 8} values per voxel (color or vectors).\n"
            "  A CT or a label map has one. Save one channel."
        )
    header.type_of(path)
    affine, notes = header.affine_mm(path)
    scale_notes = header.scale_notes(path)
    misread = scale_notes or min(header.sizes_mm) < 0 or header.not_numbers
    image, skew_notes = (None, []) if misread else _read_by_itk(path, header)
    notes = [*notes, *scale_notes, *skew_notes]
    if image is not None and (affine is None or image.GetDimension() != 3 or len(header.shape) != 3):
        return image, notes
    if affine is None or len(header.shape) != 3:
        raise UserError(f"{path} cannot be read, because its header is unusual. Export the volume again as NIfTI-1.")
    grid = _right_angled(path, affine, header.shape)
    if image is not None:
        apart_mm = distance_mm(image, grid)
        if apart_mm <= ROUNDING_VOXELS * min(grid.spacing_mm):
            return image, notes
        if not notes:
            notes.append(
                f"the header's affine lies up to {apart_mm:.3g} mm from where SimpleITK reads it; the affine was used"
            )
    return _placed(_scaled(path, header), grid), notes


def _read_by_itk(path: Path, header: NiftiHeader) -> tuple[sitk.Image | None, list[str]]:
    """What ITK reads; nothing and a note where axes are not exactly at right angles, which it rejects."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # remarks about sforms; what matters is said here
    try:
        with named_as(path, ".nii.gz" if header.packed else ".nii") as fitting:
            return sitk.ReadImage(str(fitting)), []
    except RuntimeError as error:
        if "orthonormal" in str(error):
            return None, ["axes not exactly at right angles; nearest right-angled axes used"]
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(
            f"{path} cannot be read as a volume.\n  The reader said: {reason}\n  Export it again."
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _right_angled(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> ImageGrid:
    """The grid of an affine, with the nearest right-angled axes and positive spacing."""
    affine = LPS_TO_RAS @ affine  # its own inverse
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / spacing_mm
    skew = np.abs(axes.T @ axes - np.eye(3)).max()
    if skew > _SKEW_TOLERANCE:
        degrees = np.degrees(np.arcsin(min(skew, 1.0)))
        raise UserError(
            f"{path}: the axes are sheared by {degrees:.1f} degrees, so voxels are not boxes (gantry tilt?).\n"
            "  Resample the volume onto right-angled axes first, or convert the DICOM series: livseg dicom convert."
        )
    left, _, right = np.linalg.svd(axes)
    direction = tuple((left @ right).ravel().tolist())
    return ImageGrid(shape, tuple(spacing_mm.tolist()), tuple(affine[:3, 3].tolist()), direction)


def _placed(values: np.ndarray, grid: ImageGrid) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    return image


def _stored(path: Path, header: NiftiHeader) -> np.ndarray:
    """Voxels as stored ``(z, y, x)``."""
    with opened(path) as stream:
        stream.seek(int(header.vox_offset))
        raw = stream.read(int(np.prod(header.shape)) * header.bitpix // 8)
    stored = np.frombuffer(raw, header.type_of(path)).reshape(header.shape[::-1])
    return stored.astype(stored.dtype.newbyteorder("="))


def _scaled(path: Path, header: NiftiHeader) -> np.ndarray:
    stored = _stored(path, header)
    slope, intercept = header.scale
    if (slope, intercept) == (1.0, 0.0):
        return stored
    return (stored * np.float64(slope) + intercept).astype(np.float32)


def not_finite(path: Path, array: np.ndarray) -> int:
    """Number of NaN and infinite voxels in the file ``path``, of which SimpleITK has read ``array``.

    In NIfTI files SimpleITK turns them into 0 without a word, so they are counted in the file.
    """
    if array.dtype.kind != "f":
        return 0
    start = first_bytes(path)
    if is_nifti(start) and (header := read_header(path, start)).type_of(path).kind == "f":
        array = _stored(path, header)
    return int(array.size - np.isfinite(array).sum())


@contextmanager
def named_as(path: Path, ending: str) -> Iterator[Path]:
    """A path to the same content whose name ends so; readers choose a format by the name, in small letters.

    It is UTF-8: at any other path, such as one of an old file server, SimpleITK ends the process.
    """
    if path.name.endswith(ending) and is_utf8(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="livseg-") as folder:
        other = Path(folder) / f"image{only_utf8(ending)}"
        try:
            other.symlink_to(path.absolute())
        except OSError:  # a system without links
            shutil.copyfile(path, other)
        yield other


@contextmanager
def utf8_folder(folder: Path) -> Iterator[Path]:
    """A path in UTF-8 to the same folder, to write into; see ``named_as``."""
    if is_utf8(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="livseg-") as place:
        other = Path(place) / "folder"
        other.symlink_to(folder.absolute())
        yield other


def is_utf8(path: Path) -> bool:
    """Whether the names of ``path`` and of the folders in it are UTF-8."""
    return only_utf8(str(path)) == str(path)


def only_utf8(text: str) -> str:
    """``text`` without the bytes of a file name that are not UTF-8."""
    return text.encode(errors="ignore").decode()
