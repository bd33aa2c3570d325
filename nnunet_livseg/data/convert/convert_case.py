"""Convert one case: read, check, reconcile, then link, copy or write."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path, digest, stamps
from nnunet_livseg.core.names import ending
from nnunet_livseg.data.align import align
from nnunet_livseg.data.align.agreement import picture
from nnunet_livseg.data.align.registration import TUMOR_CENTER
from nnunet_livseg.data.convert.reconcile_labels import clean_labels, label_on_image
from nnunet_livseg.data.convert.source_cases import NamedSource, SourceCase, VolumeSource
from nnunet_livseg.imaging.hounsfield import require_hounsfield, shifted_hu
from nnunet_livseg.imaging.images import LoadedImage, write_volume
from nnunet_livseg.imaging.orientation import mirrored_axes, orientation_code


@dataclass(frozen=True)
class ConversionOptions:
    """What the user chose; a change of any of it converts a case again.

    Args:
        link: Link to source files that nnU-Net can read as they are, instead of copying them.
        offset_hu: Added to every image, for sources whose intercept is lost.
        label_map: Source label value, or name of a segment -> 0, 1 or 2.
        align: How further phases are registered, one of ``align.METHODS``.
    """

    link: bool = True
    offset_hu: float = 0.0
    label_map: Mapping[int | str, int] = field(default_factory=dict)
    align: str = "rigid"


@dataclass(frozen=True)
class Target:
    """Where one case goes: part ``Tr`` or ``Ts``, and the dataset's file ending."""

    dataset: Path
    part: str
    file_ending: str

    def image(self, identifier: str, channel: int = 0) -> Path:
        return self.dataset / f"images{self.part}" / f"{identifier}_{channel:04d}{self.file_ending}"

    def label(self, identifier: str) -> Path:
        return self.dataset / f"labels{self.part}" / f"{identifier}{self.file_ending}"

    def picture(self, identifier: str, channel: int) -> Path:
        return self.dataset / "alignment" / f"{identifier}_{channel:04d}.png"


def convert_case(case: SourceCase, target: Target, settings: ConversionOptions) -> dict:
    """Convert one case and return its record (see ``docs/data.md``).

    Raises:
        UserError: What about the case cannot be used, with the file's name.
    """
    volume = case.image.read()
    image, notes, remarks = in_hounsfield(volume.image, settings.offset_hu, case.image.path)
    record = {"case": case.identifier, "patient": case.patient, "part": target.part, **_geometry(image)}
    label = None
    if case.label is not None:
        label_volume, values = _read_labels(case.label, image, settings.label_map)
        label, label_notes = clean_labels(label_volume.image, values, str(case.label.path))
        label, moved = label_on_image(image, label, f"{case.image.path} and {case.label.path}")
        label_notes = [
            *(f"label: {repair}" for repair in label_volume.notes),
            *label_notes,
            *([moved] if moved else []),
        ]
        record |= _contents(label)
    record["image"] = _store(case.image, image, target.image(case.identifier), settings, [*volume.notes, *notes])
    if label is not None:
        record["label"] = _store(case.label, label, target.label(case.identifier), settings, label_notes)
        notes = [*notes, *label_notes, *mirrored_axes(image, sitk.GetArrayViewFromImage(label) > 0)]
    record["notes"] = [*volume.notes, *notes, *remarks]
    for channel in range(1, 1 + len(case.phases)):
        record[f"phase_{channel}"], phase_notes = _add_phase(case, channel, image, label, target, settings)
        record["notes"] += phase_notes
    record["fingerprint"] = fingerprint(case, settings, target)
    return record


def _read_labels(
    source: VolumeSource, image: sitk.Image, mapping: Mapping[int | str, int]
) -> tuple[LoadedImage, Mapping]:
    """Labels as they are stored, and the values in them that are still to be changed."""
    if isinstance(source, NamedSource):
        return source.read_on(image, mapping)
    return source.read(), mapping


def _add_phase(
    case: SourceCase, channel: int, image, label, target: Target, settings: ConversionOptions
) -> tuple[dict, list]:
    """Register one further phase and write it and its picture; returns its record and notes."""
    source = case.phases[channel - 1]
    other, notes, _ = in_hounsfield(source.read().image, settings.offset_hu, source.path)
    labels = None
    if settings.align == TUMOR_CENTER:
        if label is None or len(case.phase_labels) < channel:
            raise UserError(
                f"{source.path}: tumor-center alignment needs the labels of both phases.\n"
                "  Add them to the table, or use --method rigid."
            )
        labels = label, case.phase_labels[channel - 1].read().image
    other_source = case.phase_masks[channel - 1] if case.phase_masks else None
    mask, other_mask = (found.read().image if found else None for found in (case.mask, other_source))
    aligned = align(image, other, method=settings.align, mask=mask, other_mask=other_mask, labels=labels)
    path = target.image(case.identifier, channel)
    write_volume(aligned.image, path)
    picture(image, aligned.unaligned, aligned.image, aligned.region, target.picture(case.identifier, channel))
    record = {
        "source": str(source.path.resolve()),
        "how": "aligned",
        "file": f"{path.parent.name}/{path.name}",
        **aligned.numbers(),
    }
    return record, [*notes, *(f"phase {channel}: {note}" for note in aligned.notes)]


def fingerprint(case: SourceCase, settings: ConversionOptions, target: Target) -> str:
    """Changes whenever a source file, the settings or the place of the result change."""
    paths = [path for source in case.sources() for path in [source.path, *sorted(source.path.rglob("*"))]]
    return digest([asdict(settings), target.part, target.file_ending, case.patient, stamps(paths)])[:16]


def in_hounsfield(image: sitk.Image, offset_hu: float, path: Path) -> tuple[sitk.Image, list[str], tuple[str, ...]]:
    """The image in Hounsfield units, what was done, and remarks; rejects what cannot be Hounsfield units."""
    notes = []
    if offset_hu:
        image = shifted_hu(image, offset_hu)
        notes.append(f"{offset_hu:+g} added to every voxel")
    remarks = require_hounsfield(sitk.GetArrayViewFromImage(image), str(path), remedy="--offset -1024")
    return image, notes, remarks


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


def _store(
    source: VolumeSource, image: sitk.Image, path: Path, settings: ConversionOptions, changes: list[str]
) -> dict:
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
            f"{path}: this file system does not support symbolic links ({error.strerror}).\n  Use --copy."
        ) from error
    temporary.replace(path)


def still_there(record: dict, target: Path) -> bool:
    """Whether the files of a finished case are still where its record says."""
    return all((target / file).exists() for file in files_of(record))


def files_of(record: dict) -> list[str]:
    """The files of a record, relative to the dataset."""
    return [entry["file"] for entry in record.values() if isinstance(entry, dict) and "file" in entry]
