"""One image through nnU-Net's own preprocessing, sliding window and resampling, in one process and little memory.

The result equals that of ``nnUNetv2_predict`` voxel for voxel. Unlike there, the resampled logits are made channel by
channel and turned into labels slab by slab, so that 64-bit copies of all channels never exist at once. With a quality
that resamples by torch, they are made slice by slice and never exist as a whole.
"""

# Shape letters: C image channels, K output channels, (Z, Y, X) the image's grid

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import bounding_box_to_slice
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nnunet_livseg.core.allocator import kept_pages
from nnunet_livseg.core.clock import stage
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER, TUMOR, mask_of
from nnunet_livseg.inference.coarse_grid import (
    CoarseGrid,
    enlarged,
    enlarged_near,
    first_largest,
    nearest,
    nearest_axis,
    refined_labels,
    repeated,
    resampled_slices,
)
from nnunet_livseg.inference.devices import predict_in_bfloat16
from nnunet_livseg.inference.engines import FLOAT32, IN_TORCH, TORCH, TORCH_BFLOAT16, Exported
from nnunet_livseg.inference.ensemble import EnsembleOutputs, entropy, vote
from nnunet_livseg.inference.quality import Quality
from nnunet_livseg.inference.reader_axes import ReaderAxes
from nnunet_livseg.inference.safe_weights import ENDING, read_safe_weights
from nnunet_livseg.inference.trained_model import LOAD_ERRORS, TrainedModel, load_error
from nnunet_livseg.multiscale import multiscale_predictor

_ARCHITECTURE = ("network_class_name", "arch_kwargs", "_kw_requires_import")  # of plans
_SLAB_VOXELS = 4_000_000  # turned into labels at a time


@dataclass(frozen=True)
class Prediction:
    """The output of a model for one image, on the image's grid ``(Z, Y, X)``.

    Args:
        labels: Label values.
        probabilities: By structure, 0 to 1, half precision. The tumor's are there without being asked for; of a model
            with a coarse grid, they are then 0 outside of the box around all tumors.
        votes: Share of the single predictions that say tumor; None unless asked for.
        ensemble_vote: The same for their mean, 1 or 0 on the network's grid, resampled as the votes are; None without.
        uncertainty: See ``ensemble.entropy``; None unless asked for.
    """

    labels: np.ndarray
    probabilities: dict[str, np.ndarray]
    votes: np.ndarray | None = None
    ensemble_vote: np.ndarray | None = None
    uncertainty: np.ndarray | None = None

    def changed(self, change: Callable[[np.ndarray], np.ndarray], *, labels: np.ndarray | None = None) -> "Prediction":
        """The same with all arrays changed in one way, or all but the labels, where others are given."""
        maps = (None if m is None else change(m) for m in (self.votes, self.ensemble_vote, self.uncertainty))
        probabilities = {name: change(values) for name, values in self.probabilities.items()}
        return Prediction(change(self.labels) if labels is None else labels, probabilities, *maps)


class CasePredictor:
    """A trained model in memory, ready for one image after the other.

    Args:
        model: The trained model.
        quality: Folds, mirroring, step.
        device: ``cuda``, ``cpu`` or ``mps``.
        scales: Sizes in plane to predict at; see ``multiscale``.
        members: Also collect votes and uncertainty.
        progress: Show nnU-Net's progress bar.
        engine: What runs the network, see ``engines``; what is not torch needs an exported model.

    Raises:
        UserError: The model cannot be loaded here.
    """

    def __init__(
        self,
        model: TrainedModel,
        *,
        quality: Quality,
        device: str,
        scales: Sequence[float] = (1.0,),
        members: bool = False,
        progress: bool = False,
        engine: str = TORCH,
    ) -> None:
        self.model, self.quality, self.engine = model, quality, engine
        self.folds = model.folds if quality.all_folds else model.folds[:1]
        with redirect_stdout(io.StringIO()):  # its remark on every device but CUDA
            self.nnunet = multiscale_predictor(scales)(
                tile_step_size=quality.step_size,
                use_mirroring=quality.mirroring,
                device=torch.device(device),
                allow_tqdm=progress,
            )
        self.grid = CoarseGrid.of_model(model.dataset.json)
        in_torch = engine in IN_TORCH  # the other engines run patch by patch, and of one size
        self.nnunet.in_batches = quality.in_batches and in_torch
        self.nnunet.fits_patch = quality.fits_patch and in_torch and takes_any_patch(model.dataset.json)
        self._load()
        if engine == TORCH_BFLOAT16:
            predict_in_bfloat16(self.nnunet.network)
        self.label_manager = self.nnunet.label_manager
        self.exclusive = not self.label_manager.has_regions
        self.channels_of = {name: self._channels(values) for name, values in model.structures.values.items()}
        self.heads = self.label_manager.num_segmentation_heads
        self.members = members
        if members:
            self._collect_members()
        previous = model.previous_stage
        self.previous = previous and CasePredictor(
            previous, quality=quality, device=device, progress=progress, engine=engine
        )

    @property
    def mirrors(self) -> bool:
        """Whether mirrored copies are predicted: asked for, and the training allows it."""
        return self.quality.mirroring and bool(self.nnunet.allowed_mirroring_axes)

    def _load(self) -> None:
        folds = tuple(fold if fold == "all" else int(fold) for fold in self.folds)
        try:
            with redirect_stdout(io.StringIO()):  # where it looks for the trainer
                if self.engine not in IN_TORCH:
                    self._load_exported()
                elif self.model.checkpoint.endswith(ENDING):
                    self._load_safe_weights(folds)
                else:
                    self.nnunet.initialize_from_trained_model_folder(
                        str(self.model.folder), folds, self.model.checkpoint
                    )
        except UserError:
            raise
        except LOAD_ERRORS as error:
            raise load_error(self.model, error) from error

    def _load_safe_weights(self, folds: Sequence[str | int]) -> None:
        """What nnU-Net's predictor does with checkpoints, for weights that are no pickle."""
        files = [read_safe_weights(self.model.folder / f"fold_{fold}" / self.model.checkpoint) for fold in folds]
        plans, dataset = PlansManager(self.model.plans), self.model.dataset.json
        configuration = plans.get_configuration(files[0].configuration)
        inputs = determine_num_input_channels(plans, configuration, dataset)
        heads = plans.get_label_manager(dataset).num_segmentation_heads
        if files[0].architecture is None:
            trainer = recursive_find_trainer_class_by_name(files[0].trainer)
            network = trainer.build_network_architecture(plans, configuration, inputs, heads, False)
        else:
            name, kwargs, classes = (files[0].architecture[key] for key in _ARCHITECTURE)
            network = get_network_from_plans(name, kwargs, classes, inputs, heads, False, deep_supervision=False)
        parameters = [file.parameters for file in files]
        network.load_state_dict(parameters[0])
        self.nnunet.manual_initialization(
            network, plans, configuration, parameters, dataset, files[0].trainer, files[0].mirroring_axes
        )

    def _load_exported(self) -> None:
        """The same with an engine that runs exported networks: no trainer and no class of a network is looked for."""
        exported, plans = Exported.open(self.model.folder), PlansManager(self.model.plans)
        axes = exported.content["mirroring_axes"]
        self.nnunet.manual_initialization(
            exported.network(self.engine, self.folds),
            plans,
            plans.get_configuration(exported.content["configuration"]),
            list(range(len(self.folds))),  # nnU-Net hands them to the network, fold by fold
            self.model.dataset.json,
            exported.content["trainer"],
            axes and tuple(axes),
        )

    def _channels(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """Output channels of a structure: its labels, or the region with just its values."""
        if self.exclusive:
            return values
        regions = [
            set(region) if isinstance(region, tuple | list) else {region}
            for region in self.label_manager.foreground_regions
        ]
        exact = [index for index, region in enumerate(regions) if region == set(values)]
        return tuple(exact or [index for index, region in enumerate(regions) if region <= set(values)])

    def _collect_members(self) -> None:
        tumor = self.channels_of.get(TUMOR, ())
        self.nnunet.network = EnsembleOutputs(self.nnunet.network, exclusive=self.exclusive, tumor=tumor)
        heads = 2 * self.heads + bool(tumor)
        self.nnunet.label_manager = SimpleNamespace(num_segmentation_heads=heads)  # all that its sliding window reads

    def predict(self, images: Sequence[sitk.Image], *, structures: Iterable[str] = ()) -> Prediction:
        """Segment an image, given channel by channel; probabilities of ``structures`` come along.

        Raises:
            UserError: The model was trained on something else than volumes.
        """
        known = set(self.channels_of)
        return self._predicted(images, {*structures} & known, {TUMOR} & known)

    def label_map(self, images: Sequence[sitk.Image]) -> np.ndarray:
        """The labels of ``predict`` alone, ``(Z, Y, X)``: no map of probabilities is made."""
        return self._predicted(images, set(), set()).labels

    def rough_label_map(self, images: Sequence[sitk.Image]) -> np.ndarray:
        """The labels of a model with a coarse grid, decided on its network's voxels: quicker, with rough edges."""
        image = images[0]
        coarse = [self.grid.coarse(image) for image in images]
        axes = self.axes(coarse[0])
        data, properties = self.preprocessed(axes.stacked(coarse), axes.spacing_mm)
        labels = np.asarray(self.label_manager.convert_logits_to_segmentation(self._outputs(torch.from_numpy(data))))
        labels = nearest(labels.astype(np.uint8), properties["shape_after_cropping_and_before_resampling"])
        labels = self.grid.own_axes(image, coarse[0])(axes.from_reader(self._whole(labels, properties)))
        return repeated(labels, self.grid.block(image), image.GetSize()[::-1])

    def _predicted(self, images: Sequence[sitk.Image], structures: set[str], near: set[str]) -> Prediction:
        """The prediction with probabilities of ``structures``, and at least where they have labels of ``near``."""
        if self.grid is None:
            return self._on_grid(images, structures | near)
        return self._on_coarse_grid(images, structures, near - structures)

    def _on_grid(self, images: Sequence[sitk.Image], structures: set[str]) -> Prediction:
        """The prediction on the images' own grid."""
        axes = self.axes(images[0])
        return self._predict(axes.stacked(images), axes.spacing_mm, structures).changed(axes.from_reader)

    def _on_coarse_grid(self, images: Sequence[sitk.Image], structures: set[str], near: set[str]) -> Prediction:
        """The same by way of the grid that the model asks for; labels by the probabilities between its voxels."""
        image = images[0]
        with stage("preprocess"):
            coarse = [self.grid.coarse(image) for image in images]
        found = self._on_grid(coarse, {*structures, LIVER, TUMOR})
        with stage("resample back"):
            found = found.changed(self.grid.own_axes(image, coarse[0]))
            block, shape, known = self.grid.block(image), image.GetSize()[::-1], self.model.structures.values
            labels = refined_labels(found.labels, found.probabilities, known, block, shape)
            of, whole = found.probabilities, partial(enlarged, block=block, shape=shape)
            probabilities = {name: whole(of[name]) for name in structures}
            probabilities |= {name: enlarged_near(of[name], mask_of(labels, known[name]), block) for name in near}
            maps = replace(found, probabilities={}).changed(whole, labels=labels)
            return replace(maps, probabilities=probabilities)

    def _predict(self, image: np.ndarray, spacing_mm: tuple[float, ...], structures: set[str]) -> Prediction:
        """The same in the reader's order, ``image (C, Z, Y, X)``."""
        previous = self.previous and self.previous._predict(image, spacing_mm, set()).labels[None].astype(np.int16)
        data, properties = self.preprocessed(image, spacing_mm, previous)
        outputs = self._outputs(torch.from_numpy(data))
        del data
        with stage("resample back"):
            maps = self._reduced(outputs)
            slabs = self._slabs(outputs[: self.heads].clone() if self.members else outputs, properties)
            del outputs  # with the channels that are reduced by now
            labels, probabilities = self._decided(slabs, properties, structures)
            maps = {name: self._whole(self._resampled(values, properties), properties) for name, values in maps.items()}
            probabilities = {name: self._whole(values, properties) for name, values in probabilities.items()}
            return Prediction(self._whole(labels, properties), probabilities, **maps)

    def axes(self, image: sitk.Image) -> ReaderAxes:
        """From the axes of ``image`` to those of the reader that the model was trained with."""
        return ReaderAxes(image, self.nnunet.plans_manager.plans["image_reader_writer"])

    def preprocessed(
        self, image: np.ndarray, spacing_mm: tuple[float, ...], previous: np.ndarray | None = None
    ) -> tuple[np.ndarray, dict]:
        """An image as the network sees it, by nnU-Net's own preprocessor, and what that noted about it.

        Args:
            image: ``(C, Z, Y, X)`` in the reader's order.
            spacing_mm: In the same order.
            previous: Label map ``(1, Z, Y, X)`` of the previous model of a cascade.
        """
        nnunet = self.nnunet
        preprocessor = nnunet.configuration_manager.preprocessor_class(verbose=False)
        plans, configuration = nnunet.plans_manager, nnunet.configuration_manager
        properties = {"spacing": [float(s) for s in spacing_mm]}
        self._require_thickness(image, spacing_mm)
        with stage("preprocess"):
            data, labels, properties = preprocessor.run_case_npy(
                image, previous, properties, plans, configuration, nnunet.dataset_json
            )
        if previous is not None:
            labels = convert_labelmap_to_one_hot(labels[0], self.label_manager.foreground_labels, data.dtype)
            data = np.vstack((data, labels))
        return data, properties

    def _require_thickness(self, image: np.ndarray, spacing_mm: tuple[float, ...]) -> None:
        """Reject an image that nnU-Net's resampling would leave no voxel of; of 2D models, slices stay as they are."""
        forward, own = self.nnunet.plans_manager.transpose_forward, self.nnunet.configuration_manager.spacing
        sizes_mm = [image.shape[1 + axis] * spacing_mm[axis] for axis in forward][-len(own) :]
        for size_mm, step_mm in zip(sizes_mm, own, strict=True):
            if round(size_mm / step_mm) < 1:
                raise UserError(
                    f"the image is {size_mm:.3g} mm thick, less than half a voxel ({step_mm:.3g} mm) of"
                    f" {self.model.folder.name}.\n  Give the whole CT, or a model with finer voxels."
                )

    def _outputs(self, data: Tensor) -> Tensor:
        """Output channels of nnU-Net's sliding window, the mean over folds, at the network's resolution."""
        try:
            with stage("network"), NotFiniteByChannel(), kept_pages(self.nnunet.device.type):
                return self.nnunet.predict_logits_from_preprocessed_data(data).cpu()
        except RuntimeError as error:
            if "Encountered inf" not in str(error):
                raise
            rounds = self.engine not in (TORCH, *FLOAT32)
            rounded = "\n  Or the engine rounds too much: try --engine torch." if rounds else ""
            raise UserError(
                f"{self.model.folder.name} predicts infinite or undefined values for this CT: no label can be decided."
                "\n  Check that the CT's values are Hounsfield units. If they are, the training diverged: use another"
                f" fold (-f) or checkpoint (-chk).{rounded}"
            ) from error

    def _reduced(self, outputs: Tensor) -> dict[str, Tensor]:
        """Uncertainty and votes from the channels behind the logits, at the network's resolution."""
        if not self.members:
            return {}
        probabilities = outputs[self.heads : 2 * self.heads]
        tumor = self.channels_of.get(TUMOR)
        names = ("uncertainty", "ensemble_vote") if tumor else ("uncertainty",)
        maps = {name: torch.empty(outputs.shape[1:], dtype=torch.half) for name in names}
        for slab in _slabs(tuple(outputs.shape[1:])):
            maps["uncertainty"][slab] = entropy(probabilities[:, slab], exclusive=self.exclusive).half()
            if tumor:
                own = vote(outputs[: self.heads, slab].float(), tumor, exclusive=self.exclusive)
                maps["ensemble_vote"][slab] = own.half()
        return maps | ({"votes": outputs[-1].clone()} if tumor else {})

    def _resampled(self, channel: Tensor, properties: dict) -> np.ndarray:
        """One output channel on the cropped image's grid."""
        if self.quality.torch_resampling:
            slices = self._slices(channel[None], properties)
            return np.stack([one[0].to(channel.dtype).cpu().numpy() for one in slices])
        resample = self.nnunet.configuration_manager.resampling_fn_probabilities
        return np.asarray(resample(channel[None].numpy(), _shape_of(properties), *self._spacings(properties))[0])

    def _slices(self, outputs: Tensor, properties: dict) -> Iterator[Tensor]:
        """Output channels on the same grid by torch, slice by slice, on the device."""
        settings = self.nnunet.configuration_manager.configuration["resampling_fn_probabilities_kwargs"]
        axis = nearest_axis(settings, *self._spacings(properties))
        return resampled_slices(outputs, _shape_of(properties), nearest=axis, device=self.nnunet.device)

    def _spacings(self, properties: dict) -> tuple[list[float], list[float]]:
        """The network's and the cropped image's, in mm."""
        image = [properties["spacing"][axis] for axis in self.nnunet.plans_manager.transpose_forward]
        own = self.nnunet.configuration_manager.spacing
        return own if len(own) == len(image) else [image[0], *own], image

    def _slabs(self, logits: Tensor, properties: dict) -> Iterator[tuple[slice, Tensor]]:
        """Parts of the cropped image's grid along its first axis, and their logits."""
        if self.quality.torch_resampling:
            for index, one in enumerate(self._slices(logits, properties)):
                yield slice(index, index + 1), one[:, None]
            return
        channels = [self._resampled(channel, properties) for channel in logits]
        del logits  # frees them: this is the last reference
        for slab in _slabs(_shape_of(properties)):
            yield slab, torch.from_numpy(np.stack([channel[slab] for channel in channels]))

    def _decided(
        self, slabs: Iterable[tuple[slice, Tensor]], properties: dict, wanted: set[str]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Labels and probabilities of structures, slab by slab."""
        labels = np.empty(_shape_of(properties), np.min_scalar_type(max(self.label_manager.all_labels)))
        probabilities = {name: np.empty(labels.shape, np.float16) for name in sorted(wanted)}
        decide = first_largest if self.exclusive else self.label_manager.convert_logits_to_segmentation
        for slab, logits in slabs:
            labels[slab] = decide(logits).cpu()
            each = self.label_manager.apply_inference_nonlin(logits) if wanted else None
            for name, values in probabilities.items():
                chosen = each[list(self.channels_of[name])]
                values[slab] = (chosen.sum(0) if self.exclusive else chosen.amax(0)).cpu()
        return labels, probabilities

    def _whole(self, values: np.ndarray, properties: dict) -> np.ndarray:
        """Undo nnU-Net's cropping and transposition: ``(Z, Y, X)`` of the image, 0 outside the cropped part."""
        whole = np.zeros(properties["shape_before_cropping"], values.dtype)
        whole[bounding_box_to_slice(properties["bbox_used_for_cropping"])] = values
        return np.ascontiguousarray(whole.transpose(self.nnunet.plans_manager.transpose_backward))


class NotFiniteByChannel(TorchFunctionMode):
    """Inside, ``torch.isinf`` of a volume ``(K, Z, Y, X)`` says which channels hold infinity or NaN.

    nnU-Net's sliding window asks whether any output is infinite. NaN passes and becomes background, and all channels at
    once take 1.5 times their memory.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.isinf and args[0].ndim == 4:
            return torch.stack([~torch.isfinite(channel).all() for channel in args[0]])
        return func(*args, **(kwargs or {}))


def takes_any_patch(dataset_json: Mapping[str, Any]) -> bool:
    """Whether the model's ``dataset.json`` says that it segments as well with patches of other sizes: few do."""
    return bool((dataset_json.get("livseg") or {}).get("any_patch"))


def _shape_of(properties: dict) -> tuple[int, ...]:
    """The cropped image's."""
    return tuple(properties["shape_after_cropping_and_before_resampling"])


def _slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    thickness = max(1, _SLAB_VOXELS // math.prod(shape[1:]))
    for start in range(0, shape[0], thickness):
        yield slice(start, start + thickness)
