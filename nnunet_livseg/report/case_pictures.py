"""Pictures of a case: a slice of the CT with outlines of reference and prediction, axial and coronal.

Patients are shown as radiologists see them: their right on the left of the picture, the head up in coronal slices.
"""

# Shapes: labels and CT (z, y, x) in the orientation LPS, or (y, x)

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnunet_livseg.report.marked_image import DISPLAY_WINDOW_HU, MarkedImage, Outline, crop_window, gray_levels

REFERENCE_COLOR, PREDICTED_COLOR = "#4cc9f0", "#ffb000"
_EMPTY_GRAY = 46


@dataclass(frozen=True)
class CaseView:
    """The inputs of a picture.

    Args:
        predicted: Label map.
        reference: Label map on the same grid.
        structures: Structure to label values, outlined from the first (thin) to the last (thick).
        focus: The structure that decides which slices are shown.
        spacing_mm: Per axis of the label maps.
        ct: Gray values on the same grid, or ``None``: then there are outlines only.
    """

    predicted: np.ndarray
    reference: np.ndarray
    structures: dict[str, tuple[int, ...]]
    focus: str
    spacing_mm: tuple[float, ...]
    ct: np.ndarray | None = None


@dataclass(frozen=True)
class CasePicture:
    """A finished picture with its caption."""

    svg: str
    caption: str


def pictures(view: CaseView) -> list[CasePicture]:
    """The axial and the coronal slice in which prediction and reference of the focus differ most (2D: the image)."""
    wrong = _mask(view.predicted, view, view.focus) != _mask(view.reference, view, view.focus)
    if not wrong.any():
        wrong = _mask(view.reference, view, view.focus) | (view.reference > 0)
    if view.reference.ndim == 2:
        return [CasePicture(_draw(view, (slice(None), slice(None)), view.spacing_mm, flip=False), "the image")]
    z = int(wrong.sum(axis=(1, 2)).argmax())
    y = int(wrong.sum(axis=(0, 2)).argmax())
    dz, dy, dx = view.spacing_mm
    return [
        CasePicture(_draw(view, (z, slice(None), slice(None)), (dy, dx), flip=False), f"axial, slice {z}"),
        CasePicture(_draw(view, (slice(None), y, slice(None)), (dz, dx), flip=True), f"coronal, row {y}"),
    ]


def _mask(labels: np.ndarray, view: CaseView, structure: str) -> np.ndarray:
    return np.isin(labels, view.structures[structure])


def _draw(view: CaseView, index: tuple, spacing_mm: tuple[float, float], *, flip: bool) -> str:
    predicted, reference = view.predicted[index], view.reference[index]
    window = crop_window((predicted > 0) | (reference > 0), spacing_mm)
    planes = [plane[window][::-1] if flip else plane[window] for plane in (predicted, reference)]
    ct = None if view.ct is None else view.ct[index][window][:: -1 if flip else 1]
    return MarkedImage(
        _background(ct, planes[0].shape),
        spacing_mm,
        f"{'coronal' if flip else 'axial'} slice with outlines of reference and prediction",
        tuple(_outlines(view, *planes)),
        sides=("R", "L") if view.reference.ndim == 3 else None,  # the orientation of a 2D image is unknown
    ).svg()


def _outlines(view: CaseView, predicted: np.ndarray, reference: np.ndarray) -> Iterator[Outline]:
    for name, values in view.structures.items():
        width = 1.6 if name == view.focus else 0.9
        opacity = 1 if name == view.focus or len(view.structures) == 1 else 0.75
        for plane, color in ((reference, REFERENCE_COLOR), (predicted, PREDICTED_COLOR)):
            yield Outline(np.isin(plane, values), color, width, opacity, name)


def _background(ct: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    if ct is None:
        return np.full(shape, _EMPTY_GRAY, np.uint8)
    return gray_levels(ct, DISPLAY_WINDOW_HU if ct.min() < 0 or ct.max() > 255 else (0.0, 255.0))
