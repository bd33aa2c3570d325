"""Label values: whole numbers, mapped to background 0, liver 1, tumor 2."""

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.convert.source_cases import LIVER_AND_TUMOR
from nnunet_livseg.imaging.images import on_grid

_ROUNDING = 1e-3  # float label maps scaled by a NIfTI header come back as 0.99999


def clean_labels(label: sitk.Image, mapping: Mapping[int, int], name: str) -> tuple[sitk.Image, list[str]]:
    """The label map as uint8 with our values, and what was changed (nothing: the file can stay as it is).

    Args:
        label: Label map of any pixel type.
        mapping: Source value -> our value.
        name: What a message calls the file.

    Raises:
        UserError: Values between whole numbers, or values that are neither ours nor in ``mapping``.
    """
    stored = sitk.GetArrayFromImage(label)
    values = np.rint(stored)
    if not np.isfinite(stored).all() or np.abs(stored - values).max() > _ROUNDING:
        raise UserError(
            f"{name} holds values between whole numbers (e.g. {_fraction(stored, values)}), so it was interpolated.\n"
            "  Labels are never interpolated: resample them with nearest neighbour, or give the original label file."
        )
    changes = []
    if np.abs(stored - values).max() > 0:
        changes.append("label values rounded to whole numbers")
    present, counts = np.unique(values, return_counts=True)
    found = dict(zip(present.astype(int).tolist(), counts.tolist(), strict=True))
    unknown = {value: count for value, count in found.items() if mapping.get(value, value) not in _VALID}
    if unknown:
        listed = ", ".join(f"{value} ({count:,} voxels)" for value, count in unknown.items())
        raise UserError(
            f"{name} holds label values other than 0 background, 1 liver, 2 tumor: {listed}.\n"
            f"  Say what they are, for example --map {next(iter(unknown))}=1 (liver), =2 (tumor) or =0 (background)."
        )
    mapped = np.zeros(values.shape, np.uint8)
    for value in found:
        mapped[values == value] = mapping.get(value, value)
    changes += [
        f"label {value} became {mapping[value]} ({count:,} voxels)"
        for value, count in found.items()
        if mapping.get(value, value) != value
    ]
    return on_grid(mapped, label), changes


_VALID = frozenset(LIVER_AND_TUMOR.values())


def _fraction(stored: np.ndarray, values: np.ndarray) -> float:
    finite = np.isfinite(stored)
    if not finite.all():
        return float("nan")
    return round(float(stored.flat[int(np.abs(stored - values).argmax())]), 4)
