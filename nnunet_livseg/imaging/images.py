"""Reading one CT or label volume, refusing what cannot be trusted.

Damage that ITK reads without an error (truncation, NaN) is looked for in the file itself. Negative voxel sizes and
slightly skewed axes, both found in published data sets, are put right and noted; everything else that is not one scalar
3D volume is refused.
"""

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path
from nnunet_livseg.imaging.nifti import damage, not_finite

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_NIFTI = (".nii.gz", ".nii")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
_SKEW_TOLERANCE = 0.02  # largest |cosine| between two axes that is rounding of a header, not a shear


class WriteError(UserError):
    """A file could not be written completely; going on with other files would not help."""


@dataclass(frozen=True)
class Volume:
    """A volume as read.

    Args:
        image: Scalar 3D image.
        repairs: What of the header had to be put right; a file with repairs must be rewritten, not linked.
    """

    image: sitk.Image
    repairs: list[str] = field(default_factory=list)


def ending(path: Path) -> str:
    """The volume ending of ``path`` in lower case, or an empty string."""
    return next((end for end in ENDINGS if path.name.lower().endswith(end)), "")


def is_no_dicom(path: Path) -> bool:
    """Whether the name is that of a volume or a picture file."""
    return path.name.lower().endswith((*ENDINGS, *_PICTURES))


def stem(path: Path) -> str:
    """File name without its volume ending."""
    return path.name[: len(path.name) - len(ending(path))] if ending(path) else path.stem


def read_volume(path: str | Path) -> Volume:
    """Read a scalar 3D volume (NIfTI, NRRD, MetaImage).

    Raises:
        UserError: The file is missing, empty, truncated, no volume, 2D, 4D, in colour, or its axes are sheared.
    """
    path = Path(path)
    _check_file(path)
    _check_ending(path)
    volume = read_scan(path)
    size = volume.image.GetSize()
    if len(size) < 3 or size[2] == 1:
        raise UserError(f"{path} is one 2D slice {size[:2]}, but a volume is needed.")
    return volume


def read_scan(path: str | Path) -> Volume:
    """Read a scalar volume or 2D image of any format that ITK reads: nnU-Net has datasets of slices and of pictures.

    Raises:
        UserError: As ``read_volume``, but for 2D images and other formats.
    """
    path = Path(path)
    _check_file(path)
    sizes_mm = _stored_voxel_sizes(path) if ending(path) in _NIFTI else []
    if any(size < 0 for size in sizes_mm):
        image = _read_with_affine(path)
        return _checked(path, image, [f"negative voxel size {sizes_mm} mm in the header; the affine was used instead"])
    try:
        return _checked(path, sitk.ReadImage(str(path)), [])
    except RuntimeError as error:
        if "orthonormal" in str(error) and ending(path) in _NIFTI:
            image = _read_with_affine(path)
            return _checked(path, image, ["axes not exactly at right angles; nearest right-angled axes taken"])
        raise UserError(
            f"{path} cannot be read as a volume.\n  The reader said: {_last_line(error)}\n"
            "  Unpack or download the file again."
        ) from error


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(
            f"{path} is a folder, but one volume file was expected ({', '.join(ENDINGS)}).\n"
            "  Of a DICOM series make one first: livseg dicom convert"
        )
    if not path.exists():
        broken = " (a link to something that is gone)" if path.is_symlink() else ""
        raise UserError(f"{path} does not exist{broken}.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes). Copy or download it again.")


def _check_ending(path: Path) -> None:
    if path.name.lower().endswith(_PICTURES):
        raise UserError(
            f"{path} is a picture: it holds grey or colour values of one slice, neither Hounsfield units nor spacing.\n"
            f"  Give volumes ({', '.join(ENDINGS)}) or the DICOM series that the picture was made from."
        )
    if not ending(path):
        raise UserError(f"{path}: files ending in {path.suffix!r} are not read. Volumes end in {', '.join(ENDINGS)}.")


def _stored_voxel_sizes(path: Path) -> list[float]:
    """The header's voxel sizes in mm with their signs, of a NIfTI file that is all there."""
    if trouble := damage(path):
        raise UserError(
            f"{path}: {trouble}.\n"
            "  Copy or download it again. (Readers do not complain: they fill what is missing with noise or zeros.)"
        )
    sizes_mm = _raw_voxel_sizes(path)
    if any(size == 0 or not np.isfinite(size) for size in sizes_mm):
        raise UserError(f"{path}: the header gives voxel sizes {sizes_mm} mm; none may be 0. Write them again.")
    return sizes_mm


def _raw_voxel_sizes(path: Path) -> list[float]:
    """``pixdim[1:4]`` as stored; nibabel and ITK both take absolute values, each in its own way."""
    opened = gzip.open if ending(path) == ".nii.gz" else open
    with opened(path, "rb") as file:
        raw = file.read(108)
    order = "<" if int.from_bytes(raw[:4], "little") == 348 else ">"
    return [round(float(size), 6) for size in np.frombuffer(raw[80:92], dtype=f"{order}f4")]


def _read_with_affine(path: Path) -> sitk.Image:
    """Read a NIfTI through its affine, with the nearest right-angled axes and positive spacing."""
    import nibabel

    nifti = nibabel.load(path)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ nifti.affine  # NIfTI points right and front, ITK left and back
    columns = affine[:3, :3]
    spacing_mm = np.linalg.norm(columns, axis=0)
    if not spacing_mm.all():
        raise UserError(f"{path}: the header's affine is singular, so positions are lost. Write the header again.")
    axes = columns / spacing_mm
    skew = np.abs(axes.T @ axes - np.eye(3)).max()
    if skew > _SKEW_TOLERANCE:
        degrees = np.degrees(np.arcsin(min(skew, 1.0)))
        raise UserError(
            f"{path}: the axes are sheared by {degrees:.1f} degrees, so voxels are no boxes (gantry tilt?).\n"
            "  Resample the volume onto right-angled axes first, or convert the DICOM series: livseg dicom convert."
        )
    left, _, right = np.linalg.svd(axes)
    image = sitk.GetImageFromArray(np.asanyarray(nifti.dataobj).T)
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((left @ right).flatten().tolist())
    return image


def _checked(path: Path, image: sitk.Image, repairs: list[str]) -> Volume:
    size = image.GetSize()
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise UserError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} values per voxel (colour or vectors).\n"
            "  A CT or a label map has one. Save one channel."
        )
    if len(size) == 4 and size[3] == 1:
        return _checked(path, image[:, :, :, 0], [*repairs, "fourth dimension of length 1 removed"])
    if len(size) == 4:
        raise UserError(
            f"{path} is 4D: {size[3]} volumes in one file.\n"
            "  Save each phase as its own file; `livseg align` makes a multi-phase data set of them."
        )
    if bad := not_finite(path, sitk.GetArrayViewFromImage(image)):
        raise UserError(f"{path}: {bad:,} voxels are NaN or infinite. Replace them by air (-1024) or background.")
    return Volume(image, repairs)


def on_grid(values: np.ndarray, grid: sitk.Image) -> sitk.Image:
    """``values (z, y, x)``, or ``(y, x)``, as an image with the geometry of ``grid``."""
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(grid)
    return image


def require_place(folder: Path) -> None:
    """Refuse an output folder whose path leads through a file."""
    blocking = next((place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()), None)
    if blocking:
        raise UserError(f"{folder} cannot be a folder, because {blocking} is a file. Choose another place.")


def require_volume_name(path: Path) -> None:
    """Refuse an output name that no volume can have, before any work is done."""
    if not ending(path):
        raise UserError(f"{path}: the output must end in one of {', '.join(ENDINGS[:4])}.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write.")
    require_place(path.parent)


def write_volume(image: sitk.Image, path: str | Path) -> None:
    """Write a volume whole or not at all, compressed.

    Raises:
        WriteError: It could not be written completely; ITK alone does not always notice a full disk.
    """
    path = Path(path)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            trouble = damage(temporary)
        except RuntimeError as error:
            trouble = error
        if trouble:
            raise WriteError(
                f"{path} could not be written completely. Is the disk full, or a quota reached?\n"
                "  Nothing incomplete was kept. Make room and run the same command again."
            )
