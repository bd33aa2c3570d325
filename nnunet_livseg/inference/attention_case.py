"""A trained model and one case, as ``inference.attention`` needs them: loaded, preprocessed, and a point to look at."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from scipy import ndimage
from torch import nn

from nnunet_livseg.blocks.shown import Shown
from nnunet_livseg.data.convert.grids import same_grid
from nnunet_livseg.data.dataset import RawDataset
from nnunet_livseg.data.dicom import read_series
from nnunet_livseg.data.volumes import read_volume
from nnunet_livseg.errors import UserError
from nnunet_livseg.evaluation.labels import LIVER, TUMOR, dataset_structures, select
from nnunet_livseg.inference.patch_grid import PatchGrid
from nnunet_livseg.inference.two_stage import Model
from nnunet_livseg.reference import build, stock_configuration
from nnunet_livseg.variants import VARIANTS, Variant

_READERS = ("SimpleITKIO", "NibabelIO")  # which give the voxels in the file's own order


def load(model: Model, device: str) -> nnUNetPredictor:
    """nnU-Net's predictor with the weights of one fold, see ``fold_of``.

    Raises:
        UserError: The folder is no trained model, a fold or the device is missing, or images are read in a way that
            turns them.
    """
    _ = model.dataset  # refuses what is no model, and the second model of a cascade
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no GPU that torch can use.\n  Leave out --device, or install torch for your GPU.")
    fold = fold_of(model)
    with redirect_stdout(io.StringIO()):  # nnU-Net prints how it searches for the trainer
        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device(device), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model.folder), (fold,), model.checkpoint)
    reader = predictor.plans_manager.image_reader_writer_class.__name__
    if reader not in _READERS:
        raise UserError(
            f"{model.folder.name} reads images with {reader}; attention is shown for models that read them with "
            f"{' or '.join(_READERS)}, as nnU-Net does by default for NIfTI and NRRD."
        )
    predictor.network = getattr(predictor.network, "_orig_mod", predictor.network)  # nnUNet_compile: not for one patch
    predictor.network.to(predictor.device).eval()
    return predictor


def fold_of(model: Model) -> int | str:
    """The fold that is looked at: the model's first, or the first that is trained.

    Raises:
        UserError: It is not trained, or none is.
    """
    trained = sorted(path.parent.name.removeprefix("fold_") for path in model.folder.glob(f"fold_*/{model.checkpoint}"))
    wanted = trained[:1] if model.folds is None else [str(model.folds[0])]
    if not wanted or wanted[0] not in trained:
        asked = f"fold {wanted[0]} of " if wanted else ""
        raise UserError(
            f"{asked}{model.folder} has no {model.checkpoint}; folds that have one: {', '.join(trained) or 'none'}."
            "\n  Choose with --fold and --checkpoint (checkpoint_best.pth exists while a training runs)."
        )
    return wanted[0] if wanted[0] == "all" else int(wanted[0])


def maps_of(network: nn.Module, name: str) -> list[Shown]:
    """What ``network`` shows; ``name`` is the model's.

    Raises:
        UserError: It has no attention; the message names the rows that have some.
    """
    shown = network.shown() if hasattr(network, "shown") else []
    if not shown:
        raise UserError(
            f"{name}: this network has no attention, so there is nothing to show."
            f"\n  Trainers with attention: {', '.join(row.trainer for row in rows_with_attention())}."
        )
    return shown


@cache
def rows_with_attention() -> tuple[Variant, ...]:
    """The rows of the table whose networks show maps."""

    def shows(row: Variant) -> bool:
        with torch.device("meta"):
            configuration = stock_configuration(min(row.dims), features=(4,) * 5)
            network = build(configuration, row, channels=max(1, row.phases), initialize=False)
        return bool(hasattr(network, "shown") and network.shown())

    return tuple(row for row in VARIANTS if shows(row))


def read_channels(images: Sequence[Path], dataset: RawDataset) -> list[sitk.Image]:
    """One image per channel of the model, all on one grid; DICOM folders and zips are read as series.

    Raises:
        UserError: Too few or too many images, one cannot be read, or they do not lie on one grid.
    """
    if len(images) != len(dataset.channels):
        raise UserError(
            f"the model takes {len(dataset.channels)} channel{'s'[: len(dataset.channels) > 1]} "
            f"({', '.join(dataset.channels)}), but got {len(images)}: give one file per channel, in this order."
        )
    read = [
        read_series(path)[0] if path.is_dir() or path.suffix.lower() == ".zip" else read_volume(path).image
        for path in images
    ]
    for path, image in zip(images[1:], read[1:], strict=True):
        if not same_grid(read[0], image):
            raise UserError(
                f"{path} lies on another grid than {images[0]}, but the channels of a case must match voxel by voxel."
                "\n  Put the phases on one grid first: livseg align."
            )
    return read


def preprocessed(channels: Sequence[sitk.Image], predictor: nnUNetPredictor) -> tuple[np.ndarray, dict]:
    """The case as the network sees it, ``(C, *turned)``, by nnU-Net's own preprocessor, and what it noted."""
    data = np.stack([sitk.GetArrayFromImage(image).astype(np.float32) for image in channels])
    properties = {"spacing": list(channels[0].GetSpacing()[::-1])}
    manager = predictor.configuration_manager
    run = manager.preprocessor_class(verbose=False).run_case_npy
    data, _, properties = run(data, None, properties, predictor.plans_manager, manager, predictor.dataset_json)
    return data, properties


def predicted_centre(data: np.ndarray, predictor: nnUNetPredictor) -> tuple[tuple[int, ...], str]:
    """The voxel of the preprocessed image to look at, and why: inside what the network itself predicts."""
    logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(data))
    labels = np.asarray(predictor.label_manager.convert_logits_to_segmentation(logits.float().cpu()))
    structures = dataset_structures(predictor.dataset_json).values
    for name in (TUMOR, LIVER):
        mask = select(labels, structures.get(name, ()))
        if mask.any():
            return deepest(mask), f"middle of the largest {name} that the network predicts"
    return tuple(n // 2 for n in labels.shape), "middle of the image, as the network predicts neither liver nor tumor"


def deepest(mask: np.ndarray) -> tuple[int, ...]:
    """The voxel of the largest connected part of ``mask`` that is farthest from its border."""
    parts, _ = ndimage.label(mask)
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    box = ndimage.find_objects(parts, max_label=largest)[largest - 1]
    depth = ndimage.distance_transform_edt(np.pad(parts[box] == largest, 1))
    voxel = np.unravel_index(int(depth.argmax()), depth.shape)
    return tuple(int(v) - 1 + part.start for v, part in zip(voxel, box, strict=True))


def given_centre(point: Sequence[int], whole: PatchGrid) -> tuple[int, ...]:
    """The voxel of the preprocessed image at a voxel ``point`` (z, y, x) of the image; the nearest one at borders.

    Raises:
        UserError: The point lies outside the image.
    """
    if len(point) != 3 or any(not 0 <= p < size for p, size in zip(point, whole.shape, strict=False)):
        raise UserError(
            f"the point {' '.join(map(str, point))} is outside the image of {' x '.join(map(str, whole.shape))} voxels."
            "\n  Give voxel indices from 0 on, in the order z y x."
        )
    return tuple(int(np.clip(round(p), 0, size - 1)) for p, size in zip(whole.to_patch(point), whole.size, strict=True))
