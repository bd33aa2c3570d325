"""Writing NIfTI images so that a full disk is noticed."""

from pathlib import Path

import numpy as np

from nnunet_livseg.files import atomic_path

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
