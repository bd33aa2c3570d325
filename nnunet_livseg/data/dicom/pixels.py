"""Stored values to Hounsfield units: decompression, slope and intercept, padding."""

import math

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.dicom.headers import Slice, pydicom_module
from nnunet_livseg.imaging.hounsfield import AIR_HU
from nnunet_livseg.imaging.masks import label_components
from nnunet_livseg.imaging.nifti import named_as


class PixelReader:
    """Reads slices as Hounsfield units, keeping the last file open for the frames of a multi-frame file.

    Args:
        intercept: Rescale intercept to use where a file has none, or in place of a wrong one.
        padding_hu: Value for padding and for anything below the scale; None keeps the stored value.
    """

    def __init__(self, *, intercept: float | None = None, padding_hu: float | None = AIR_HU) -> None:
        self.intercept = intercept
        self.padding_hu = padding_hu
        self.padded = 0
        self.assumed: dict[str, float] = {}  # tags that some header lacks, and the value taken for them
        self.lacking: dict[str, list[str]] = {}  # the files that lack them
        self.stated: dict[str, set[float]] = {}  # the values that the others give
        self._path = None
        self._dataset = None
        self._stored = None

    def read(self, one: Slice) -> np.ndarray:
        """One slice in Hounsfield units ``(rows, columns)``, int16 where that is exact, else float32.

        Raises:
            UserError: The pixels cannot be decoded, are cut short, or are in another unit than Hounsfield's.
        """
        dataset, stored = self._open(one)
        slope, intercept = self._rescale(one, dataset)
        exact = float(slope).is_integer() and float(intercept).is_integer()
        values = stored.astype(np.int32 if exact else np.float32)
        values = values * (int(slope) if exact else slope) + (int(intercept) if exact else intercept)
        if self.padding_hu is not None:
            outside = _at_border(_padding(dataset, stored)) | (values < AIR_HU)
            self.padded += int(outside.sum())
            values[outside] = self.padding_hu
        fits = exact and np.iinfo(np.int16).min <= values.min() and values.max() <= np.iinfo(np.int16).max
        return values.astype(np.int16 if fits else np.float32)

    def _open(self, one: Slice) -> tuple[object, np.ndarray]:
        if one.path != self._path:
            dataset = pydicom_module().dcmread(one.path, force=True)
            if not hasattr(dataset.file_meta, "TransferSyntaxUID"):  # very old exports; DICOM's default syntax
                dataset.file_meta.TransferSyntaxUID = pydicom_module().uid.ImplicitVRLittleEndian
            self._path, self._dataset, self._stored = one.path, dataset, _decoded(one, dataset)
        stored = self._stored
        if one.frame is not None and stored.ndim == 3:
            stored = stored[one.frame]
        if stored.ndim != 2:
            raise UserError(
                f"{one.path.name} contains pixels of shape {stored.shape}, but a CT slice is one gray picture.\n"
                "  Export the series again."
            )
        return self._dataset, stored

    def _rescale(self, one: Slice, dataset) -> tuple[float, float]:
        transformation = _transformation(dataset, one.frame)
        kind = str(transformation.get("RescaleType") or "HU").strip().upper()
        if kind not in ("HU", "US"):  # US: unspecified
            raise UserError(
                f"{one.path.name}: RescaleType is {kind!r}, so the values are not Hounsfield units.\n"
                "  Choose another series, or export this one in Hounsfield units."
            )
        slope = self._stated(one, transformation, "RescaleSlope", otherwise=1.0)
        if slope == 0:
            raise UserError(
                f"{one.path.name}: RescaleSlope is 0, so all voxels would be equal.\n"
                "  The header is damaged: export the series again."
            )
        if self.intercept is not None:
            return slope, float(self.intercept)
        return slope, self._stated(one, transformation, "RescaleIntercept", otherwise=0.0)

    def _stated(self, one: Slice, transformation, keyword: str, *, otherwise: float) -> float:
        number = _number(one, transformation, keyword)
        if number is None:
            self.assumed[keyword] = number = otherwise
            self.lacking.setdefault(keyword, []).append(one.path.name)
        else:
            self.stated.setdefault(keyword, set()).add(number)
        return number

    def require_one_scale(self, slices: int) -> list[str]:
        """Notes on how slices were rescaled; rejects a series of which some slices have lost their scale.

        Raises:
            UserError: Tags are missing in some of ``slices`` slices and say something else in the others.
        """
        lost = {key: files for key, files in self.lacking.items() if self.stated.get(key, set()) - {self.assumed[key]}}
        if lost:
            files = next(iter(lost.values()))
            others = "; ".join(f"{key} of the others: {_listed(self.stated[key])}" for key in lost)
            raise UserError(
                f"{len(files)} of {slices} slices have no {' and no '.join(lost)} (the first: {files[0]}), so they are"
                f" not in Hounsfield units ({others}).\n  Export the series again"
                + (", or give the intercept of all slices: --intercept -1024" if "RescaleIntercept" in lost else "")
                + "."
            )
        notes = [f"no {keyword} in the header; taken as {value:g}" for keyword, value in self.assumed.items()]
        several = {key: values for key, values in self.stated.items() if len(values) > 1}
        return notes + [f"{key} differs between slices: {_listed(values)}" for key, values in several.items()]


def _listed(values: set[float]) -> str:
    ordered = sorted(values)
    return ", ".join(f"{value:g}" for value in ordered[:3]) + (f" to {ordered[-1]:g}" if len(ordered) > 3 else "")


def _number(one: Slice, transformation, keyword: str) -> float | None:
    """A value of the rescale transformation; None where it is missing or empty."""
    value = transformation.get(keyword)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):  # several values; no number
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f"{one.path.name}: {keyword} is {str(value)!r}, not a single number, so the stored values cannot be turned"
            " into Hounsfield units.\n  The header is damaged: export the series again."
        )
    return number


def _transformation(dataset, frame: int | None):
    """The item that holds slope and intercept: the dataset, or the frame's functional group."""
    if frame is None:
        return dataset
    places = [dataset.PerFrameFunctionalGroupsSequence[frame], *dataset.get("SharedFunctionalGroupsSequence", [])]
    for place in places:
        if place.get("PixelValueTransformationSequence"):
            return place.PixelValueTransformationSequence[0]
    return dataset


def _decoded(one: Slice, dataset) -> np.ndarray:
    """Stored values; where pydicom lacks a decoder, those that SimpleITK's own decoders give."""
    if "PixelData" not in dataset:
        raise UserError(
            f"{one.path.name} has no pixel data: the file is truncated, or only the header was exported.\n"
            "  Export the series again."
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        return dataset.pixel_array
    except Exception as error:  # every decoder plug-in raises its own kinds
        if not syntax.is_compressed:
            raise UserError(
                f"{one.path.name} is truncated or damaged: {str(error).splitlines()[0]}\n  Export the series again."
            ) from error
        return _decoded_by_itk(one, dataset, syntax, error)


def _decoded_by_itk(one: Slice, dataset, syntax, error: Exception) -> np.ndarray:
    transformation = _transformation(dataset, one.frame)
    slope = _number(one, transformation, "RescaleSlope") or 1.0
    intercept = _number(one, transformation, "RescaleIntercept") or 0.0
    try:
        with named_as(one.path, one.path.suffix) as fitting:
            rescaled = sitk.GetArrayFromImage(sitk.ReadImage(str(fitting)))
    except RuntimeError:
        raise UserError(
            f"{one.path.name}: its compression ({syntax.name}) cannot be decoded: {str(error).splitlines()[0]}\n"
            "  If a decoder is missing: pip install 'nnunet-livseg[dicom]'"
        ) from error
    stored = np.rint((rescaled.astype(np.float64) - intercept) / slope).astype(np.int32)
    return stored[0] if stored.shape[0] == 1 else stored


def _padding(dataset, stored: np.ndarray) -> np.ndarray:
    """Where the stored values are PixelPaddingValue, or lie between it and PixelPaddingRangeLimit."""
    limits = [dataset.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    limits = [_signed(int(limit), dataset) for limit in limits if isinstance(limit, int)]
    if not limits:
        return np.zeros(stored.shape, bool)
    return (stored >= min(limits)) & (stored <= max(limits))


def _at_border(padding: np.ndarray) -> np.ndarray:
    """The parts of ``padding`` that reach the edge of the slice; tissue may have the padding's value as well."""
    if not padding.any():
        return padding
    parts, _ = label_components(padding, neighbors=6)
    edges = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.isin(parts, edges[edges > 0])


def _signed(value: int, dataset) -> int:
    """Padding is often written with the other sign than the pixels: 63536 for -2000."""
    bits = int(dataset.get("BitsAllocated", 16))
    if dataset.get("PixelRepresentation") == 1 and value >= 1 << (bits - 1):
        return value - (1 << bits)
    return value
