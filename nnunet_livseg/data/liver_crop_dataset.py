"""A second-stage dataset: every case of an nnU-Net raw dataset cut to, or masked by, its liver.

``dataset.json`` of the new dataset says under ``livseg`` how it was cut. nnU-Net copies the file into trained models,
so prediction cuts new images in the same way.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunet_livseg.core.dataset_json import read_dataset_json
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import as_read, write_json
from nnunet_livseg.core.labels import LIVER, Structures, require_known
from nnunet_livseg.core.names import is_dataset_name, suggest_dataset_name
from nnunet_livseg.core.output_folder import require_folder
from nnunet_livseg.data.raw_dataset import RawCase, RawDataset
from nnunet_livseg.imaging.grid import spacing_of
from nnunet_livseg.imaging.images import read_image, write_volume
from nnunet_livseg.imaging.liver_crop import (
    KEY,
    LiverCrop,
    crop_image,
    crop_labels,
    fill_values,
    find_liver_box,
    liver_of,
)


def require_liver(dataset: RawDataset, *, where: str) -> Structures:
    """What the labels of livers mean.

    Raises:
        UserError: No label is liver by its name.
    """
    if LIVER not in dataset.structures.values:
        raise UserError(
            f"{where}: no label is named liver; the labels are {', '.join(dataset.labels)}."
            '\n  Rename the liver\'s label to "liver" in dataset.json, or give livers that another model has predicted.'
        )
    return dataset.structures


def liver_in(path: Path, labels: sitk.Image, structures: Structures, image: sitk.Image, *, trusted: bool) -> np.ndarray:
    """The liver of a label map ``labels``, read from ``path``, on ``image``: ``(Z, Y, X)``.

    Raises:
        UserError: The label map lies elsewhere, or contains undeclared values.
    """
    require_known(sitk.GetArrayViewFromImage(labels), structures, f"label map {path}", may_ignore=True)
    return liver_of(labels, structures.values[LIVER], image, path=path, compare_place=trusted)


def write_region_dataset(
    source: RawDataset, out: Path, *, cutting: LiverCrop, livers: Path | None = None, progress: bool = True
) -> list[str]:
    """Write the dataset ``out`` (a folder ``DatasetNNN_Name``); what an interrupted run has finished is kept.

    Args:
        source: Where images and labels come from.
        out: Folder to write.
        cutting: How to cut.
        livers: Folder with a liver model's predictions (``CASE.ending``, nnU-Net's ``dataset.json`` beside them).
            Defaults to the livers of the labels.
        progress: Whether to show a progress bar.

    Returns:
        Names of cases that were skipped because they have no liver.

    Raises:
        UserError: A file is missing or does not fit, the labels name no liver, or ``out`` holds something else.
    """
    out = Path(out)
    content = _open(source, out, cutting.validated(), livers)
    finder = source if livers is None else predicted_livers(livers, source)
    structures = require_liver(finder, where=str(livers or source.name))
    finished, without = content[KEY]["two_stage"]["boxes"], []
    cases = source.cases()
    for case in tqdm(cases, desc="crop to the liver", unit="case", disable=not progress):
        target = RawDataset(out, content).case(case.name)
        if case.name in finished and all(path.is_file() for path in (*target.images, target.label)):
            continue
        liver_file = case.label if livers is None else livers / f"{case.name}{source.file_ending}"
        box = _cut_case(case, target, liver_file, structures, source, cutting)
        if box is None:
            without.append(case.name)
            continue
        finished[case.name] = box
        write_json(out / "dataset.json", content | {"numTraining": len(finished)})
    if not finished:
        raise UserError(
            f"no case of {source.name} has a liver, so there is nothing to write.\n"
            "  Correct the label maps, or give livers that a model has predicted."
        )
    return without


def _cut_case(
    case: RawCase, target: RawCase, liver_file: Path, structures: Structures, source: RawDataset, cutting: LiverCrop
) -> list[list[int]] | None:
    scans = [read_image(path) for path in case.images]
    images = [scan.image for scan in scans]
    trusted = not scans[0].notes  # predicted livers have the header that nnU-Net read, unrepaired
    livers = read_image(liver_file).image
    liver = liver_in(liver_file, livers, structures, images[0], trusted=trusted)
    region = find_liver_box(liver, spacing_mm=spacing_of(images[0]), margin_mm=cutting.margin_mm)
    if region is None:
        return None
    for image, path, fill in zip(images, target.images, fill_values(source.channels), strict=True):
        write_volume(crop_image(image, region, mode=cutting.mode, fill=fill), path)
    labels = livers if liver_file == case.label else read_image(case.label).image
    write_volume(crop_labels(labels, region, mode=cutting.mode, ignore_label=source.structures.ignore), target.label)
    return [list(axis) for axis in region.box]


def _open(source: RawDataset, out: Path, cutting: LiverCrop, livers: Path | None) -> dict:
    """``dataset.json`` of the new dataset: a new one, or that of an interrupted run with the same arguments."""
    if not is_dataset_name(out.name):
        raise UserError(
            f"{out.name} is not a name for nnU-Net: it must be DatasetNNN_Name, for example "
            f"{suggest_dataset_name(out.name)}."
        )
    said = {**asdict(cutting), "source": source.name, "livers": "labels" if livers is None else str(livers.absolute())}
    inputs = [source.folder, *([livers] if livers else [])]
    require_folder(out, inputs=inputs, record="dataset.json", remedy="Choose another --out.")
    if (out / "dataset.json").is_file():
        content = dict(read_dataset_json(out).content)
        found = content.get(KEY, {}).get("two_stage", {})
        if {key: found.get(key) for key in said} != said:
            raise UserError(f"{out} contains another dataset, which stays as it is.\n  Choose another --out.")
        return content
    content = as_read({key: value for key, value in source.json.items() if key != "dataset"})
    content[KEY] = {"two_stage": {**said, "boxes": {}}}
    return content


def predicted_livers(folder: Path, source: RawDataset) -> RawDataset:
    """The liver model's labels: nnU-Net leaves its ``dataset.json`` beside the predictions."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} with predicted livers. Correct the path.")
    return RawDataset.open(folder) if (folder / "dataset.json").is_file() else RawDataset(folder, source.json)
