"""One call for one patient: a CT in any form, a trained model, one result.

The work is nnU-Net's (``case_predictor``); here is what stands around it: reading, the liver first where something
finds it, putting back on the input's grid, postprocessing, measuring.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from nnunet_livseg import __version__
from nnunet_livseg.core.clock import stage, stage_clock
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER, TUMOR, Structures, mask_of
from nnunet_livseg.core.names import as_size, require_options
from nnunet_livseg.imaging.grid import spacing_of
from nnunet_livseg.imaging.images import on_grid
from nnunet_livseg.imaging.liver_crop import (
    LiverBox,
    LiverCrop,
    crop_image,
    fill_values,
    find_liver_box,
    is_cropped,
    uncrop,
)
from nnunet_livseg.imaging.orientation import mirrored_axes
from nnunet_livseg.inference.case_predictor import CasePredictor, Prediction
from nnunet_livseg.inference.coarse_grid import CoarseGrid
from nnunet_livseg.inference.ct_input import CTInput, read_ct, require_model_input
from nnunet_livseg.inference.devices import best_device, require_device
from nnunet_livseg.inference.engines import IN_TORCH, NETWORK, RECORD, TORCH, require_engine
from nnunet_livseg.inference.quality import Quality, default_quality, quality_of
from nnunet_livseg.inference.starter_model import beyond_training, large_enough, starter_liver_model, starter_model
from nnunet_livseg.inference.trained_model import CHECKPOINT, TrainedModel
from nnunet_livseg.patient.measure import measure
from nnunet_livseg.patient.segmentation import Provenance, Segmentation
from nnunet_livseg.postprocessing import apply, load_postprocessing
from nnunet_livseg.postprocessing.steps import as_text
from nnunet_livseg.postprocessing.steps_file import FILE

_ONE_MEMBER = "one fold without mirroring: only overlapping patches could disagree, so agreement says little"
NOTHING_SEGMENTED = "the liver model found no liver: nothing segmented"
NO_LIVER = "no liver was found: is this a CT of the abdomen?"
WHOLE_SEGMENTED = "the liver model found no liver: the whole CT was segmented"
MARGIN_MM = 30.0  # what a model that was trained on whole CTs sees around the liver


class LiverFinder(Protocol):
    """Anything that finds the liver before a model segments it: a ``Segmenter``, or livers that were found before."""

    name: str

    def find_liver(self, ct: CTInput, *, rough: bool = False) -> np.ndarray:
        """True on the liver and its tumors, ``(Z, Y, X)`` of the CT; ``rough``: as good as its box needs it."""

    def weights(self) -> list[Path]:
        """Files that the answer depends on."""

    def settings(self) -> dict[str, Any]:
        """Everything else that the answer depends on."""


@dataclass(frozen=True)
class OutputOptions:
    """The parts of a result beside labels and measurements.

    Args:
        probabilities: Maps of all structures.
        uncertainty: Map of uncertainty, and the agreement of the single predictions on each lesion.
        postprocess: Apply what ``livseg postprocess tune`` found to help this model.
    """

    probabilities: bool = False
    uncertainty: bool = False
    postprocess: bool = False


class Segmenter:
    """A model in memory that segments one CT after the other.

    Args:
        model: Folder ``TRAINER__PLANS__CONFIGURATION`` of any nnU-Net training; left out, the starter model, which has
            a liver model of its own.
        folds: One or several; left out, what the quality says.
        checkpoint: File name of the weights.
        quality: ``fast``, ``balanced``, ``standard`` (equals ``nnUNetv2_predict``), ``best``, or a ``Quality``. Left
            out, it is ``balanced`` for the starter model and ``standard`` for all others.
        device: ``cuda``, ``cpu``, ``mps``; left out, the best that is here.
        engine: ``torch``, or on a CPU another of ``engines.ENGINES``; what is not torch runs a model that ``livseg
            export`` has written. A liver model that was not exported runs in torch.
        scales: Sizes in plane at which a CT is predicted, averaged; see ``multiscale``.
        liver_model: What finds the liver first, so that the model looks only there: the folder of a model (it is then
            ``fast``), or any ``LiverFinder``, such as another ``Segmenter`` with folds and a quality of its own.
        crop: Take from the liver model (left out: the starter model) no more than the box: where it finds no liver, the
            whole CT is segmented. Otherwise nothing is, and a model that knows only tumors gets the liver from the
            liver model. For a model of cropped CTs, it names the starter model as liver model, and no more. ``None``:
            what the quality says, where the model takes whole CTs and no liver model is given.
        progress: Show progress bars.
        output: What the results shall hold: ``probabilities``, ``uncertainty``, ``postprocess`` (see
            ``OutputOptions``).

    Raises:
        UserError: A model cannot be used, and why.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        folds: Sequence[str | int] | str | int | None = None,
        checkpoint: str = CHECKPOINT,
        quality: str | Quality | None = None,
        device: str | torch.device | None = None,
        engine: str = TORCH,
        scales: Sequence[float] = (1.0,),
        liver_model: "str | Path | LiverFinder | None" = None,
        crop: bool | None = None,
        progress: bool = False,
        **output: bool,
    ) -> None:
        require_options("Segmenter", output, SEGMENTER_OPTIONS)
        folds = (folds,) if isinstance(folds, str | int) else folds
        quality = quality or default_quality(model)
        if model is None:
            model, liver_model, crop = starter_model(), liver_model or starter_liver_model(), False
            output = output | {"postprocess": True}  # it has seen nothing far from a liver
        self.model = TrainedModel.open(model, folds=folds and tuple(folds), checkpoint=checkpoint)
        self.name = self.model.name
        self.quality = quality_of(quality)
        if folds:  # named folds are all wanted
            self.quality = replace(self.quality, all_folds=True)
        folders = [one.folder for one in (self.model, self.model.previous_stage) if one]
        self.engine, self.engine_remark = engine, require_engine(engine, folders, device)
        self.device = str(device or ("cpu" if self.engine_remark else best_device()))
        self.scales, self.progress = tuple(scales), progress
        require_device(self.device)
        self.output = OutputOptions(**output)
        if self.output.uncertainty and self.scales != (1.0,):
            raise UserError("uncertainty is measured at one scale of the CT. Omit the scales, or the uncertainty.")
        self.versions = {"nnunet_livseg": __version__, "nnunetv2": version("nnunetv2"), "torch": torch.__version__}
        if crop and liver_model is None and is_cropped(self.model.dataset.json):
            liver_model, crop = starter_liver_model(), False
        if crop is None:
            crop = self.quality.crop and liver_model is None and _takes_whole_cts(self.model)
        self.crop, self.crop_only = _crop_of(self.model, has_liver=liver_model is not None and not crop), crop
        if crop and liver_model is None:
            liver_model = starter_liver_model()
        if isinstance(liver_model, str | Path):
            liver_engine = engine if engine in IN_TORCH or (Path(liver_model) / RECORD).is_file() else TORCH
            liver_model = Segmenter(
                liver_model, quality="fast", device=self.device, engine=liver_engine, crop=False, progress=progress
            )
        if isinstance(liver_model, Segmenter):
            _require_liver(liver_model.model, channels=len(self.model.dataset.channels))
        self.liver_model: LiverFinder | None = liver_model
        # where no more than the box is wanted of the liver
        self.rough_liver = self.crop.mode == "crop" and (crop or LIVER in self.model.structures.values)
        self.steps = load_postprocessing(self.model.folder) if self.output.postprocess else ()

    @cached_property
    def predictor(self) -> CasePredictor:
        """The model's weights in memory, from the first CT on."""
        with stage("load the model"):
            return CasePredictor(
                self.model,
                quality=self.quality,
                device=self.device,
                scales=self.scales,
                members=self.output.uncertainty,
                progress=self.progress,
                engine=self.engine,
            )

    def segment(self, given: object, **reading) -> Segmentation:
        """Segment one CT; ``given`` and ``reading`` are those of ``ct_input.read_ct``.

        Raises:
            UserError: The CT cannot be read, or does not fit the model.
        """
        require_options("segment", reading, READING)
        with stage_clock() as stages:
            return self._segmented(given, reading, stages)

    def _segmented(self, given: object, reading: dict[str, Any], stages: dict[str, float]) -> Segmentation:
        start = time.perf_counter()
        with stage("read"):
            ct = given if isinstance(given, CTInput) else read_ct(given, **reading)
            remarks = require_model_input(ct, self.model)
        prediction, box, notes = self._predicted(ct)
        structures = self._with_liver(prediction.labels, box)
        with stage("measure"):
            values, changes = apply(prediction.labels, spacing_of(ct.image), structures, self.steps)
            labels = on_grid(values, ct.image)
            measurements, lesions = measure(
                ct.image,
                labels,
                structures.values,
                tumor_probability=prediction.probabilities.get(TUMOR),
                tumor_votes=prediction.votes,
                ensemble_vote=prediction.ensemble_vote,
            )
            cut_off = LIVER in measurements.truncated
            notes = [*notes, *self._doubts(ct.image, values, structures, cut_off=cut_off)]
        kept = prediction.probabilities if self.output.probabilities else {}
        uncertainty = prediction.uncertainty
        return Segmentation(
            ct.name,
            ct.image,
            labels,
            structures.values,
            lesions,
            measurements,
            self._provenance(time.perf_counter() - start, stages),
            {name: on_grid(values.astype(np.float32), ct.image) for name, values in kept.items()},
            None if uncertainty is None else on_grid(uncertainty.astype(np.float32).round(2), ct.image),
            ct.series,
            (*ct.notes, *remarks, *notes, *changes, *self._remarks()),
        )

    def label_map(self, ct: CTInput) -> tuple[np.ndarray, list[str]]:
        """The model's own label values, ``(Z, Y, X)`` of the CT, without anything measured or changed; and notes.

        Raises:
            UserError: The CT does not fit the model.
        """
        require_model_input(ct, self.model)
        prediction, _, notes = self._predicted(ct)
        return prediction.labels, notes

    def find_liver(self, ct: CTInput, *, rough: bool = False) -> np.ndarray:
        """True where the model sees liver or tumor, ``(Z, Y, X)`` of the CT; of more channels it takes the first.

        ``rough``: a model that asks for a coarse grid decides on its network's voxels.
        """
        predicted = self.predictor.rough_label_map if rough and self.predictor.grid else self.predictor.label_map
        labels = predicted(ct.images[: len(self.model.dataset.channels)])
        liver = mask_of(labels, self.model.structures.values[LIVER])
        return liver & large_enough(self.model.dataset.json, ct.image, liver)

    def weights(self) -> list[Path]:
        """Files that results depend on: descriptions and weights of all models, postprocessing."""
        files = [self.model.folder / FILE] if self.output.postprocess else []
        for model in filter(None, (self.model, self.model.previous_stage)):
            files += [model.folder / "plans.json", model.folder / "dataset.json"]
            weights = model.checkpoint if self.engine in IN_TORCH else NETWORK
            files += [model.folder / f"fold_{fold}" / weights for fold in model.folds]
        return [*files, *(self.liver_model.weights() if self.liver_model else ())]

    def settings(self) -> dict[str, Any]:
        """All else that results depend on, JSON-able."""
        own = {"quality": asdict(self.quality), "output": asdict(self.output), "scales": self.scales}
        liver = self.liver_model and {"crop_only": self.crop_only, **self.liver_model.settings()}
        return {**own, "liver": liver, "engine": self.engine_remark or TORCH, "versions": self.versions}

    def _doubts(self, image, values: np.ndarray, structures: Structures, *, cut_off: bool) -> list[str]:
        """Contradictions between a CT's header and where its liver was found, and what the model has never seen."""
        if LIVER not in structures.values or self.model.dataset.channels[0].lower() != "ct":
            return []
        liver = mask_of(values, structures.values[LIVER])
        if not liver.any():
            return [NO_LIVER]
        unseen = beyond_training(self.model.dataset.json, image, liver, cut_off=cut_off)
        return [*mirrored_axes(image, liver), *unseen]

    def _remarks(self) -> list[str]:
        """What limits every result of this model in this quality."""
        alone = len(self.predictor.folds) == 1 and not self.predictor.mirrors
        return [_ONE_MEMBER] if self.output.uncertainty and alone else []

    def _predicted(self, ct: CTInput) -> tuple[Prediction, LiverBox | None, list[str]]:
        """What the model says on the CT's grid, where it looked if not everywhere, and why."""
        wanted = self.model.structures.values if self.output.probabilities else ()
        box, notes = None, []
        if self.liver_model is not None:
            with stage("find the liver"):
                liver, spacing_mm = self.liver_model.find_liver(ct, rough=self.rough_liver), spacing_of(ct.image)
                box = find_liver_box(liver, spacing_mm=spacing_mm, margin_mm=self.crop.margin_mm)
            if box is None and not self.crop_only:
                return self._nothing(ct), None, [NOTHING_SEGMENTED]
            notes = [WHOLE_SEGMENTED] if box is None else []
        if box is None:
            return self.predictor.predict(ct.images, structures=wanted), None, notes
        fills, mode = fill_values(self.model.dataset.channels), self.crop.mode
        images = [crop_image(image, box, mode=mode, fill=fill) for image, fill in zip(ct.images, fills, strict=True)]
        found = self.predictor.predict(images, structures=wanted)
        return found.changed(partial(uncrop, box=box, mode=mode, shape=ct.image.GetSize()[::-1])), box, notes

    def _nothing(self, ct: CTInput) -> Prediction:
        """Zeros in every map that was asked for."""
        labels = np.zeros(ct.image.GetSize()[::-1], np.uint8)
        zeros = labels.astype(np.float16)
        names = self.model.structures.values if self.output.probabilities else ()
        return Prediction(labels, dict.fromkeys(names, zeros), uncertainty=zeros if self.output.uncertainty else None)

    def _with_liver(self, labels: np.ndarray, box: LiverBox | None) -> Structures:
        """The model's structures; where it does not know the liver, the liver model's, under the next free value."""
        known = self.model.structures
        if self.liver_model is None or self.crop_only or LIVER in known.values:
            return known
        free = 1 + max(value for values in known.values.values() for value in values)
        if box is not None:
            inside = labels[box.slices]
            inside[box.inside & (inside == 0)] = free
        return replace(known, values={LIVER: (free, *known.values.get(TUMOR, ())), **known.values})

    def _provenance(self, seconds: float, stages: dict[str, float]) -> Provenance:
        settings = {
            "mirroring": "yes" if self.predictor.mirrors else "no",
            "step of the sliding window": f"{self.quality.step_size:g} of a patch",
        }
        if self.quality.torch_resampling:
            settings["resampling of the logits"] = "by torch, linear"
        nnunet = self.predictor.nnunet
        if nnunet.patch and nnunet.patch != (planned := tuple(nnunet.configuration_manager.patch_size)):
            settings["patch"] = f"{as_size(nnunet.patch)} voxels; of the plans: {as_size(planned)}"
        if (patches := nnunet.patches_at_a_time) > 1:
            settings["patches at a time"] = str(patches)
        if self.engine_remark:
            settings["engine"] = self.engine_remark
        if self.scales != (1.0,):
            settings["scales"] = " ".join(f"{scale:g}" for scale in self.scales)
        if (previous := self.predictor.previous) is not None:
            settings["previous stage"] = f"{previous.model.name}, folds {', '.join(previous.folds)}"
        if self.liver_model is not None:
            settings["liver first"] = f"{self.liver_model.name}, {self.crop.mode}, {self.crop.margin_mm:g} mm"
            if self.engine_remark and isinstance(self.liver_model, Segmenter) and self.liver_model.engine == TORCH:
                settings["liver first"] += ", in torch"
        if self.output.postprocess:
            settings["post-processing"] = ", ".join(map(as_text, self.steps)) or "none: nothing was found to help"
        return Provenance(
            self.name,
            self.predictor.folds,
            self.model.checkpoint,
            self.quality.name,
            settings,
            self.device,
            round(seconds, 1),
            self.versions,
            stages,
        )


def _takes_whole_cts(model: TrainedModel) -> bool:
    """Whether the starter model may look for the liver in what the model takes."""
    content = model.dataset.json
    return (
        model.dataset.channels[0].lower() == "ct" and not is_cropped(content) and CoarseGrid.of_model(content) is None
    )


def _crop_of(model: TrainedModel, *, has_liver: bool) -> LiverCrop:
    """How images are cropped to the liver: as in training, or, for a model of whole CTs, its wider box."""
    if not is_cropped(model.dataset.json):
        return LiverCrop("crop", MARGIN_MM)
    if not has_liver:
        raise UserError(
            f"{model.folder.name} was trained on CTs cropped to the liver (livseg two-stage data), so it cannot read"
            " whole ones.\n  Let the starter model find the liver: --crop alone. Or name a model that finds it, without"
            " --crop: --liver-model FOLDER."
        )
    return LiverCrop.from_dataset_json(model.dataset.json)


def _require_liver(finder: TrainedModel, *, channels: int) -> None:
    if LIVER not in finder.structures.values:
        raise UserError(
            f"the liver model {finder.folder.name} has no label named liver; it has"
            f" {', '.join(finder.structures.values)}.\n  Give a model that segments the liver."
        )
    if len(finder.dataset.channels) > channels:
        raise UserError(
            f"the liver model {finder.folder.name} needs {len(finder.dataset.channels)} channels, the other model"
            f" {channels}: they cannot read the same CT.\n  Give a liver model with one channel."
        )


READING = signature(read_ct).parameters.keys() - {"given"}
SEGMENTER_OPTIONS = (signature(Segmenter).parameters.keys() - {"model", "output"}) | {
    field.name for field in fields(OutputOptions)
}
