"""Two-stage prediction: a liver model finds the region, a tumor model segments it, the result is on the image's grid.

The first stage of SFAN (the liver's box) and of SAM + URIM (everything outside the liver blanked). The tumor model is
trained on a dataset of ``data.liver_crop_dataset``, which tells prediction how to cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk
import torch

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import Structures
from nnunet_livseg.data.liver_crop_dataset import Cutting, fill_values, liver_in, require_liver
from nnunet_livseg.data.raw_dataset import RawDataset
from nnunet_livseg.imaging.grid import spacing_of
from nnunet_livseg.imaging.images import is_hidden, on_grid, read_scan, write_volume
from nnunet_livseg.imaging.liver_crop import Region, cut_image, find_region, put_back
from nnunet_livseg.inference.devices import best_device, require_device
from nnunet_livseg.inference.quality import quality_of
from nnunet_livseg.inference.trained_model import TrainedModel
from nnunet_livseg.multiscale import predictor_with


def stage_model(folder: Path, folds: Sequence[str] | None = None) -> TrainedModel:
    """The trained model of one of the two stages.

    Raises:
        UserError: The folder is no model of nnU-Net, or one that needs another model's segmentations.
    """
    model = TrainedModel.open(folder, folds=folds and tuple(folds))
    if model.previous_configuration is not None:
        raise UserError(
            f"{model.folder.name} is the second model of nnU-Net's cascade and reads the first one's segmentations."
            "\n  Take a model of 2d, 3d_fullres or 3d_lowres for either stage."
        )
    return model


@dataclass(frozen=True)
class Options:
    """How both models predict: nnU-Net's own options, and the scales of the tumor model (``multiscale``).

    Raises:
        UserError: The device is not here, or the step size is out of range.
    """

    device: str = field(default_factory=best_device)
    mirroring: bool = True
    step_size: float = 0.5
    scales: tuple[float, ...] = (1.0,)
    processes: int = 2

    def __post_init__(self) -> None:
        require_device(self.device)
        quality_of(step_size=self.step_size)  # refuses what is no share of the patch


@dataclass(frozen=True)
class Case:
    """An image of one or more channels, and what happens to it."""

    name: str
    images: tuple[Path, ...]


def predict_two_stage(
    images: Path, out: Path, *, liver: TrainedModel | Path, tumor: TrainedModel, options: Options | None = None
) -> list[str]:
    """Segment all cases of a folder into ``out``, on the grid of the images.

    Args:
        images: Folder as nnU-Net takes it (``CASE_0000.ending``), with the tumor model's channels.
        out: Folder for the segmentations; those of the liver model stay in ``out/liver``.
        liver: Liver model, or a folder with livers that were predicted before.
        tumor: Tumor model; its ``dataset.json`` says how its images were cut.
        options: How to predict.

    Returns:
        Names of cases in which no liver was found; their segmentation is background.

    Raises:
        UserError: A folder, model or file is missing or does not fit.
    """
    options = options or Options()
    if not isinstance(liver, TrainedModel):
        _require_other_place(Path(liver), Path(out))
    cutting, dataset = Cutting.of_model(tumor.dataset.json), tumor.dataset
    cases = _cases(images, dataset)
    livers, finder = _predicted_livers(cases, liver, Path(out) / "liver", dataset, options)
    structures = require_liver(finder, where=str(finder.folder))
    without = []
    with TemporaryDirectory(dir=_made(out), prefix=".two-stage-") as folder:
        regions: dict[str, Region] = {}
        cut: list[Case] = []
        for case in cases:
            region = _region(case, livers[case.name], structures, cutting)
            if region is None:
                without.append(case.name)
                continue
            regions[case.name] = region
            cut.append(_cut_case(case, region, Path(folder) / "images", dataset, cutting))
        _predict(cut, Path(folder) / "segmentations", tumor, options)
        for case in cases:
            found = Path(folder) / "segmentations" / f"{case.name}{dataset.file_ending}"
            result = _result(case, found, regions.get(case.name), cutting)
            write_volume(result, Path(out) / f"{case.name}{dataset.file_ending}")
    return without


def _require_other_place(livers: Path, out: Path) -> None:
    if out.resolve() == livers.resolve():
        raise UserError(
            f"{out} holds the predicted livers, which the results would overwrite. Choose another folder with -o."
        )


def _cases(images: Path, dataset: RawDataset) -> list[Case]:
    """Cases of a folder, with all channels of the tumor model."""
    if not Path(images).is_dir():
        raise UserError(f"there is no folder {images}.")
    files = [
        path
        for path in sorted(Path(images).iterdir())
        if path.name.endswith(dataset.file_ending) and not is_hidden(path)
    ]
    names = sorted({name for name, _ in map(dataset.split_name, files) if name})
    if not names:
        raise UserError(
            f"{images} holds no images named CASE_0000{dataset.file_ending}, as the tumor model takes them."
        )
    cases = [
        Case(name, tuple(Path(images) / f"{name}_{c:04d}{dataset.file_ending}" for c in range(len(dataset.channels))))
        for name in names
    ]
    missing = [path for case in cases for path in case.images if not path.is_file()]
    if missing:
        channel = dataset.channels[int(dataset.split_name(missing[0])[1])]
        raise UserError(f"{missing[0]} is missing; the tumor model needs this channel ({channel}) of every case.")
    return cases


def _predicted_livers(
    cases: list[Case], liver: TrainedModel | Path, folder: Path, dataset: RawDataset, options: Options
) -> tuple[dict[str, Path], RawDataset]:
    """Files with the livers, and the dataset whose labels they have."""
    if isinstance(liver, TrainedModel):
        finder = liver.dataset
        if finder.file_ending != dataset.file_ending or len(finder.channels) > len(dataset.channels):
            raise UserError(
                f"the liver model takes {len(finder.channels)} channels as {finder.file_ending}, the tumor model "
                f"{len(dataset.channels)} as {dataset.file_ending}: they cannot read the same images."
            )
        require_liver(finder, where=str(liver.folder))  # refuses before the first long prediction
        channels = len(finder.channels)
        plain = Options(options.device, options.mirroring, options.step_size, processes=options.processes)
        _predict([Case(case.name, case.images[:channels]) for case in cases], _made(folder), liver, plain)
    else:
        folder = Path(liver)
        has_labels = (folder / "dataset.json").is_file()
        finder = RawDataset.open(folder) if has_labels else RawDataset(folder, dataset.json)
    return {case.name: folder / f"{case.name}{dataset.file_ending}" for case in cases}, finder


def _predict(cases: Sequence[Case], out: Path, model: TrainedModel, options: Options) -> None:
    """nnU-Net's own prediction of ``cases`` into ``out``."""
    if not cases:
        return
    predictor = predictor_with(options.scales)(
        tile_step_size=options.step_size, use_mirroring=options.mirroring, device=torch.device(options.device)
    )
    predictor.initialize_from_trained_model_folder(str(model.folder), model.folds, model.checkpoint)
    files = [[str(path) for path in case.images] for case in cases]
    predictor.predict_from_files(
        files,
        [str(_made(out) / case.name) for case in cases],
        num_processes_preprocessing=options.processes,
        num_processes_segmentation_export=options.processes,
    )


def _region(case: Case, liver_file: Path, structures: Structures, cutting: Cutting) -> Region | None:
    scan = read_scan(case.images[0])
    trusted = not scan.repairs  # nnU-Net passes on a header as it reads it, unrepaired
    livers = read_scan(liver_file).image
    liver = liver_in(liver_file, livers, structures, scan.image, trusted=trusted)
    return find_region(liver, spacing_mm=spacing_of(scan.image), margin_mm=cutting.margin_mm)


def _cut_case(case: Case, region: Region, folder: Path, dataset: RawDataset, cutting: Cutting) -> Case:
    cut = Case(case.name, tuple(_made(folder) / path.name for path in case.images))
    for source, target, fill in zip(case.images, cut.images, fill_values(dataset.channels), strict=True):
        write_volume(cut_image(read_scan(source).image, region, mode=cutting.mode, fill=fill), target)
    return cut


def _result(case: Case, found: Path, region: Region | None, cutting: Cutting) -> sitk.Image:
    image = read_scan(case.images[0]).image
    if region is None:
        return on_grid(np.zeros(image.GetSize()[::-1], dtype=np.uint8), image)
    labels = sitk.GetArrayFromImage(read_scan(found).image)  # no view: the image is gone after this line
    return put_back(labels, region, mode=cutting.mode, like=image)


def _made(folder: Path) -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
