"""Convert one case: read, check, reconcile, then link, copy or write."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.data.convert.anatomy import doubts, orientation_code
from nnunet_livseg.data.convert.grids import label_on_image
from nnunet_livseg.data.convert.labels import clean_labels
from nnunet_livseg.data.convert.sources import SourceCase, VolumeSource
from nnunet_livseg.data.hounsfield import describe, require_hounsfield
from nnunet_livseg.data.volumes import Volume, ending, write_volume
from nnunet_livseg.errors import UserError
from nnunet_livseg.files import atomic_path


@dataclass(frozen=True)
class Settings:
    """What the user chose; a change of any of it converts a case again.

    Args:
        link: Link to source files that nnU-Net can read as they are, instead of copying them.
        offset_hu: Added to every image, for sources whose intercept is lost.
        label_map: Source label value -> 0, 1 or 2.
    """

    link: bool = True
    offset_hu: float = 0.0
    label_map: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """Where one case goes: part ``Tr`` or ``Ts``, and the data set's file ending."""

    dataset: Path
    part: str
    file_ending: str

    def image(self, identifier: str) -> Path:
        return self.dataset / f"images{self.part}" / f"{identifier}_0000{self.file_ending}"

    def label(self, identifier: str) -> Path:
        return self.dataset / f"labels{self.part}" / f"{identifier}{self.file_ending}"


def convert_case(case: SourceCase, target: Target, settings: Settings) -> dict:
    """Convert one case and return its record (see ``docs/data.md``).

    Raises:
        UserError: What about the case cannot be used, with the file's name.
    """
    volume = case.image.read()
    image, notes = _in_hounsfield(volume.image, settings.offset_hu, case.image.path)
    record = {"case": case.identifier, "patient": case.patient, "part": target.part, **_geometry(image)}
    label = None
    if case.label is not None:
        label_volume = case.label.read()
        label, label_notes = clean_labels(label_volume.image, settings.label_map, str(case.label.path))
        label, moved = label_on_image(image, label, f"{case.image.path} and {case.label.path}")
        label_notes = [*label_volume.repairs, *label_notes, *([moved] if moved else [])]
        record |= _contents(label)
    record["image"] = _store(case.image, image, target.image(case.identifier), settings, [*volume.repairs, *notes])
    if label is not None:
        record["label"] = _store(case.label, label, target.label(case.identifier), settings, label_notes)
        notes = [*notes, *label_notes, *doubts(image, sitk.GetArrayViewFromImage(label) > 0)]
    values = sitk.GetArrayViewFromImage(image)
    record["notes"] = [*volume.repairs, *notes, *describe(values)]
    record["fingerprint"] = fingerprint(case, settings, target)
    return record


def fingerprint(case: SourceCase, settings: Settings, target: Target) -> str:
    """Changes whenever a source file, the settings or the place of the result change."""
    parts = [repr(asdict(settings)), target.part, target.file_ending, case.patient]
    for source in filter(None, (case.image, case.label)):
        for path in [source.path, *sorted(source.path.rglob("*"))] if source.path.is_dir() else [source.path]:
            state = path.stat()
            parts.append(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _in_hounsfield(image: sitk.Image, offset_hu: float, path: Path) -> tuple[sitk.Image, list[str]]:
    notes = []
    if offset_hu:
        shifted = sitk.Cast(image, sitk.sitkFloat32) + offset_hu
        integral = not np.issubdtype(sitk.GetArrayViewFromImage(image).dtype, np.floating)
        image = sitk.Cast(shifted, sitk.sitkInt16) if integral and float(offset_hu).is_integer() else shifted
        notes.append(f"{offset_hu:+g} added to every voxel")
    require_hounsfield(sitk.GetArrayViewFromImage(image), str(path), remedy="--offset -1024")
    return image, notes


def _geometry(image: sitk.Image) -> dict:
    return {
        "shape": list(image.GetSize()[::-1]),
        "spacing_mm": [round(size, 6) for size in image.GetSpacing()[::-1]],
        "orientation": orientation_code(image),
    }


def _contents(label: sitk.Image) -> dict:
    voxel_ml = float(np.prod(label.GetSpacing())) / 1000
    counts = np.bincount(sitk.GetArrayViewFromImage(label).ravel(), minlength=3)
    return {
        "liver_ml": round(float(counts[1] + counts[2]) * voxel_ml, 3),
        "tumor_ml": round(float(counts[2]) * voxel_ml, 3),
    }


def _store(source: VolumeSource, image: sitk.Image, path: Path, settings: Settings, changes: list[str]) -> dict:
    """Put the volume at ``path``; returns how."""
    asis = source.linkable() and not changes and ending(source.path) == ending(path)
    if asis and settings.link:
        _link(source.path.resolve(), path)
        how = "linked"
    elif asis:
        with atomic_path(path) as temporary:
            shutil.copyfile(source.path, temporary)
        how = "copied"
    else:
        write_volume(image, path)
        how = "written"
    return {"source": str(source.path.resolve()), "how": how, "file": f"{path.parent.name}/{path.name}"}


def _link(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".incomplete-{path.name}")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(source)
    except OSError as error:
        raise UserError(
            f"{path}: this file system takes no symbolic links ({error.strerror}).\n  Use --copy instead of --link."
        ) from error
    temporary.replace(path)


def read_again(record: dict, target: Path) -> bool:
    """Whether the files of a finished case are still where its record says."""
    return all((target / record[kind]["file"]).exists() for kind in ("image", "label") if kind in record)


__all__ = ["Settings", "Target", "Volume", "convert_case", "fingerprint", "read_again"]
