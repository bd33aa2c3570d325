"""One CT series as a volume in Hounsfield units, with what was found and done."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.dicom.geometry import Stack
from nnunet_livseg.data.dicom.headers import Slice
from nnunet_livseg.data.dicom.listing import ONE_SLICE, Series, choose, list_series, unreadable_note
from nnunet_livseg.data.dicom.pixels import PixelReader
from nnunet_livseg.data.dicom.study_files import dicom_files
from nnunet_livseg.imaging.hounsfield import AIR_HU, require_hounsfield


@dataclass(frozen=True)
class SeriesInfo:
    """Where a volume came from. Holds no patient data.

    Args:
        series_uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        key: Series number as ``livseg dicom list`` shows it.
        description: SeriesDescription.
        phase: Guessed contrast phase, or empty.
        phase_reason: Why.
        instances: SOPInstanceUID and frame index (None: single-frame file) of every slice from ``z = 0`` upwards; empty
            where slices were resampled, because then no array slice is a source slice.
        files: The file of every slice that was read, from the lowest upwards; those of a zip are gone after reading.
        notes: What departed from a plain series, and what was done about it.
    """

    series_uid: str
    study_uid: str
    key: str
    description: str
    phase: str
    phase_reason: str
    instances: tuple[tuple[str, int | None], ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def resampled(self) -> bool:
        return not self.instances


def read_series(
    path: str | Path,
    series: str | int | None = None,
    *,
    interpolate: bool = False,
    intercept: float | None = None,
    padding_hu: float | None = AIR_HU,
    progress: bool = False,
) -> tuple[sitk.Image, SeriesInfo]:
    """Read one CT series of a folder, a zip or a multi-frame file.

    Args:
        path: Folder or zip of a study, its files in any order, or one file.
        series: Number as listed or SeriesInstanceUID; default: the only CT series.
        interpolate: Fill missing slices and even out uneven distances by linear interpolation instead of rejecting.
        intercept: Rescale intercept in HU for series that lost theirs.
        padding_hu: Value of padding and of anything below -1024 HU; None keeps stored values.
        progress: Show a progress bar.

    Raises:
        UserError: What about the study or the series cannot be read, and why.
    """
    with dicom_files(path) as files:
        found = list_series(files)
        if files == [Path(path)] and found[0].problem == ONE_SLICE:
            raise UserError(f"{path} is one slice of a series, not a volume.\n  Give the folder with all its files.")
        chosen = choose(found, series)
        return read_listed(
            chosen, interpolate=interpolate, intercept=intercept, padding_hu=padding_hu, progress=progress
        )


def read_listed(
    chosen: Series,
    *,
    interpolate: bool = False,
    intercept: float | None = None,
    padding_hu: float | None = AIR_HU,
    progress: bool = False,
) -> tuple[sitk.Image, SeriesInfo]:
    """Read a series that ``list_series`` found; its files must still exist. See ``read_series``."""
    name = f"series {chosen.key}"
    if chosen.problem:
        raise UserError(f"{name} cannot be read as a CT volume: {chosen.problem}.")
    stack = chosen.stack
    if stack.irregular and not interpolate:
        raise UserError(
            f"{name}: {stack.irregular}.\n  Export the series again if slices were lost on the way,"
            " or accept interpolated slices with --interpolate."
        )
    reader = PixelReader(intercept=intercept, padding_hu=padding_hu)
    values, notes = _read_pixels(chosen, reader, progress)
    notes += unreadable_note(chosen)
    try:
        notes += reader.require_one_scale(len(values))
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    if intercept is not None:
        notes.append(f"RescaleIntercept {intercept:g} as given")
    require_hounsfield(values, name, remedy="--intercept -1024")
    image = _image(values, stack)
    if stack.irregular:
        image = _evened(image, values, stack)
        notes.append(f"{stack.irregular}; interpolated to even {image.GetSpacing()[2]:.2f} mm")
    if stack.shear.any():
        image = correct_gantry_tilt(image, stack.shear)
        notes.append(f"gantry tilt of {stack.tilt_degrees:.1f} degrees straightened by interpolation in the slices")
    if reader.padded:
        notes.append(f"{reader.padded:,} voxels of padding set to {padding_hu:.0f} HU")
    return image, _info(chosen, bool(stack.irregular or stack.shear.any()), notes)


def _read_pixels(chosen: Series, reader: PixelReader, progress: bool) -> tuple[np.ndarray, list[str]]:
    """All slices ``(z, y, x)`` in order, and notes on repeated and lossy ones."""
    stack, slices = chosen.stack, chosen.slices
    values, repeated = [], 0
    steps = zip(stack.order, stack.duplicates, strict=True)
    for index, twins in tqdm(steps, total=len(stack.order), desc="read DICOM", unit="slice", disable=not progress):
        plane = reader.read(slices[index])
        if any(not np.array_equal(plane, reader.read(slices[twin])) for twin in twins):
            raise UserError(_different_twins(chosen.key, slices[index]))
        values.append(plane)
        repeated += len(twins)
    notes = [f"{repeated} repeated slices with the same pixels skipped"] if repeated else []
    if any(one.text("LossyImageCompression") == "01" for one in slices):
        notes.append("the slices were compressed with loss at some time")
    floats = any(plane.dtype != np.int16 for plane in values)
    return np.stack([plane.astype(np.float32) if floats else plane for plane in values]), notes


def _different_twins(key: str, one: Slice) -> str:
    return (
        f"series {key}: several different images lie at the same position (one is {one.path.name}), and neither"
        " acquisition number nor time tells them apart.\n  Export each phase or reconstruction as its own series."
    )


def _image(values: np.ndarray, stack: Stack) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(stack.spacing_mm[::-1])
    image.SetOrigin(stack.origin_mm.tolist())
    image.SetDirection(stack.direction.ravel().tolist())
    return image


def _evened(image: sitk.Image, values: np.ndarray, stack: Stack) -> sitk.Image:
    """Slices at even heights, each mixed linearly from its two neighbors; present slices stay as they are."""
    step = stack.spacing_mm[0]
    wanted = np.arange(int(stack.heights_mm[-1] / step + 1e-6) + 1) * step
    wanted[-1] = min(wanted[-1], stack.heights_mm[-1])
    above = np.clip(np.searchsorted(stack.heights_mm, wanted), 1, len(stack.heights_mm) - 1)
    below_mm, above_mm = stack.heights_mm[above - 1], stack.heights_mm[above]
    share = np.clip((wanted - below_mm) / (above_mm - below_mm), 0, 1)
    near = np.abs(share - np.rint(share)) * (above_mm - below_mm) < 0.05 * step  # a rounded position is no new slice
    share[near] = np.rint(share[near])
    evened = np.empty((len(wanted), *values.shape[1:]), values.dtype)
    for z, (upper, part) in enumerate(zip(above, share, strict=True)):
        mixed = values[upper - 1] * (1 - part) + values[upper] * part
        evened[z] = np.rint(mixed) if np.issubdtype(values.dtype, np.integer) else mixed
    result = sitk.GetImageFromArray(evened)
    result.SetSpacing(image.GetSpacing())
    result.SetOrigin(image.GetOrigin())
    result.SetDirection(image.GetDirection())
    return result


def correct_gantry_tilt(image: sitk.Image, shear: np.ndarray) -> sitk.Image:
    """A tilted stack on a right-angled grid that holds all of it.

    Args:
        image: The slices as if they lay exactly above each other.
        shear: How far they really move along x and y, in mm per mm along z.
    """
    spacing, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    total_mm = shear * spacing[2] * (size[2] - 1)
    before, after = (np.ceil(np.maximum(move, 0) / spacing[:2]).astype(int) for move in (-total_mm, total_mm))
    direction = np.reshape(image.GetDirection(), (3, 3))
    grid = sitk.Image([*(size[:2] + before + after).tolist(), int(size[2])], image.GetPixelID())
    grid.SetSpacing(image.GetSpacing())
    grid.SetDirection(image.GetDirection())
    grid.SetOrigin((np.array(image.GetOrigin()) - direction[:, :2] @ (before * spacing[:2])).tolist())
    back = np.eye(3)
    back[:2, 2] = -shear  # a patient position at height h was stored that much further back
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((direction @ back @ direction.T).ravel().tolist())
    transform.SetCenter(image.GetOrigin())
    return sitk.Resample(image, grid, transform, sitk.sitkLinear, AIR_HU)


def _info(chosen: Series, resampled: bool, notes: list[str]) -> SeriesInfo:
    ordered = [chosen.slices[index] for index in chosen.stack.order]
    return SeriesInfo(
        chosen.uid,
        chosen.slices[0].text("StudyInstanceUID"),
        chosen.key,
        chosen.description,
        chosen.phase,
        chosen.phase_reason,
        () if resampled else tuple((one.text("SOPInstanceUID"), one.frame) for one in ordered),
        tuple(one.path for one in ordered),
        tuple(notes),
    )
