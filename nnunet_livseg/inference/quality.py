"""How thoroughly a CT is segmented: four presets between fast and best."""

from dataclasses import dataclass, replace

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import did_you_mean


@dataclass(frozen=True)
class Quality:
    """Time against accuracy; measured in docs/evidence/segmentation.md.

    Args:
        name: Name of the preset, or ``custom``.
        all_folds: Average all folds that are trained; else the first alone.
        mirroring: Predict mirrored copies too (eight in 3D, four in 2D) and average.
        step_size: Step of the sliding window over the patch size, above 0 to 1; smaller overlaps more.
        crop: Look only at the liver's box, which the starter model finds first.
        torch_resampling: Resample the logits by torch instead of the plans' function; see ``coarse_grid``.
        in_batches: Give the network several small patches at a time; see ``multiscale``.
        fits_patch: Take a patch that fits the CT, larger than the plans', if the model allows it; see
            ``multiscale.fitted_patch`` and ``case_predictor.takes_any_patch``.
    """

    name: str
    all_folds: bool
    mirroring: bool
    step_size: float
    crop: bool = False
    torch_resampling: bool = False
    in_batches: bool = False
    fits_patch: bool = False


BALANCED, STANDARD = "balanced", "standard"  # what the starter model takes by itself, and all others do
_SHORTCUTS = {"crop": True, "torch_resampling": True, "in_batches": True, "fits_patch": True}
PRESETS = {
    preset.name: preset
    for preset in (
        Quality("fast", all_folds=False, mirroring=False, step_size=0.75, **_SHORTCUTS),
        Quality(BALANCED, all_folds=True, mirroring=True, step_size=0.5, **_SHORTCUTS),
        Quality(STANDARD, all_folds=True, mirroring=True, step_size=0.5),  # nnUNetv2_predict's own
        Quality("best", all_folds=True, mirroring=True, step_size=0.3),
    )
}


def default_quality(model: object) -> str:
    """The preset for a model; the starter model is None, and has no prediction of nnU-Net's to be equal to."""
    return BALANCED if model is None else STANDARD


def quality_of(
    preset: str | Quality = STANDARD,
    *,
    mirroring: bool | None = None,
    step_size: float | None = None,
    torch_resampling: bool | None = None,
    in_batches: bool | None = None,
    fits_patch: bool | None = None,
) -> Quality:
    """A preset, changed by the settings that are given.

    Raises:
        UserError: There is no such preset, or the step size is out of range.
    """
    if not isinstance(preset, Quality):
        if preset not in PRESETS:
            raise UserError(
                f"there is no quality {preset!r}.{did_you_mean(preset, PRESETS)}\n  Known: {', '.join(PRESETS)}."
            )
        preset = PRESETS[preset]
    changes = {"mirroring": mirroring, "step_size": step_size, "torch_resampling": torch_resampling}
    changes |= {"in_batches": in_batches, "fits_patch": fits_patch}
    changes = {key: value for key, value in changes.items() if value not in (None, getattr(preset, key))}
    chosen = replace(preset, name="custom", **changes) if changes else preset
    if not 0 < chosen.step_size <= 1:
        raise UserError(
            f"the step size is {chosen.step_size:g}; it is a share of the patch, above 0 and at most 1."
            "\n  At 1, neighboring patches do not overlap. nnU-Net uses 0.5."
        )
    return chosen
