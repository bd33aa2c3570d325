"""All axial slices of a result inside the page: JPEG pictures, outlines as paths, and a script to step through them."""

import base64
import io
import json
from importlib.resources import files

import numpy as np
from PIL import Image
from scipy import ndimage

from nnunet_livseg.core.labels import LIVER, mask_of
from nnunet_livseg.imaging.masks import bounding_box, label_components, only_largest, outlines
from nnunet_livseg.imaging.orientation import AXIAL, Box, SlicePlane
from nnunet_livseg.patient.segmentation import LISTED_LESIONS
from nnunet_livseg.report import page
from nnunet_livseg.report.key_slices import LESION_COLOR, LIVER_COLOR, OWN_NAMES, KeySlices
from nnunet_livseg.report.marked_image import WIDTH, MarkedImage, gray_levels

_MOST_BYTES = 12_000_000  # of pictures and outlines; the rest of a page takes up to 3 MB
_QUALITY = 60  # of JPEG: CT noise is blurred, edges and small lesions stay
_SMALLER = 0.8  # from one try to the next: width and height of the pictures, until they fit
_SAMPLES = 12  # slices that tell how large all will be
_BODY_HU, _THINNED = -200, 4  # every fourth voxel is enough to find the body
_HALVES = 2  # outlines run through the middles of pixels' edges: integers in half pixels

_HELP = (
    "Click the picture, then use the wheel, the arrow keys, page up and down (10 slices), home and end. "
    "Drag or swipe it sideways. The key o switches the outlines, escape gives the wheel back to the page."
)


def script() -> str:
    """The script that a page with ``viewer_section`` needs."""
    return files(__package__).joinpath("slice_viewer.js").read_text(encoding="utf-8")


def viewer_section(slices: KeySlices) -> str:
    """The section with all axial slices, from the feet to the head."""
    box = _body(slices)
    planes = [SlicePlane(AXIAL, position, box) for position in range(slices.view.shape[AXIAL])]
    empty = _empty_picture(slices, box)
    marks = [_marks(slices, plane, empty.units) for plane in planes]
    room = max(_MOST_BYTES - len(json.dumps(marks)), _MOST_BYTES // 4)
    pictures = _fitting_jpegs(slices, planes, room)
    content = [mark | {"jpeg": base64.b64encode(jpeg).decode()} for mark, jpeg in zip(marks, pictures, strict=True)]
    data = f'<script type="application/json" id="slice-data">{json.dumps(content, separators=(",", ":"))}</script>'
    viewer = f'<div class="viewer" hidden>\n{_frame(empty)}\n{_controls(slices)}\n</div>'
    no_script = '<noscript><p class="note">Scripts are switched off in this browser.</p></noscript>'
    lead = "Every axial slice, in the window of the key slices. A lesion's number in the table leads to its slice."
    return page.section("All slices", viewer, no_script, data, lead=lead, name="slices")


def lesion_links(slices: KeySlices) -> dict[int, str]:
    """Number of each listed lesion to the place in the page where the viewer shows it."""
    lesions = (slices.result.measurements.lesions or ())[:LISTED_LESIONS]
    positions = {lesion.number: slices.position_of_lesion(lesion, AXIAL) for lesion in lesions}
    return {number: f"slice-{slices.view.index(AXIAL, position)}" for number, position in positions.items()}


def _body(slices: KeySlices) -> Box:
    """What the pictures show, in the view: the body with liver and lesions; everything if there is no CT's air."""
    whole = tuple(slice(0, n) for n in slices.view.shape)
    thinned = slices.image[::_THINNED, ::_THINNED, ::_THINNED] > _BODY_HU
    if not slices.is_ct or not thinned.any():
        return whole
    body = bounding_box(only_largest(*label_components(thinned, neighbors=6)))
    boxes = [tuple(slice((s.start - 1) * _THINNED, (s.stop + 1) * _THINNED) for s in body)]
    boxes += [slices.box] if slices.own_box else []
    return tuple(
        slice(max(min(s.start for s in axis), 0), min(max(s.stop for s in axis), n))
        for axis, n in zip(zip(*boxes, strict=True), slices.view.shape, strict=True)
    )


def _marks(slices: KeySlices, plane: SlicePlane, units: np.ndarray) -> dict:
    """The slice's own number, outlines in half pixels, and lesions: number and its place (x, y) in units."""
    values = slices.result.structures.get(LIVER, ())
    marks = {"number": slices.view.index(AXIAL, plane.position), "liver": "", "tumor": "", "lesions": []}
    if values:
        marks["liver"] = outline_path(mask_of(plane.of(slices.labels), values))
    if slices.lesions is not None:
        lesions = plane.of(slices.lesions)
        marks["tumor"] = outline_path(lesions > 0)
        boxes = enumerate(ndimage.find_objects(lesions, LISTED_LESIONS), start=1) if marks["tumor"] else ()
        marks["lesions"] = [(n, *_upper_right(lesions[box] == n, box, units)) for n, box in boxes if box]
    return marks


def _upper_right(mask: np.ndarray, box: tuple[slice, slice], units: np.ndarray) -> list[int]:
    """Where to write beside a mask that fills ``box`` of a slice: (x, y) in the picture's units."""
    rows, columns = np.nonzero(mask)
    nearest = np.argmax(columns - rows)
    row, column = box[0].start + rows[nearest], box[1].start + columns[nearest] + 1
    return np.rint(units[::-1] * (column, row)).astype(int).tolist()


def outline_path(mask: np.ndarray) -> str:
    """SVG path around a mask (rows, columns) in half pixels, edge to edge; empty around nothing."""
    if not mask.any():
        return ""
    box = bounding_box(mask)
    corner = np.array([part.start for part in box]) + 0.5
    return "".join(_closed_line(np.rint((line + corner) * _HALVES).astype(int)) for line in outlines(mask[box]))


def _closed_line(points: np.ndarray) -> str:
    """A closed path through points (n, 2), (y, x), the last of which is the first: corners only, in relative steps."""
    steps = np.diff(points, axis=0)
    turns = np.flatnonzero((steps != np.roll(steps, 1, axis=0)).any(axis=1))
    corners = points[turns]
    (y, x), *moves = corners[:1].tolist() + np.diff(corners, axis=0).tolist()
    return f"M{x} {y}l" + " ".join(f"{right} {down}" for down, right in moves) + "z"


def _fitting_jpegs(slices: KeySlices, planes: list[SlicePlane], room: int) -> list[bytes]:
    """Pictures of all slices that take ``room`` bytes in base64 at most: smaller ones where there are many."""
    size, most = 1.0, room * 3 // 4
    sample = planes[:: max(len(planes) // _SAMPLES, 1)]
    while True:
        share = sum(len(_jpeg(slices, plane, size)) for plane in sample) / len(sample)
        if share * len(planes) <= most:
            found = [_jpeg(slices, plane, size) for plane in planes]
            if sum(map(len, found)) <= most:
                return found
        size *= _SMALLER


def _jpeg(slices: KeySlices, plane: SlicePlane, size: float) -> bytes:
    picture = Image.fromarray(gray_levels(plane.of(slices.image), slices.window))
    if size < 1:
        picture = picture.resize(tuple(max(round(n * size), 1) for n in picture.size), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    return stream.getvalue()


def _empty_picture(slices: KeySlices, box: Box) -> MarkedImage:
    """The marks that all slices have in common: sides and scale bar."""
    plane = SlicePlane(AXIAL, 0, box)
    blank = np.zeros_like(plane.of(slices.image), dtype=np.uint8)
    spacing_mm = tuple(slices.view.spacing_mm[axis] for axis in plane.axes)
    return MarkedImage(blank, spacing_mm, "axial slice", sides=("R", "L"), scale_bar=True)


def _frame(empty: MarkedImage) -> str:
    """Where the script shows a slice, with its outlines and numbers over it."""
    down, right = empty.units / _HALVES
    line = 'fill="none" vector-effect="non-scaling-stroke"'
    outlines = (
        f'<g class="outlines"><g transform="scale({right:.5f} {down:.5f})">'
        f'<path class="liver" stroke="{LIVER_COLOR}" stroke-width="1.3" {line}/>'
        f'<path class="tumor" stroke="{LESION_COLOR}" stroke-width="2" {line}/></g><g class="numbers"></g></g>'
    )
    ratio = f"--ratio: {WIDTH / empty.height:.4f}"
    return f'<div class="frame" style="{ratio}"><img alt="" draggable="false"/>{empty.svg(below=outlines)}</div>'


def _controls(slices: KeySlices) -> str:
    name = OWN_NAMES[slices.view.order[AXIAL]]
    last = slices.view.shape[AXIAL] - 1
    says = f'aria-label="Axial slice, from the feet to the head" data-name="{name}"'
    slider = f'<input type="range" min="0" max="{last}" value="{slices.first_axial}" {says}/>'
    switch = '<label><input type="checkbox" checked="checked"/> Outlines</label>'
    return f'<div class="controls">{slider}<output aria-live="off"></output>{switch}</div><p class="note">{_HELP}</p>'
