"""Pictures of a case: a slice of the CT with outlines of reference and prediction, axial and coronal.

Patients are shown as radiologists see them: their right on the left of the picture, the head up in coronal slices.
"""

# Shapes: labels and CT (z, y, x) in the orientation LPS, or (y, x)

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnunet_livseg.report.marked_image import MarkedImage, Outline, grey_levels

REFERENCE_COLOUR, PREDICTED_COLOUR = "#4cc9f0", "#ffb000"
WINDOW_HU = (-100.0, 240.0)
_MARGIN_MM, _LEAST_MM = 12.0, 90.0  # around what is labelled; a picture shows this much at least
_EMPTY_GREY = 46


@dataclass(frozen=True)
class Scene:
    """What a picture is made of.

    Args:
        predicted: Label map.
        reference: Label map on the same grid.
        structures: Structure to label values, outlined from the first (thin) to the last (thick).
        focus: The structure that decides which slices are shown.
        spacing_mm: Per axis of the label maps.
        ct: Grey values on the same grid, or ``None``: then there are outlines only.
    """

    predicted: np.ndarray
    reference: np.ndarray
    structures: dict[str, tuple[int, ...]]
    focus: str
    spacing_mm: tuple[float, ...]
    ct: np.ndarray | None = None


@dataclass(frozen=True)
class Picture:
    """A finished picture with its caption."""

    svg: str
    caption: str


def pictures(scene: Scene) -> list[Picture]:
    """The axial and the coronal slice in which prediction and reference of the focus differ most (2D: the image)."""
    wrong = _mask(scene.predicted, scene, scene.focus) != _mask(scene.reference, scene, scene.focus)
    if not wrong.any():
        wrong = _mask(scene.reference, scene, scene.focus) | (scene.reference > 0)
    if scene.reference.ndim == 2:
        return [Picture(_draw(scene, (slice(None), slice(None)), scene.spacing_mm, flip=False), "the image")]
    z = int(wrong.sum(axis=(1, 2)).argmax())
    y = int(wrong.sum(axis=(0, 2)).argmax())
    dz, dy, dx = scene.spacing_mm
    return [
        Picture(_draw(scene, (z, slice(None), slice(None)), (dy, dx), flip=False), f"axial, slice {z}"),
        Picture(_draw(scene, (slice(None), y, slice(None)), (dz, dx), flip=True), f"coronal, row {y}"),
    ]


def _mask(labels: np.ndarray, scene: Scene, structure: str) -> np.ndarray:
    return np.isin(labels, scene.structures[structure])


def _draw(scene: Scene, index: tuple, spacing_mm: tuple[float, float], *, flip: bool) -> str:
    predicted, reference = scene.predicted[index], scene.reference[index]
    window = crop_window((predicted > 0) | (reference > 0), spacing_mm)
    planes = [plane[window][::-1] if flip else plane[window] for plane in (predicted, reference)]
    ct = None if scene.ct is None else scene.ct[index][window][:: -1 if flip else 1]
    return MarkedImage(
        _background(ct, planes[0].shape),
        spacing_mm,
        f"{'coronal' if flip else 'axial'} slice with outlines of reference and prediction",
        tuple(_outlines(scene, *planes)),
        sides=("R", "L") if scene.reference.ndim == 3 else None,  # nobody knows how a 2D image lies
    ).svg()


def _outlines(scene: Scene, predicted: np.ndarray, reference: np.ndarray) -> Iterator[Outline]:
    for name, values in scene.structures.items():
        width = 1.6 if name == scene.focus else 0.9
        opacity = 1 if name == scene.focus or len(scene.structures) == 1 else 0.75
        for plane, colour in ((reference, REFERENCE_COLOUR), (predicted, PREDICTED_COLOUR)):
            yield Outline(np.isin(plane, values), colour, width, opacity, name)


def crop_window(anything: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[slice, slice]:
    """The part of a slice around everything labelled, with a margin; the whole slice where nothing is."""
    if not anything.any():
        return slice(None), slice(None)
    parts = []
    for axis, spacing in enumerate(spacing_mm):
        hit = np.flatnonzero(anything.any(axis=1 - axis))
        extent = (hit[-1] - hit[0] + 1) * spacing
        margin = int(np.ceil(max(_MARGIN_MM, (_LEAST_MM - extent) / 2) / spacing))
        parts.append(slice(max(int(hit[0]) - margin, 0), int(hit[-1]) + margin + 1))
    return parts[0], parts[1]


def _background(ct: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    if ct is None:
        return np.full(shape, _EMPTY_GREY, np.uint8)
    return grey_levels(ct, WINDOW_HU if ct.min() < 0 or ct.max() > 255 else (0.0, 255.0))
