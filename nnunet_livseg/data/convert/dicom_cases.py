"""Cases of a folder or table that are DICOM: CT series, and label maps whose segments have names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER, LIVER_AND_TUMOR, TUMOR
from nnunet_livseg.data.convert.source_cases import FileVolume
from nnunet_livseg.data.dicom.listing import choose, list_series
from nnunet_livseg.data.dicom.reading import read_listed
from nnunet_livseg.data.dicom.study_files import dicom_files
from nnunet_livseg.data.segment_files import open_segments, painted, series_of
from nnunet_livseg.imaging.grid import ImageGrid
from nnunet_livseg.imaging.images import LoadedImage

_OURS = {LIVER: (LIVER_AND_TUMOR[LIVER], LIVER_AND_TUMOR[TUMOR]), TUMOR: (LIVER_AND_TUMOR[TUMOR],)}


@dataclass(frozen=True)
class LabelFile(FileVolume):
    """A label map; or a DICOM SEG, an RT structure set or a ``.seg.nrrd``, whose segments have names."""

    def read_on(self, image: sitk.Image, mapping: Mapping[int | str, int]) -> tuple[LoadedImage, Mapping[int, int]]:
        """The labels, of named segments on the grid of ``image``, and the values that are still to be changed.

        Args:
            image: The CT.
            mapping: Label values, or names of segments, to our values.

        Raises:
            UserError: It cannot be read, or a segment is neither liver nor tumor by its name and ``mapping``.
        """
        values = {old: new for old, new in mapping.items() if isinstance(old, int)}
        segments = open_segments(self.path)
        if segments is None:
            return self.read(), values
        given = {old: new for old, new in mapping.items() if isinstance(old, str)}
        if others := segments.values(_OURS, given)[1]:
            names = [segments.label(number) for number in others]
            raise UserError(
                f"{self.path} has segments that are neither liver nor tumor by their names: {', '.join(names)}.\n"
                f"  Say what they are, for example --map '{names[0]}=0' (background), '=1' (liver) or '=2' (tumor)."
            )
        label, notes, _ = painted(segments, _OURS, ImageGrid.of(image), given=given)
        told = [f"{role} by the name of {segments.listed(role)}" for role in _OURS if segments.listed(role)]
        return LoadedImage(label, [*notes, *told]), {} if told or given else values


@dataclass(frozen=True)
class DicomSeries:
    """A CT series in a folder or zip.

    Args:
        path: Folder of the study.
        drawn_on: A segmentation, which names the series where the study has several.
    """

    path: Path
    drawn_on: Path | None = None

    def read(self) -> LoadedImage:
        with dicom_files(self.path) as files:
            series = list_series(files)
            named = set(series_of(self.drawn_on)) if self.drawn_on else set()
            wanted = [one for one in series if one.uid in named]
            if named and not wanted:
                raise UserError(
                    f"{self.drawn_on} was drawn on another series than those in {self.path}: its UID is not there.\n"
                    "  Give the study of that series; or, if you know that they belong together, a volume of the CT."
                )
            image, info = read_listed(choose(wanted or series))
            return LoadedImage(image, list(info.notes))

    def linkable(self) -> bool:
        return False
