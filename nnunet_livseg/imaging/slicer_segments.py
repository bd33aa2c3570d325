"""The segments of a ``.seg.nrrd`` of 3D Slicer: any NRRD whose header names segments.

Segments that overlap lie in several layers, which ITK reads as components of one voxel.
"""

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.imaging.grid import ImageGrid
from nnunet_livseg.imaging.named_segments import NamedSegments

_KEY = re.compile(r"(Segment(\d+)_)LabelValue")
_TERMS = re.compile(r"TerminologyEntry:([^|]*)")


def segments_of(image: sitk.Image, path: Path) -> NamedSegments | None:
    """The segments that the header of a 3D ``image`` names; None where it names none.

    Raises:
        UserError: The header contradicts itself or the voxels.
    """
    prefixes = segment_prefixes(image)
    if not prefixes or image.GetDimension() != 3:
        return None
    values, names = {}, {}
    for number, entries in enumerate(prefixes, start=1):
        try:
            value, layer = (int(_entry(image, f"{entries}{part}", "0")) for part in ("LabelValue", "Layer"))
        except ValueError as error:
            raise UserError(
                f"{path}: {entries}LabelValue or {entries}Layer in its header is not a number."
                " Save it again in 3D Slicer."
            ) from error
        if not 0 <= layer < image.GetNumberOfComponentsPerPixel():
            raise UserError(
                f"{path}: segment {number} is in layer {layer}, but the file has"
                f" {image.GetNumberOfComponentsPerPixel()}. Save it again in 3D Slicer."
            )
        values[number] = layer, value
        label = _entry(image, f"{entries}Name", "").strip() or f"Segment {number}"
        names[number] = (label, *_meaning(_entry(image, f"{entries}Tags", "")))
    numbered = len({value for _, value in values.values()}) == len(values)  # label values tell the segments apart
    numbers = {number: value if numbered else number for number, (_, value) in values.items()}
    places = {numbers[number]: place for number, place in values.items()}
    voxels = sitk.GetArrayFromImage(image).reshape(*image.GetSize()[::-1], -1)

    def mask(number: int, grid: ImageGrid) -> np.ndarray:
        layer, value = places[number]
        return voxels[..., layer] == value

    named = {numbers[number]: found for number, found in names.items()}
    return NamedSegments(path, named, mask, ImageGrid.of(image), numbered=numbered)


def segment_prefixes(header: sitk.Image | sitk.ImageFileReader) -> list[str]:
    """How the entries of each segment begin that has a label value, in order: ``Segment0_``."""
    found = filter(None, map(_KEY.fullmatch, header.GetMetaDataKeys()))
    return [key[1] for key in sorted(found, key=lambda key: int(key[2]))]


def _entry(image: sitk.Image, key: str, otherwise: str) -> str:
    return image.GetMetaData(key) if image.HasMetaDataKey(key) else otherwise


def _meaning(tags: str) -> list[str]:
    """Region and type of a terminology entry, as one name: ``Liver Neoplasm``."""
    found = _TERMS.search(tags)
    parts = found[1].split("~") if found else []
    terms = [parts[place].split("^")[-1] for place in (5, 2) if place < len(parts)]  # CONTEXT~CATEGORY~TYPE~...~REGION
    return [" ".join(filter(None, terms))] if any(terms) else []
