"""Names of label values that some programs write into the label map's own file."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import nibabel
import SimpleITK as sitk

from nnunet_livseg.imaging.nifti import named_as
from nnunet_livseg.imaging.slicer_segments import segment_prefixes


def label_names(path: Path) -> dict[str, int | list[int]]:
    """Names to values, like ``labels`` in a ``dataset.json``; empty if the file has none or cannot be read.

    Reads the label table in a NIfTI header (TotalSegmentator, Connectome Workbench) and the segments of 3D Slicer's
    NRRD files.
    """
    name = path.name.lower()
    read = _nifti_names if name.endswith((".nii", ".nii.gz")) else _nrrd_names if name.endswith(".nrrd") else None
    values: dict[str, list[int]] = defaultdict(list)
    try:
        for found, value in read(path) if read else ():
            values[found].append(int(value))
    except (OSError, ValueError, RuntimeError, ElementTree.ParseError, nibabel.filebasedimages.ImageFileError):
        return {}
    return {found: numbers[0] if len(numbers) == 1 else numbers for found, numbers in values.items()}


def _nifti_names(path: Path) -> Iterator[tuple[str, str]]:
    for extension in getattr(nibabel.load(path).header, "extensions", ()):
        content = extension.get_content()
        content = content.encode() if isinstance(content, str) else content
        if b"<LabelTable" in content:
            for label in ElementTree.fromstring(content.rstrip(b"\0 \n")).iter("Label"):
                if label.get("Key") not in (None, "0"):
                    yield (label.text or "").strip(), label.get("Key")


def _nrrd_names(path: Path) -> Iterator[tuple[str, str]]:
    reader = sitk.ImageFileReader()
    with named_as(path, path.suffix) as fitting:
        reader.SetFileName(str(fitting))
        reader.ReadImageInformation()
    for prefix in segment_prefixes(reader):
        if reader.HasMetaDataKey(f"{prefix}Name"):
            yield reader.GetMetaData(f"{prefix}Name"), reader.GetMetaData(f"{prefix}LabelValue")
