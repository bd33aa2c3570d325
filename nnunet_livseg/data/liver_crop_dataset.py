"""A second-stage dataset: every case of an nnU-Net raw dataset cut to, or masked by, its liver.

``dataset.json`` of the new dataset says under ``livseg`` how it was cut. nnU-Net copies the file into trained models,
so prediction cuts new images in the same way.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_json
from nnunet_livseg.core.names import is_dataset_name, suggest_dataset_name
from nnunet_livseg.data.raw_dataset import RawCase, RawDataset, read_dataset_json
from nnunet_livseg.imaging.grid import spacing_of
from nnunet_livseg.imaging.images import read_scan, write_volume
from nnunet_livseg.imaging.liver_crop import (
    AIR_HU,
    MARGIN_MM,
    MODES,
    cut_image,
    cut_labels,
    find_region,
    liver_of,
)

KEY = "livseg"


@dataclass(frozen=True)
class Cutting:
    """How images are cut to the liver.

    Args:
        mode: ``"crop"``: the liver's box (SFAN); ``"mask"``: the box with everything outside the liver blanked
            (SAM + URIM).
        margin_mm: How far the box reaches beyond the liver.
    """

    mode: str = "crop"
    margin_mm: float = MARGIN_MM

    def checked(self) -> "Cutting":
        """This cutting, if it makes sense.

        Raises:
            UserError: It does not.
        """
        if self.mode not in MODES:
            raise UserError(f"there is no mode {self.mode!r} of cutting to the liver; known are {', '.join(MODES)}.")
        if not 0 <= self.margin_mm < 1000:
            raise UserError(f"the margin around the liver is {self.margin_mm:g} mm; it must be from 0 to below 1000.")
        return self

    @classmethod
    def of_model(cls, dataset_json: dict) -> "Cutting":
        """How the dataset was cut that a model was trained on, from its ``dataset.json``.

        Raises:
            UserError: It was not cut by ``livseg two-stage data``.
        """
        found = dataset_json.get(KEY, {}).get("two_stage")
        if found is None:
            raise UserError(
                "the tumor model was trained on whole images: its dataset.json does not say how they were cut."
                "\n  Train it on a dataset of livseg two-stage data, or predict with nnUNetv2_predict alone."
            )
        return cls(found["mode"], float(found["margin_mm"])).checked()


def is_cut(dataset_json: dict) -> bool:
    """Whether a dataset was cut to the liver by ``livseg two-stage data``."""
    return "two_stage" in dataset_json.get(KEY, {})


def fill_values(channels: list[str]) -> list[float | None]:
    """What stands outside the liver, per channel: air in a CT, otherwise the image's own minimum (``None``)."""
    return [AIR_HU if name.lower() == "ct" else None for name in channels]


def liver_values(dataset: RawDataset, *, where: str) -> set[int]:
    """Label values that are liver, tumors included.

    Raises:
        UserError: No label is liver by its name.
    """
    if not dataset.liver_values:
        raise UserError(
            f"{where}: no label is the liver by its name; the labels are {', '.join(dataset.labels)}."
            '\n  Name it "liver" in dataset.json, or take livers from another model\'s predictions.'
        )
    return dataset.liver_values | dataset.tumor_values


def write_region_dataset(
    source: RawDataset, out: Path, *, cutting: Cutting, livers: Path | None = None, progress: bool = True
) -> list[str]:
    """Write the dataset ``out`` (a folder ``DatasetNNN_Name``); what an interrupted run has finished is kept.

    Args:
        source: Where images and labels come from.
        out: Folder to write.
        cutting: How to cut.
        livers: Folder with a liver model's predictions (``CASE.ending``, nnU-Net's ``dataset.json`` beside them);
            left out, the labels' own livers are taken.
        progress: Whether to show a progress bar.

    Returns:
        Names of cases that were left out because they have no liver.

    Raises:
        UserError: A file is missing or does not fit, the labels name no liver, or ``out`` holds something else.
    """
    out = Path(out)
    content = _open(source, out, cutting.checked(), livers)
    finder = source if livers is None else _predictions(livers, source)
    values = liver_values(finder, where=str(livers or source.name))
    finished, without = content[KEY]["two_stage"]["boxes"], []
    cases = source.cases()
    for case in tqdm(cases, desc="crop to the liver", unit="case", disable=not progress):
        target = RawDataset(out, content).case(case.name)
        if case.name in finished and all(path.is_file() for path in (*target.images, target.label)):
            continue
        liver_file = case.label if livers is None else livers / f"{case.name}{source.file_ending}"
        box = _cut_case(case, target, liver_file, values, source, cutting)
        if box is None:
            without.append(case.name)
            continue
        finished[case.name] = box
        write_json(out / "dataset.json", content | {"numTraining": len(finished)})
    if not finished:
        raise UserError(f"no case of {source.name} has a liver, so there is nothing to write.")
    return without


def _cut_case(
    case: RawCase, target: RawCase, liver_file: Path, values: set[int], source: RawDataset, cutting: Cutting
) -> list[list[int]] | None:
    scans = [read_scan(path) for path in case.images]
    images = [scan.image for scan in scans]
    trusted = not scans[0].repairs  # predicted livers have the header that nnU-Net read, unrepaired
    livers = read_scan(liver_file).image
    liver = liver_of(livers, values, images[0], path=liver_file, compare_place=trusted)
    region = find_region(liver, spacing_mm=spacing_of(images[0]), margin_mm=cutting.margin_mm)
    if region is None:
        return None
    for image, path, fill in zip(images, target.images, fill_values(source.channels), strict=True):
        write_volume(cut_image(image, region, mode=cutting.mode, fill=fill), path)
    labels = livers if liver_file == case.label else read_scan(case.label).image
    write_volume(cut_labels(labels, region, mode=cutting.mode, ignore_label=source.ignore_label), target.label)
    return [list(axis) for axis in region.box]


def _open(source: RawDataset, out: Path, cutting: Cutting, livers: Path | None) -> dict:
    """``dataset.json`` of the new dataset: a new one, or that of an interrupted run with the same arguments."""
    if not is_dataset_name(out.name):
        raise UserError(
            f"{out.name} is no name for nnU-Net: it must be DatasetNNN_Name, for example "
            f"{suggest_dataset_name(out.name)}."
        )
    said = {**asdict(cutting), "source": source.name, "livers": "labels" if livers is None else str(livers.absolute())}
    path = out / "dataset.json"
    if path.is_file():
        content = read_dataset_json(out)
        found = content.get(KEY, {}).get("two_stage", {})
        if {key: found.get(key) for key in said} != said:
            raise UserError(f"{out} holds another dataset, which stays as it is.\n  Choose another --out.")
        return content
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and has no dataset.json.\n  Choose another --out.")
    content = json.loads(json.dumps({key: value for key, value in source.json.items() if key != "dataset"}))
    content[KEY] = {"two_stage": {**said, "boxes": {}}}
    return content


def _predictions(folder: Path, source: RawDataset) -> RawDataset:
    """The liver model's labels: nnU-Net leaves its ``dataset.json`` beside the predictions."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} with predicted livers.")
    return RawDataset.open(folder) if (folder / "dataset.json").is_file() else RawDataset(folder, source.json)
