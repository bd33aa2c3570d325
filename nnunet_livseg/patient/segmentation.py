"""The records of one segmented CT: lesions, measurements, and everything together.

Plain data without torch, so that reports and DICOM objects can be made from it anywhere. Array indices are
``(z, y, x)`` of the image's own grid; points are patient coordinates ``(x, y, z)`` in mm as in DICOM and SimpleITK
(LPS: towards left, back, head).
"""

from dataclasses import dataclass, field

import SimpleITK as sitk

from nnunet_livseg.core.labels import LIVER, TUMOR
from nnunet_livseg.data.dicom.reading import SeriesInfo

Point = tuple[float, float, float]
LISTED_LESIONS = 200  # one by one in reports, the largest: a DICOM report takes a tenth of a second for each


@dataclass(frozen=True)
class Diameter:
    """A straight line from outer voxel face to outer voxel face.

    Args:
        length_mm: Its length.
        ends_mm: Its two ends, patient coordinates.
        slice_index: Index of the axial slice in which it lies, along the array's axis nearest to head and feet; None
            where it may lie in any direction.
    """

    length_mm: float
    ends_mm: tuple[Point, Point]
    slice_index: int | None = None


@dataclass(frozen=True)
class Lesion:
    """One tumor, connected through faces.

    Args:
        number: From 1, largest first; its value in ``Segmentation.lesions``.
        volume_ml: Voxels times voxel size.
        diameter: Longest, in any direction.
        axial_diameter: Longest within one slice of the planes that are nearest to axial ones.
        mean_hu: Mean of the image's first channel.
        sd_hu: Its standard deviation.
        center_mm: Center of gravity, patient coordinates.
        box: Smallest box that holds it, one slice per axis (z, y, x).
        confidence: Mean probability of tumor over the lesion, 0 to 1; None where no probabilities were kept.
        agreement: Share of the single predictions (folds, mirrored copies, overlapping patches) that say tumor over
            the lesion, 0 to 1; None unless asked for.
    """

    number: int
    volume_ml: float
    diameter: Diameter
    axial_diameter: Diameter
    mean_hu: float
    sd_hu: float
    center_mm: Point
    box: tuple[slice, slice, slice]
    confidence: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class StructureSize:
    """Volume and density of a structure; NaN densities for an empty one."""

    volume_ml: float
    mean_hu: float
    sd_hu: float


@dataclass(frozen=True)
class Measurements:
    """What is measured on one CT.

    Args:
        structures: By name; the liver includes its tumors.
        lesions: Largest first; None where the model has no label for tumors.
        truncated: Names of structures that touch the border of the image, so that they may go on outside the image.
    """

    structures: dict[str, StructureSize]
    lesions: tuple[Lesion, ...] | None
    truncated: tuple[str, ...] = ()

    @property
    def liver_ml(self) -> float | None:
        """Volume of the liver with its tumors; None where the model has no label for it."""
        return self.structures[LIVER].volume_ml if LIVER in self.structures else None

    @property
    def tumor_ml(self) -> float | None:
        """Volume of all tumors; None where the model has no label for them."""
        return self.structures[TUMOR].volume_ml if TUMOR in self.structures else None

    @property
    def tumor_burden(self) -> float | None:
        """Tumor volume over liver volume (tumors included), 0 to 1; None where one is unknown or 0 ml of liver."""
        return self.tumor_ml / self.liver_ml if self.liver_ml and self.tumor_ml is not None else None


@dataclass(frozen=True)
class Provenance:
    """How a result came about; holds no patient data.

    Args:
        model: Dataset, trainer, plans and configuration of the model, as its folder is named.
        folds: Folds whose predictions were averaged.
        checkpoint: File name of the weights.
        quality: ``fast``, ``standard``, ``best`` or ``custom``.
        settings: Mirroring, step size, postprocessing and so on, as shown to people.
        device: ``cpu``, ``cuda`` or ``mps``.
        seconds: Wall time from reading to measuring; the first case's includes loading the model.
        versions: Of this package, nnU-Net, torch.
        stages: Wall seconds by stage of the work; see ``core.clock``.
    """

    model: str
    folds: tuple[str, ...]
    checkpoint: str
    quality: str
    settings: dict[str, str]
    device: str
    seconds: float
    versions: dict[str, str]
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Segmentation:
    """Everything about one segmented CT. All images share one grid: that of the input.

    Args:
        name: Short name of the case, safe as a file name.
        image: Input, first channel, HU.
        labels: Label map with the model's label values, 8 bit.
        structures: Structure to its label values in ``labels``; the liver includes the tumor's.
        lesions: Lesion numbers (``Lesion.number``), 0 elsewhere; None where the model has no label for tumors.
        measurements: What was measured.
        provenance: How it came about.
        probabilities: By structure, 0 to 1, float32; empty unless asked for.
        uncertainty: Entropy of the mean prediction over the output labels, 0 (certain) to 1; None unless asked.
        series: The DICOM series it was read from; None for other inputs.
        notes: What departed from a plain case (repairs, resampling, postprocessing), for people.
    """

    name: str
    image: sitk.Image
    labels: sitk.Image
    structures: dict[str, tuple[int, ...]]
    lesions: sitk.Image | None
    measurements: Measurements
    provenance: Provenance
    probabilities: dict[str, sitk.Image] = field(default_factory=dict)
    uncertainty: sitk.Image | None = None
    series: SeriesInfo | None = None
    notes: tuple[str, ...] = ()
