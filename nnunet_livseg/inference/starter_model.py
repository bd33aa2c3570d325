"""The small model in the package: for users without a model, and to find the liver for larger models.

What it was trained on and how well it does is in docs/starter_model.md.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.dataset_json import read_dataset_json
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json
from nnunet_livseg.imaging.liver_crop import is_cropped

FOLDER = Path(__file__).resolve().parents[1] / "starter"


def starter_model() -> Path:
    """Folder of the model that segments liver and tumors in the liver's box.

    Raises:
        UserError: It is not where the package was installed.
    """
    return _stage(cropped=True)


def starter_liver_model() -> Path:
    """Folder of the model that finds the liver in a whole CT.

    Raises:
        UserError: It is not where the package was installed.
    """
    return _stage(cropped=False)


def _stage(*, cropped: bool) -> Path:
    for path in FOLDER.glob("*/plans.json"):
        if is_cropped(read_dataset_json(path.parent).content) == cropped:
            return path.parent
    raise UserError(
        f"the starter model is missing in {FOLDER}.\n  Install nnunet-livseg again, or give a model of your own: -m"
        " FOLDER."
    )


def starter_weights(preset: str) -> Path:
    """Weights of the network that was trained with this preset, for ``livseg plan --init starter``.

    Raises:
        UserError: None of the two was.
    """
    models = {_preset_of(folder): folder for folder in (starter_liver_model(), starter_model())}
    if preset not in models:
        raise UserError(
            f"--init starter: the starter model was trained with the presets {' and '.join(models)}, not with {preset}."
            "\n  Add --preset tumors (CTs cropped to the liver) or --preset starter (whole CTs)."
        )
    return next(models[preset].glob("fold_*/*.safetensors"))


def _preset_of(model: Path) -> str:
    plans = read_json(model / "plans.json", keys=("configurations",), remedy="Install nnunet-livseg again.")
    (configuration,) = plans["configurations"].values()
    return configuration["livseg"]["preset"]


def beyond_training(
    dataset_json: Mapping[str, Any], image: sitk.Image, liver: np.ndarray, *, cut_off: bool
) -> list[str]:
    """Where a CT differs from all that the model was trained on, as notes (empty: it does not, or this is unknown).

    Args:
        dataset_json: That of the model, with ``{"livseg": {"trained_on": {"slice_mm": most, "liver_hu": [from, to],
            "liver_ml": least}}}``.
        image: The CT.
        liver: True on the liver and its tumors, ``(Z, Y, X)`` of the CT.
        cut_off: Whether the liver touches the border of the image, see ``Measurements.truncated``.
    """
    known = _trained_on(dataset_json)
    if not known or not liver.any():
        return []
    notes = []
    thickness_mm = max(image.GetSpacing())
    if thickness_mm > known["slice_mm"]:
        most = f"the model was trained with at most {known['slice_mm']:g} mm"
        notes.append(f"slices lie {thickness_mm:.3g} mm apart, and {most}: small tumors are missed")
    if cut_off:
        notes.append("the liver reaches the edge of the CT: the part outside is missing, and the edge may be wrong")
    low, high = known["liver_hu"]
    hu = float(np.median(sitk.GetArrayViewFromImage(image)[liver]))
    if not low <= hu <= high:
        expected = f"the livers of the training have {low:g} to {high:g} HU"
        reason = "is it without contrast, or fatty" if hu < low else "is it another contrast phase"
        notes.append(f"the liver has {hu:.0f} HU ({reason}?), and {expected}: tumors may be missed or invented")
    return notes


def large_enough(dataset_json: Mapping[str, Any], image: sitk.Image, liver: np.ndarray) -> bool:
    """Whether what the model found may be a liver: not much smaller than the smallest that it was trained on."""
    least_ml = _trained_on(dataset_json).get("liver_ml", 0.0) / 4
    return bool(np.count_nonzero(liver) * math.prod(image.GetSpacing()) >= 1000 * least_ml)


def _trained_on(dataset_json: Mapping[str, Any]) -> Mapping[str, Any]:
    return (dataset_json.get("livseg") or {}).get("trained_on") or {}
