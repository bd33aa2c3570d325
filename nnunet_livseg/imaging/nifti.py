"""NIfTI files, written so that a full disk is noticed and read so that a truncated file is."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from nnunet_livseg.core.files import atomic_path

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # SimpleITK and DICOM count towards left and back, NIfTI right and front


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
        origin_mm: Centre of the first voxel (z, y, x), LPS as in SimpleITK.

    Raises:
        OSError: The disk is full, the folder cannot be written to.
    """
    import nibabel

    affine = np.diag([*spacing_mm[::-1], 1.0])
    affine[:3, 3] = origin_mm[::-1]
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.T), _LPS_TO_RAS @ affine)
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
    if not path.name.endswith((".nii", ".nii.gz")):
        return None
    import nibabel

    try:
        image = nibabel.load(path)
        expected = image.dataobj.offset + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
        found = _unpacked_size(path)
    except (OSError, EOFError, zlib.error, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        return f"it is damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return f"it ends after {found:,} of {expected:,} bytes" if found < expected else None


def not_finite(path: Path, array: np.ndarray) -> int:
    """Number of NaN and infinite voxels in the file ``path``, of which SimpleITK has read ``array``.

    In NIfTI files SimpleITK turns them into 0 without a word, so they are counted in the file.
    """
    if array.dtype.kind != "f":
        return 0
    if path.name.endswith((".nii", ".nii.gz")):
        import nibabel

        array = np.asanyarray(nibabel.load(path).dataobj)
    return int(array.size - np.isfinite(array).sum())


def _unpacked_size(path: Path) -> int:
    """Bytes in a file, unpacked; checks the checksum of a packed one."""
    if path.suffix != ".gz":
        return path.stat().st_size
    size = 0
    with gzip.open(path) as stream:
        while block := stream.read(1 << 22):
            size += len(block)
    return size
