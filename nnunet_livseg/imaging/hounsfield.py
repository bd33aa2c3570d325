"""Are these numbers Hounsfield units? Answered from the numbers alone, before anything is trained on them."""

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.check_images import AIR_BELOW_HU

AIR_HU = -1024.0  # lowest value of a 12-bit CT; anything below is padding
_HIGHEST_GREY = 255.0
_LIVER_HU = (-60.0, 250.0)  # fat-rich liver to enhanced liver; tumors, cysts and vessels lie inside


def describe(values: np.ndarray) -> list[str]:
    """Remarks on unusual but usable CT values.

    Args:
        values: Hounsfield units, any shape.
    """
    lowest = float(values.min())
    if lowest < AIR_HU:
        share = float((values < AIR_HU).mean())
        return [f"padding below {AIR_HU:.0f} HU in {share:.1%} of the voxels (lowest {lowest:.0f})"]
    if lowest > AIR_BELOW_HU:
        return [f"no value below {lowest:.0f} HU: the volume was clipped or masked"]
    return []


def require_hounsfield(values: np.ndarray, name: str, *, remedy: str) -> None:
    """Refuse what cannot be Hounsfield units.

    Args:
        values: Voxel values, any shape.
        name: What the message calls the volume.
        remedy: Option of the calling command that adds an offset, e.g. ``--offset -1024``.

    Raises:
        UserError: Not finite, constant, a grey picture, or stored unsigned with the intercept lost.
    """
    if not np.issubdtype(values.dtype, np.integer) and not np.isfinite(values).all():
        bad = int(np.size(values) - np.isfinite(values).sum())
        raise UserError(f"{name}: {bad:,} voxels are NaN or infinite, which nnU-Net refuses. Replace them by air.")
    lowest, highest = float(values.min()), float(values.max())
    if lowest == highest:
        raise UserError(f"{name}: all voxels have the value {lowest:g}; there is no image in it.")
    if lowest >= 0 and highest <= _HIGHEST_GREY:
        raise UserError(
            f"{name}: values run from {lowest:g} to {highest:g}. That is a windowed grey picture, not Hounsfield"
            " units,\n  and a network trained on CT cannot read it. Convert the original CT."
        )
    if lowest >= 0:
        raise UserError(
            f"{name}: values run from {lowest:g} to {highest:g} with nothing below 0, so air is not at -1000 HU.\n"
            f"  The intercept is probably lost (stored unsigned); if air is near 0 in the image, add {remedy}."
        )


def liver_share(values: np.ndarray, liver: np.ndarray) -> float:
    """Share of the labelled voxels with soft-tissue values, 0 to 1: near 1 where the label lies on the liver."""
    inside = values[liver]
    low, high = _LIVER_HU
    return float(((inside > low) & (inside < high)).mean()) if inside.size else 0.0
