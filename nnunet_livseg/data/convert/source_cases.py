"""What a source module returns: cases, and how to read their volumes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import SimpleITK as sitk

from nnunet_livseg.core.labels import LIVER, LIVER_AND_TUMOR, TUMOR, Structures
from nnunet_livseg.core.names import ending
from nnunet_livseg.imaging.images import LoadedImage, read_volume
from nnunet_livseg.imaging.nifti_header import is_packed


def our_values(structures: Structures) -> dict[int, int]:
    """Map label values of a source to ours; other structures become -1, which the user must explain (``--map``)."""
    known = structures.known or {v for values in structures.values.values() for v in values}
    ours = dict.fromkeys(structures.healthy, LIVER_AND_TUMOR[LIVER])
    ours |= dict.fromkeys(structures.values.get(TUMOR, ()), LIVER_AND_TUMOR[TUMOR])
    mapped = {v: ours.get(v, -1) for v in {*known, structures.ignore} - {0, None}}
    return {value: new for value, new in mapped.items() if new != value}


class VolumeSource(Protocol):
    """Something a volume can be read from."""

    path: Path

    def read(self) -> LoadedImage:
        """Read it; raises UserError with the file that broke an expectation."""

    def linkable(self) -> bool:
        """Whether nnU-Net could read ``path`` itself."""


@runtime_checkable
class NamedSource(Protocol):
    """Something that labels can be read from, by the names of its segments if it has such."""

    path: Path

    def read_on(self, image: sitk.Image, mapping: Mapping[int | str, int]) -> tuple[LoadedImage, Mapping[int, int]]:
        """The labels for ``image``, and the values that are still to be changed by ``mapping``."""


@dataclass(frozen=True)
class FileVolume:
    """A volume file."""

    path: Path

    def read(self) -> LoadedImage:
        return read_volume(self.path)

    def linkable(self) -> bool:
        packed = is_packed(self.path)
        return self.path.name.endswith(".nii.gz") if packed else ending(self.path) == ".nii" == self.path.suffix


@dataclass(frozen=True)
class SourceCase:
    """One case of a source.

    Args:
        identifier: nnU-Net's case identifier.
        patient: Cases of one patient stay on one side of every split.
        image: The CT.
        label: The label map; None for a test case without one.
        test: Whether the source itself keeps the case for testing.
        phases: Further contrast phases, registered to the image.
        mask: Liver on the image that registration may look at, e.g. a model's prediction.
        phase_masks: The same on the further phases, in their order; None where there is none.
        phase_labels: Reference labels of the phases, for tumor-center alignment alone.
    """

    identifier: str
    patient: str
    image: VolumeSource
    label: VolumeSource | None
    test: bool = False
    phases: tuple[VolumeSource, ...] = ()
    mask: VolumeSource | None = None
    phase_masks: tuple[VolumeSource | None, ...] = ()
    phase_labels: tuple[VolumeSource, ...] = ()

    def sources(self) -> list[VolumeSource]:
        """Everything that is read for this case."""
        given = (self.image, self.label, *self.phases, self.mask, *self.phase_masks, *self.phase_labels)
        return [source for source in given if source is not None]


@dataclass(frozen=True)
class SourceDataset:
    """All cases of a source, and what the dataset is.

    Args:
        cases: In a stable order.
        default_name: nnU-Net's dataset name if the user gives none.
        description: One sentence for ``dataset.json``.
        licence: As the publisher states it.
        label_map: Source label value -> ours; values not named must already be 0, 1 or 2.
        remarks: What the user should know about this source.
        phases: Names of the channels where cases have several phases; the first is the primary one.
    """

    cases: list[SourceCase]
    default_name: str
    description: str
    licence: str
    label_map: Mapping[int, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    phases: tuple[str, ...] = ("CT",)
