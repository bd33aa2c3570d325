"""Are these numbers Hounsfield units? Answered from the numbers alone, before anything is trained on them.

Lowest and highest value alone do not tell: a few voxels of padding or of streaks beside metal hide a lost intercept,
and values can be normalized to any range. So the whole histogram is judged, and each slice by itself.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError

AIR_HU = -1024.0  # lowest value of a 12-bit CT; anything below is padding
AIR_BELOW_HU = -200  # a CT holds air or at least fat; a scan without either was windowed
_PADDING_HU = (-32768.0, -1100.0)  # lower than noise about air
_HIGHEST_GRAY = 255.0
_NORMALIZED = 60.0  # a CT holds air, fat, bone or contrast beyond this, however small its part of the body
_NORMALIZED_INSIDE = 10.0  # the same beside air outside a mask, where a liver without contrast may be all there is
_SIGNED_GRAY = 128.0
_RARE = 0.1  # per cent of voxels that may be streaks, metal or noise
_SHIFTED_HU = (600.0, 1400.0)  # where fat and soft tissue lie without their intercept of about -1024
_SHIFTED_AIR_HU = (-60.0, 80.0)  # and where air lies
_FAT_AND_LUNG_HU = (-700.0, -30.0)  # in every CT of a body; without its intercept a CT has next to nothing there
_SAMPLE = 4_000_000  # voxels that a histogram is made of
_LIVER_HU = (-60.0, 250.0)  # fat-rich liver to enhanced liver; tumors, cysts and vessels lie inside


@dataclass(frozen=True)
class HounsfieldVerdict:
    """Whether values are Hounsfield units.

    Args:
        problem: Why they cannot be, with a remedy; empty where they can.
        notes: Remarks on unusual but usable values.
    """

    problem: str = ""
    notes: tuple[str, ...] = ()


def judge_hounsfield(values: np.ndarray, *, remedy: str) -> HounsfieldVerdict:
    """Judge the voxels ``values (z, y, x)`` or ``(y, x)``.

    Args:
        values: Voxel values.
        remedy: What the calling command offers to add an offset, e.g. ``--offset -1024``.
    """
    if not np.issubdtype(values.dtype, np.integer) and (bad := int(values.size - np.isfinite(values).sum())):
        return HounsfieldVerdict(f"{bad:,} voxels are NaN or infinite, which nnU-Net rejects. Replace them by air.")
    lowest, highest = float(values.min()), float(values.max())
    if lowest == highest:
        return HounsfieldVerdict(f"all voxels have the value {lowest:g}: there is no image in it. Export the CT again.")
    sample = _sample(values if values.ndim == 3 else values[None])
    run = f"values run from {lowest:g} to {highest:g}"
    problem = _offset_problem(sample, lowest, run, remedy) or _scale_problem(sample, run)
    problem = problem or _slices_problem(sample, remedy)
    return HounsfieldVerdict(problem, () if problem else tuple(_notes(values, lowest)))


def require_hounsfield(values: np.ndarray, name: str, *, remedy: str) -> tuple[str, ...]:
    """Reject what cannot be Hounsfield units; returns remarks on what can.

    Args:
        values: Voxel values ``(z, y, x)`` or ``(y, x)``.
        name: What the message calls the volume.
        remedy: As in ``judge_hounsfield``.

    Raises:
        UserError: Not finite, constant, windowed, normalized, or stored with the intercept lost in all or some slices.
    """
    verdict = judge_hounsfield(values, remedy=remedy)
    if verdict.problem:
        raise UserError(f"{name}: {verdict.problem}")
    return verdict.notes


def _sample(values: np.ndarray) -> np.ndarray:
    """Every n-th row and column of all slices, in 32 bits."""
    step = max(1, int(np.ceil(np.sqrt(values.size / _SAMPLE))))
    return np.asarray(values[:, ::step, ::step], np.float32)


def _offset_problem(sample: np.ndarray, lowest: float, run: str, remedy: str) -> str:
    """Nothing, or next to nothing, below 0; or the body where it would lie without its intercept."""
    inside = _unpadded(sample)
    if not inside.size:
        return f"{run}, so there is nothing but padding. Export the CT again."
    low, high = np.percentile(inside, (_RARE, 100 - _RARE))
    if high < AIR_BELOW_HU:
        return (
            f"{run} with next to nothing above {high:.0f}, so there is no soft tissue, which lies about 0 HU.\n"
            "  Was the intercept subtracted twice? Export the CT again."
        )
    apart = "" if lowest >= 0 else ", but for padding or streaks,"
    if low >= 0 and high <= _HIGHEST_GRAY:
        return (
            f"{run}. That is{apart} a windowed gray picture, not Hounsfield units,\n"
            "  and a network trained on CT cannot read it. Convert the original CT."
        )
    if low >= 0 or _is_shifted(inside):
        return (
            f"{run}{apart} with nothing below 0, so air is not at -1000 HU.\n"
            "  The intercept is probably lost (stored unsigned): if this is a CT, no MR or PET, and air is near 0 in"
            f" it, add {remedy}."
        )
    return ""


def _unpadded(values: np.ndarray) -> np.ndarray:
    """Values without padding, which lies below air and is a 16-bit number."""
    if values.min() < _PADDING_HU[0]:
        return values.ravel()
    return values[values >= _PADDING_HU[1]]


def _is_shifted(values: np.ndarray) -> bool:
    """Whether fat and soft tissue lie about 1000, and nothing where fat and lung lie in Hounsfield units."""
    shifted = _count(values, *_SHIFTED_HU)
    return bool(shifted >= 0.05 * values.size and _count(values, *_FAT_AND_LUNG_HU) <= 0.05 * shifted)


def _scale_problem(sample: np.ndarray, run: str) -> str:
    """Values within a range that no CT fits into."""
    inside = _unpadded(sample)
    low, high = np.percentile(inside, (_RARE, 100 - _RARE))
    masked = inside[inside > inside.min()]  # beside one value outside a mask
    within = masked.size and np.percentile(np.abs(masked), 100 - _RARE) <= _NORMALIZED_INSIDE
    ends = float(inside.min()), float(inside.max())
    signed = ends[0] in (-_SIGNED_GRAY, 1 - _SIGNED_GRAY) and ends[1] in (_SIGNED_GRAY, _SIGNED_GRAY - 1)
    clipped = abs(ends[0] + ends[1]) < 1e-3 * ends[1] <= 1e-3 * _SIGNED_GRAY and all(
        np.count_nonzero(inside == end) > inside.size / 200 for end in ends
    )
    if max(-low, high) <= _NORMALIZED or within or signed or clipped:
        return (
            f"{run}, so they were normalized: Hounsfield units reach from -1000 (air) to some hundreds (bone).\n"
            "  A network trained on CT cannot read them. Convert the original CT."
        )
    return ""


def _slices_problem(sample: np.ndarray, remedy: str) -> str:
    """Some slices without the intercept that the others have."""
    lost = [z for z, plane in enumerate(sample) if _has_lost(_unpadded(plane))]
    if not lost or len(lost) == len(sample):
        return ""
    shown = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
    return (
        f"in {len(lost)} of {len(sample)} slices (z = {shown}) nothing lies between {_FAT_AND_LUNG_HU[0]:.0f} and"
        f" {_FAT_AND_LUNG_HU[1]:.0f}, and soft tissue about 1000.\n  These slices have probably lost their intercept;"
        f" export them again, or, if all have lost it, add {remedy}."
    )


def _has_lost(plane: np.ndarray) -> bool:
    """As ``_is_shifted``, of one slice, which also shows air about 0."""
    return bool(_is_shifted(plane) and _count(plane, *_SHIFTED_AIR_HU) >= 0.01 * plane.size)


def _count(values: np.ndarray, low: float, high: float) -> int:
    return int(np.count_nonzero((values >= low) & (values <= high)))


def _notes(values: np.ndarray, lowest: float) -> list[str]:
    if lowest < AIR_HU:
        share = float((values < AIR_HU).mean())
        return [f"padding below {AIR_HU:.0f} HU in {share:.1%} of the voxels (lowest {lowest:.0f})"]
    if lowest > AIR_BELOW_HU:
        return [f"no value below {lowest:.0f} HU: the volume was clipped or masked"]
    return []


def shifted_hu(image: sitk.Image, offset_hu: float) -> sitk.Image:
    """``image + offset_hu`` in a type that holds every value: 16 bits if they do, else 32 bits or floating point."""
    values = sitk.GetArrayViewFromImage(image)
    if values.dtype.kind == "f" or not float(offset_hu).is_integer():
        return sitk.Cast(image, sitk.sitkFloat64 if values.dtype.itemsize == 8 else sitk.sitkFloat32) + offset_hu
    ends = int(values.min()) + int(offset_hu), int(values.max()) + int(offset_hu)
    wide = sitk.sitkInt32 if values.dtype.itemsize < 4 else sitk.sitkInt64
    for kind, limits in ((sitk.sitkInt16, np.iinfo(np.int16)), (sitk.sitkInt32, np.iinfo(np.int32))):
        if limits.min <= ends[0] and ends[1] <= limits.max:
            return sitk.Cast(sitk.Cast(image, wide) + int(offset_hu), kind)
    return sitk.Cast(image, sitk.sitkFloat64) + offset_hu


def liver_share(values: np.ndarray, liver: np.ndarray) -> float:
    """Share of the labeled voxels with soft-tissue values, 0 to 1: near 1 where the label lies on the liver."""
    inside = values[liver]
    low, high = _LIVER_HU
    return float(((inside > low) & (inside < high)).mean()) if inside.size else 0.0
