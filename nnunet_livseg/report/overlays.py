"""Pictures of a case: a slice of the CT with outlines of reference and prediction, axial and coronal.

The slice is a PNG inside the page, the outlines are drawn over it as paths, so that they stay sharp at any size.
Patients
are shown as radiologists see them: their right on the left of the picture, the head up in coronal slices.
"""

# Shapes: labels and CT (z, y, x) in the orientation LPS, or (y, x)

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from skimage.measure import find_contours

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
    window = _window((predicted > 0) | (reference > 0), spacing_mm)
    planes = [plane[window][::-1] if flip else plane[window] for plane in (predicted, reference)]
    ct = None if scene.ct is None else scene.ct[index][window][:: -1 if flip else 1]
    rows, columns = planes[0].shape
    height, width = rows * spacing_mm[0], columns * spacing_mm[1]
    scale = 320 / width  # strokes and letters have one size whatever the size of the patient
    marks = [_background(ct, planes[0].shape, 320, height * scale)]
    for name, values in scene.structures.items():
        stroke = 1.6 if name == scene.focus else 0.9
        for plane, colour in ((planes[1], REFERENCE_COLOUR), (planes[0], PREDICTED_COLOUR)):
            path = _outline(np.isin(plane, values), spacing_mm, scale)
            opacity = 1 if name == scene.focus or len(scene.structures) == 1 else 0.75
            if path:
                marks.append(
                    f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{stroke}" opacity="{opacity}" '
                    f'data-structure="{name}"/>'
                )
    if scene.reference.ndim == 3:  # nobody knows how a 2D image lies
        marks += _sides(320, height * scale)
    label = f"{'coronal' if flip else 'axial'} slice with outlines of reference and prediction"
    size = f'viewBox="0 0 320 {height * scale:.1f}"'
    return f'<svg {size} role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">{"".join(marks)}</svg>'


def _window(anything: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[slice, slice]:
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


def _background(ct: np.ndarray | None, shape: tuple[int, int], width: float, height: float) -> str:
    if ct is None:
        grey = np.full((1, 1), _EMPTY_GREY, np.uint8)
    else:
        low, high = WINDOW_HU if ct.min() < 0 or ct.max() > 255 else (0.0, 255.0)
        grey = (np.clip((ct.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(stream, format="PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    box = f'width="{width:g}" height="{height:.1f}" preserveAspectRatio="none"'
    return f'<image {box} href="data:image/png;base64,{data}"/>'


def _outline(mask: np.ndarray, spacing_mm: tuple[float, float], scale: float) -> str:
    """Path around a mask, in the picture's units; half a pixel outside the voxel centres, as voxels have an extent."""
    parts = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        points = (contour - 0.5) * spacing_mm * scale
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for y, x in points))
    return "".join(parts)


def _sides(width: float, height: float) -> list[str]:
    style = 'font-size="10" fill="#cbd3db" font-family="sans-serif"'
    middle = f"{height / 2 + 4:.1f}"
    return [f'<text x="4" y="{middle}" {style}>R</text>', f'<text x="{width - 11:g}" y="{middle}" {style}>L</text>']
