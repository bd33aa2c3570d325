"""The forms in which a CT is given: DICOM folders and zips, volume files, images of SimpleITK and nibabel, arrays.

Everything becomes a scalar 3D SimpleITK image in Hounsfield units on its own grid, which a model then can or cannot
take.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import is_zipfile

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import ending, file_name, is_hidden, stem
from nnunet_livseg.data.dicom.reading import SeriesInfo, read_series
from nnunet_livseg.data.dicom.study_files import opened_folder
from nnunet_livseg.imaging.grid import distance_mm, grid_differences
from nnunet_livseg.imaging.hounsfield import require_hounsfield
from nnunet_livseg.imaging.images import is_no_dicom, list_volumes, read_volume
from nnunet_livseg.inference.trained_model import TrainedModel

_TEXTS = (".json", ".txt", ".csv", ".md", ".pkl")


@dataclass(frozen=True)
class CTInput:
    """A CT as read.

    Args:
        name: Short name, safe as a file name; of DICOM a digest of the series, because its paths may name the patient.
        images: One per channel, on one grid.
        series: The DICOM series of the first channel.
        notes: What was put right while reading.
    """

    name: str
    images: tuple[sitk.Image, ...]
    series: SeriesInfo | None = None
    notes: tuple[str, ...] = ()

    @property
    def image(self) -> sitk.Image:
        return self.images[0]


def read_ct(
    given: object,
    *,
    name: str | None = None,
    spacing_mm: Sequence[float] | None = None,
    series: str | int | None = None,
    interpolate: bool = False,
    intercept: float | None = None,
) -> CTInput:
    """Read one CT; a tuple or list of inputs is one CT with several channels.

    Args:
        given: Path of a DICOM folder, zip or multi-frame file or of a volume file; a SimpleITK or nibabel image; an
            array ``(Z, Y, X)`` in HU.
        name: Instead of the one made from the path.
        spacing_mm: (z, y, x), for an array alone.
        series: Which series of a DICOM study; volumes have none.
        interpolate: Fill missing slices of a DICOM series; a volume lacks none.
        intercept: Of a DICOM series that lost it, in HU; values of volumes are taken as they are.

    Raises:
        UserError: What cannot be read and why, or an option that means nothing for this input.
    """
    dicom = {"series": series, "interpolate": interpolate, "intercept": intercept}
    if not isinstance(given, tuple | list):
        ct = _one(given, spacing_mm, dicom)
        return CTInput(file_name(name or ct.name), ct.images, ct.series, ct.notes)
    if not given:
        raise UserError("no image was given. Give one path or image, or one for each channel.")
    parts = [_one(part, spacing_mm, dicom) for part in given]
    images = tuple(part.image for part in parts)
    for index, image in enumerate(images[1:], start=1):
        _require_one_grid(images[0], image, index)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return CTInput(file_name(name or parts[0].name), images, parts[0].series, notes)


@contextmanager
def unpacked(given: object) -> Iterator[object]:
    """An input with its zips unpacked while the block runs: DICOM objects are written from the slices' own headers."""
    several = isinstance(given, tuple | list)
    parts = list(given) if several else [given]
    with ExitStack() as stack:
        for index, part in enumerate(parts):
            if isinstance(part, str | Path) and not is_no_dicom(Path(part)) and is_zipfile(part):
                parts[index] = stack.enter_context(opened_folder(part))
        yield tuple(parts) if several else parts[0]


def require_model_input(ct: CTInput, model: TrainedModel) -> tuple[str, ...]:
    """Reject another number of channels than the model's and values that are not Hounsfield units; returns remarks.

    Raises:
        UserError: What does not fit.
    """
    channels = model.dataset.channels
    if len(ct.images) != len(channels):
        raise UserError(
            f"{ct.name} has {len(ct.images)} channel(s), but {model.folder.name} was trained on"
            f" {len(channels)} ({', '.join(channels)}).\n  Give one image per channel, in this order."
        )
    remarks: dict[str, None] = {}
    for name, image in zip(channels, ct.images, strict=True):
        values = sitk.GetArrayViewFromImage(image)
        if name.lower() == "ct":
            remedy = "-1024 to its values" if ct.series is None else "--intercept -1024"
            remarks |= dict.fromkeys(require_hounsfield(values, ct.name, remedy=remedy))
        elif not np.isfinite(values).all():
            raise UserError(f"{ct.name}: voxels of channel {name} are NaN or infinite. Replace them by a number.")
    return tuple(remarks)


def _one(given: object, spacing_mm: Sequence[float] | None, dicom: dict) -> CTInput:
    if isinstance(given, np.ndarray):
        _refuse_dicom_options("the image is one volume", dicom)
        return CTInput("ct", (_from_array(given, spacing_mm),))
    if spacing_mm is not None:
        raise UserError("spacing_mm is for arrays; the given image has voxel sizes of its own. Omit it.")
    if isinstance(given, str | Path):
        return _from_path(Path(given), dicom)
    _refuse_dicom_options("the image is one volume", dicom)
    if isinstance(given, sitk.Image):
        return CTInput("ct", (_scalar_volume(given),))
    if hasattr(given, "affine") and hasattr(given, "dataobj"):
        return CTInput("ct", (_from_nibabel(given),))
    raise UserError(
        f"cannot read a CT from an object of type {type(given).__name__}."
        "\n  Give a path, a SimpleITK or nibabel image, or an array with spacing_mm."
    )


def _from_path(path: Path, dicom: dict) -> CTInput:
    if path.is_file() and is_no_dicom(path):
        _refuse_dicom_options(f"{path} is one volume file", dicom)
        volume = read_volume(path)
        return CTInput(stem(path).removesuffix("_0000"), (volume.image,), notes=tuple(volume.notes))
    if path.is_dir():
        _refuse_folder_of_volumes(path)
    image, info = read_series(path, **dicom)
    digest = hashlib.sha256(info.series_uid.encode()).hexdigest()[:8]
    return CTInput(f"ct-{digest}", (image,), info, info.notes)


def _refuse_folder_of_volumes(folder: Path) -> None:
    """A folder is one CT, of DICOM slices; several volumes are several inputs."""
    files = [path for path in folder.iterdir() if not is_hidden(path)]
    volumes = [path for path in list_volumes(folder) if is_no_dicom(path)]  # DICOM slices may have any name
    if volumes and all(path in volumes or path.suffix.lower() in _TEXTS for path in files):
        shown = f"{folder}/*{ending(volumes[0])}" if len(volumes) > 1 else volumes[0]
        raise UserError(
            f"{folder} contains {len(volumes)} volume{'s' if len(volumes) > 1 else ''} and no DICOM series. Give the"
            f" volume{'s themselves' if len(volumes) > 1 else ' itself'}: {shown}"
        )


def _refuse_dicom_options(what: str, dicom: dict) -> None:
    """Reject what would be ignored; ``interpolate`` only permits, and a volume lacks no slices."""
    series, intercept = dicom.get("series"), dicom.get("intercept")
    if series is not None:
        raise UserError(f"{what}, so there is no series {str(series)!r} to choose. Omit the series.")
    if intercept is not None:
        raise UserError(
            f"{what}, whose values are used as they are: the intercept {intercept:g} is for DICOM series."
            "\n  Omit it; if the values are not Hounsfield units yet, add it to them and save the volume."
        )


def _scalar_volume(image: sitk.Image) -> sitk.Image:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1 or image.GetSize()[2] < 2:
        raise UserError(
            f"the image has the size {image.GetSize()} with {image.GetNumberOfComponentsPerPixel()} values per voxel;"
            "\n  a CT is a volume of several slices with one value per voxel."
        )
    return image


def _from_array(array: np.ndarray, spacing_mm: Sequence[float] | None) -> sitk.Image:
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise UserError(f"the array has the shape {array.shape} of {array.dtype}; a CT is (z, y, x) in numbers.")
    if spacing_mm is None or len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise UserError(
            f"an array has no voxel size, and spacing_mm is {spacing_mm}: volumes could not be measured."
            "\n  Give spacing_mm=(z, y, x) in mm."
        )
    native = np.float32 if array.dtype == np.float16 else array.dtype.newbyteorder("=")
    image = sitk.GetImageFromArray(array.astype(native, copy=False))
    image.SetSpacing([float(s) for s in spacing_mm[::-1]])
    return _scalar_volume(image)


def _from_nibabel(nifti) -> sitk.Image:
    """The image that SimpleITK would read from the same file."""
    from tempfile import TemporaryDirectory

    import nibabel

    if len(nifti.shape) == 4 and nifti.shape[3] == 1:
        nifti = nifti.slicer[..., 0]
    with TemporaryDirectory(prefix="livseg-") as folder:
        path = Path(folder) / "ct.nii"
        nibabel.save(nibabel.Nifti1Image.from_image(nifti), path)
        return read_volume(path).image


def _require_one_grid(first: sitk.Image, other: sitk.Image, channel: int) -> None:
    differences = grid_differences(other, first)
    if not differences:
        return
    apart = ""
    if first.GetSize() == other.GetSize():
        apart = f"; they differ in {', '.join(d.part for d in differences)}, corners up to"
        apart += f" {distance_mm(first, other):.3g} mm apart"
    raise UserError(
        f"channel {channel} is on another grid than channel 0 ({_grid(other)}; {_grid(first)}{apart}), so a network"
        " would see different places of the patient.\n  Register the phases first: livseg align."
    )


def _grid(image: sitk.Image) -> str:
    size, spacing = image.GetSize()[::-1], image.GetSpacing()[::-1]
    origin = ", ".join(f"{mm:.4g}" for mm in image.GetOrigin())
    return f"{' x '.join(map(str, size))} voxels of {' x '.join(f'{s:.3g}' for s in spacing)} mm from {origin} mm"
