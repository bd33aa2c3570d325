"""What a trained network attends to in one case: its maps on the grid of the image, its vectors, one sheet of pictures.

The network runs once, on one patch around the point that is looked at. Which maps it has is declared by its blocks
(``blocks.attention_spec``); papers and equations are named there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_livseg.blocks.attention_spec import PHASES, VECTOR, AttentionSpec, record_attention
from nnunet_livseg.imaging.images import on_grid
from nnunet_livseg.inference.attention_case import given_center, load, maps_of, predicted_center
from nnunet_livseg.inference.ct_input import read_ct, require_model_input
from nnunet_livseg.inference.devices import best_device
from nnunet_livseg.inference.patch_grid import PatchGrid, cut_patch, whole_grid
from nnunet_livseg.inference.trained_model import TrainedModel


@dataclass(frozen=True)
class AttentionMap:
    """One map of one case.

    Args:
        name: Unique in the case; the file is named so.
        title: The paper's name of it.
        source: Paper with equation or figure.
        kind: One of ``blocks.attention_spec.KINDS``.
        level: Where in the pyramid; 0 is full resolution.
        values: On the network's own grid, axes in the order of the plans, covering the patch; a vector has one axis.
        phase: The phase that it is about; empty if it is about no single one.
    """

    name: str
    title: str
    source: str
    kind: str
    level: int
    values: np.ndarray
    phase: str = ""

    @property
    def is_vector(self) -> bool:
        """Whether it has a number per channel or phase instead of one per voxel."""
        return self.kind == VECTOR


@dataclass(frozen=True)
class CaseAttention:
    """All maps of one case.

    Args:
        name: Short name of the case; of DICOM a digest, because its paths may name the patient.
        channels: The images by their names; several are numbered.
        structures: Structure to label values.
        maps: Every level of a map from coarse to fine, as the network orders its maps.
        labels: What the network predicts in the patch, axes in the order of the plans.
        grid: Where the patch lies.
        point: Voxel (z, y, x) of the image that is looked at.
        reason: Why this one.
        model: Name of the model's folder.
        fold: Fold that is looked at.
    """

    name: str
    channels: dict[str, sitk.Image]
    structures: dict[str, tuple[int, ...]]
    maps: tuple[AttentionMap, ...]
    labels: np.ndarray
    grid: PatchGrid
    point: tuple[int, ...]
    reason: str
    model: str
    fold: str

    @property
    def image(self) -> sitk.Image:
        """The first channel."""
        return next(iter(self.channels.values()))

    def on_image(self, values: np.ndarray, *, labels: bool = False) -> sitk.Image:
        """A map on the grid of the image: linear between the network's positions, 0 outside the patch."""
        whole = np.zeros(self.grid.shape, np.uint8 if labels else np.float32)
        whole[self.grid.box] = self.grid.place(values, labels=labels)
        return on_grid(whole, self.image)


def attention_maps(
    images: Sequence[object],
    model: TrainedModel | str | Path,
    *,
    point: Sequence[int] | None = None,
    device: str | None = None,
) -> CaseAttention:
    """All attention maps of one case.

    Args:
        images: One per channel of the model, each anything that ``ct_input.read_ct`` reads.
        model: The trained model, or its folder; of several folds the first.
        point: Voxel (z, y, x) of the image to look at; left out, the middle of the largest tumor that the network
            predicts, else of the liver, else of the image.
        device: ``cuda``, ``cpu``, ``mps``; left out, the best that is here.

    Raises:
        UserError: Model or images cannot be used, the network has no attention, or the point is outside the image.
    """
    model = model if isinstance(model, TrainedModel) else TrainedModel.open(model)
    loaded = load(model, device or best_device())
    predictor = loaded.nnunet
    shown = maps_of(predictor.network, model.folder.name)
    ct, names = read_ct(tuple(images)), _told_apart(model.dataset.channels)
    require_model_input(ct, model)
    axes = loaded.axes(ct.image)
    data, properties = loaded.preprocessed(axes.stacked(ct.images), axes.spacing_mm)
    transposed = predictor.plans_manager.transpose_forward
    shape = ct.image.GetSize()[::-1]
    whole = whole_grid(shape, data.shape[1:], properties=properties, transposed=transposed, axes=axes)
    if point is None:
        center, reason = predicted_center(data, predictor, model.structures.values)
        point = whole.to_image(center)
    else:
        center, reason, point = given_center(point, whole), "as given", tuple(int(p) for p in point)
    patch, grid = cut_patch(data, whole, center, predictor.configuration_manager.patch_size)
    labels, maps = _observed(predictor, patch, shown, _shares(grid, point))
    named = [one for group in zip(shown, maps, strict=True) for one in _named(*group, names)]
    return CaseAttention(
        name=ct.name,
        channels=dict(zip(names, ct.images, strict=True)),
        structures=model.structures.values,
        maps=tuple(_from_coarse_to_fine(named)),
        labels=labels,
        grid=grid,
        point=point,
        reason=reason,
        model=model.folder.name,
        fold=model.folds[0],
    )


def _shares(grid: PatchGrid, point: Sequence[int]) -> tuple[float, ...]:
    """The point's share of the way along each axis of the patch, turned."""
    return tuple(float(np.clip((p + 0.5) / n, 0, 1)) for p, n in zip(grid.to_patch(point), grid.size, strict=True))


def _observed(
    predictor: nnUNetPredictor, patch: np.ndarray, shown: Sequence[AttentionSpec], point: tuple[float, ...]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels (turned) and maps ``(N, *turned)`` or ``(N)`` of a patch ``(C, *turned)``; 2D networks get one slice."""
    flat = len(predictor.configuration_manager.patch_size) == 2
    x = torch.from_numpy(patch[:, 0] if flat else patch)[None].to(predictor.device)
    logits, maps = record_attention(predictor.network, x, shown, point=point[1:] if flat else point)
    labels = np.asarray(predictor.label_manager.convert_logits_to_segmentation(logits[0].cpu()))
    arrays = [found[0].numpy() for found in maps]
    if flat:
        labels = labels[None]
        arrays = [found if found.ndim == 1 else found[:, None] for found in arrays]
    return labels.astype(np.uint8), arrays


def _told_apart(channels: Sequence[str]) -> list[str]:
    """Names of channels with their numbers, because nnU-Net's datasets call every phase of a CT ``CT``."""
    return list(channels) if len(channels) == 1 else [f"phase {i} ({name})" for i, name in enumerate(channels)]


def _named(shown: AttentionSpec, values: np.ndarray, channels: Sequence[str]) -> list[AttentionMap]:
    """The maps that one declaration stands for: one, or one per phase."""
    name, about = f"{shown.key}_level{shown.level}", (shown.title, shown.source, shown.kind, shown.level)
    if shown.kind == VECTOR:
        return [AttentionMap(name, *about, values)]
    if shown.kind == PHASES:
        return [
            AttentionMap(
                f"{name}_phase{i}", *about, found, channels[i] if len(values) == len(channels) else f"phase {i}"
            )
            for i, found in enumerate(values)
        ]
    return [AttentionMap(name, *about, values[0])]


def _from_coarse_to_fine(maps: Sequence[AttentionMap]) -> list[AttentionMap]:
    families = list(dict.fromkeys(one.title for one in maps))
    return sorted(maps, key=lambda one: (families.index(one.title), -one.level))
