"""3D-IRCADb-01: per patient a DICOM CT (``PATIENT_DICOM``) and one DICOM mask series per structure (``MASKS_DICOM``).

Soler et al., 3D-IRCADb-01, IRCAD Strasbourg. Both may be folders or zips, and so may the patient. Liver and all liver
tumor masks are merged; cysts and metastases of other names are not tumors here and are listed in the record.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER_AND_TUMOR
from nnunet_livseg.data.convert.source_cases import SourceCase, SourceDataset
from nnunet_livseg.data.dicom.geometry import stack
from nnunet_livseg.data.dicom.headers import read_slices
from nnunet_livseg.data.dicom.listing import choose, list_series
from nnunet_livseg.data.dicom.pixels import PixelReader
from nnunet_livseg.data.dicom.reading import read_listed
from nnunet_livseg.data.dicom.study_files import opened_folder
from nnunet_livseg.imaging.images import LoadedImage

_PATIENT = re.compile(r"3Dircadb1\.(\d+)(\.zip)?", re.IGNORECASE)
_TUMOR = re.compile(r"(liver[ _]?)?tumou?rs?[ _]?\d*|livertumou?rs?\w*", re.IGNORECASE)
_UNPACK = "Unpack the patient's archive again."
_LIVER_FINDING = re.compile(r"liver(?!$).*|meta.*", re.IGNORECASE)


def find(source: Path) -> SourceDataset:
    """Find the patients ``3Dircadb1.N`` below ``source`` (or ``source`` itself).

    Raises:
        UserError: No patient folders, or a patient twice (folder and zip).
    """
    found: dict[int, Path] = {}
    for path in [source, *sorted(source.iterdir())]:
        match = _PATIENT.fullmatch(path.name)
        if not match or (path.is_file() and not match[2]):
            continue
        if int(match[1]) in found:
            raise UserError(f"patient {match[1]} is there twice: {found[int(match[1])]} and {path}. Remove one.")
        found[int(match[1])] = path
    if not found:
        raise UserError(
            f"{source} contains no folders or zips named 3Dircadb1.1, 3Dircadb1.2, ...\n  Give the unpacked dataset."
        )
    cases = [
        SourceCase(f"ircadb_{number:02d}", f"ircadb_{number:02d}", PatientCT(path), PatientMasks(path))
        for number, path in sorted(found.items())
    ]
    return SourceDataset(
        cases,
        "IRCADb",
        "3D-IRCADb-01, IRCAD Strasbourg (Soler et al.): liver and merged liver tumors",
        "CC BY-NC-ND 4.0",
        remarks=(
            "3D-IRCADb-01 is part of LiTS (cases 28 to 47): never test a model on one if it was trained on the other.",
        ),
    )


@dataclass(frozen=True)
class PatientCT:
    """The CT of one patient folder or zip."""

    path: Path

    def read(self) -> LoadedImage:
        with _part(self.path, "PATIENT_DICOM") as folder:
            image, info = read_listed(choose(list_series(path for path in folder.rglob("*") if path.is_file())))
            return LoadedImage(image, list(info.notes))

    def linkable(self) -> bool:
        return False


@dataclass(frozen=True)
class PatientMasks:
    """Liver and merged tumor masks of one patient, as a label map on the CT's slices."""

    path: Path

    def read(self) -> LoadedImage:
        with _part(self.path, "MASKS_DICOM") as folder:
            structures = {path.name.lower(): path for path in sorted(folder.rglob("*")) if path.is_dir()}
            if "liver" not in structures:
                listed = ", ".join(structures) or "none"
                raise UserError(f"{self.path}: MASKS_DICOM contains no folder 'liver'; its structures: {listed}.")
            tumors = [name for name in structures if _TUMOR.fullmatch(name)]
            others = [name for name in structures if _LIVER_FINDING.fullmatch(name) and name not in tumors]
            label, geometry = _read_mask(structures["liver"])
            labels = np.where(label, LIVER_AND_TUMOR["liver"], 0).astype(np.uint8)
            for name in tumors:
                mask, _ = _read_mask(structures[name])
                if mask.shape != labels.shape:
                    raise UserError(
                        f"{self.path}: mask {name} has shape {mask.shape}, but the liver has {labels.shape}. {_UNPACK}"
                    )
                labels[mask] = LIVER_AND_TUMOR["tumor"]
        merged = [f"masks merged: liver, {', '.join(tumors)}" if tumors else "mask: liver; no tumor masks"]
        return LoadedImage(_on(geometry, labels), merged + [f"mask {name} not merged" for name in others])

    def linkable(self) -> bool:
        return False


@contextmanager
def _part(patient: Path, name: str) -> Iterator[Path]:
    """The folder ``name`` of a patient, whichever of the two is zipped."""
    with opened_folder(patient) as folder:
        parts = [
            path for path in sorted(folder.rglob("*")) if path.name.lower() in (name.lower(), f"{name.lower()}.zip")
        ]
        if not parts:
            raise UserError(f"{patient} contains neither {name} nor {name}.zip. {_UNPACK}")
        with opened_folder(parts[0]) as opened:
            yield opened


def _read_mask(folder: Path) -> tuple[np.ndarray, sitk.Image]:
    """A structure's mask ``(z, y, x)`` and an image with its geometry; any value above 0 is inside."""
    slices = [one for path in sorted(folder.iterdir()) if path.is_file() for one in read_slices(path)]
    if not slices:
        raise UserError(f"mask folder {folder.name} contains no DICOM images. {_UNPACK}")
    try:
        geometry = stack(slices)
    except UserError as error:
        raise UserError(f"mask {folder.name}: {error}. {_UNPACK}") from error
    if geometry.irregular:
        raise UserError(f"mask {folder.name}: {geometry.irregular}. {_UNPACK}")
    reader = PixelReader(intercept=0, padding_hu=None)
    planes = [reader.read(slices[index]) for index in geometry.order]
    image = sitk.GetImageFromArray(np.zeros((1, 1, 1), np.uint8))
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm.tolist())
    image.SetDirection(geometry.direction.ravel().tolist())
    return np.stack(planes) > 0, image


def _on(geometry: sitk.Image, labels: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(geometry.GetSpacing())
    image.SetOrigin(geometry.GetOrigin())
    image.SetDirection(geometry.GetDirection())
    return image
