"""A trained model and one case, as ``inference.attention_maps`` needs them: loaded, preprocessed, with a point."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from scipy.ndimage import distance_transform_edt
from torch import nn

from nnunet_livseg.blocks.attention_spec import AttentionSpec
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER, TUMOR, mask_of
from nnunet_livseg.imaging.liver_crop import is_cropped
from nnunet_livseg.imaging.masks import bounding_box, label_components, only_largest
from nnunet_livseg.inference.case_predictor import CasePredictor
from nnunet_livseg.inference.devices import require_device
from nnunet_livseg.inference.patch_grid import PatchGrid
from nnunet_livseg.inference.quality import quality_of
from nnunet_livseg.inference.trained_model import TrainedModel
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.variants import VARIANTS, Variant


def load(model: TrainedModel, device: str) -> CasePredictor:
    """A predictor with the weights of the model's first fold.

    Raises:
        UserError: The model cannot be loaded, is the second of a cascade, or was trained on CTs cut to the liver; there
            is no such device.
    """
    require_device(device)
    if model.previous_stage is not None:
        raise UserError(
            f"{model.folder.name} is the second model of nnU-Net's cascade: it also reads the label maps of "
            f"{model.previous_stage.folder.name}.\n  Attention is shown for models that read the image alone: give a "
            "model of another configuration."
        )
    if is_cropped(model.dataset.json):
        raise UserError(
            f"{model.folder.name} was trained on CTs cropped to the liver (livseg two-stage data), but attention is"
            " shown in whole CTs.\n  Give a model that was trained on whole CTs."
        )
    predictor = CasePredictor(model, quality=quality_of("fast"), device=device)
    nnunet = predictor.nnunet
    nnunet.network = getattr(nnunet.network, "_orig_mod", nnunet.network)  # nnUNet_compile: not for one patch
    nnunet.network.to(nnunet.device).eval()
    return predictor


def maps_of(network: nn.Module, name: str) -> list[AttentionSpec]:
    """The attention maps that ``network`` declares; ``name`` is the model's.

    Raises:
        UserError: It has no attention; the message names the rows that have some.
    """
    shown = network.attention_specs() if hasattr(network, "attention_specs") else []
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
        return bool(hasattr(network, "attention_specs") and network.attention_specs())

    return tuple(row for row in VARIANTS if not row.extra and shows(row))


def predicted_center(
    data: np.ndarray, predictor: nnUNetPredictor, structures: dict[str, tuple[int, ...]]
) -> tuple[tuple[int, ...], str]:
    """The voxel of the preprocessed image to look at, and why: inside what the network itself predicts."""
    logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(data))
    labels = np.asarray(predictor.label_manager.convert_logits_to_segmentation(logits.float().cpu()))
    for name in (TUMOR, LIVER):
        mask = mask_of(labels, structures.get(name, ()))
        if mask.any():
            return deepest(mask), f"middle of the largest {name} that the network predicts"
    return tuple(n // 2 for n in labels.shape), "middle of the image, as the network predicts neither liver nor tumor"


def deepest(mask: np.ndarray) -> tuple[int, ...]:
    """The voxel of the largest connected part of ``mask`` that is farthest from its border."""
    largest = only_largest(*label_components(mask, neighbors=6))
    box = bounding_box(largest)
    depth = distance_transform_edt(np.pad(largest[box], 1))
    voxel = np.unravel_index(int(depth.argmax()), depth.shape)
    return tuple(int(v) - 1 + part.start for v, part in zip(voxel, box, strict=True))


def given_center(point: Sequence[int], whole: PatchGrid) -> tuple[int, ...]:
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
