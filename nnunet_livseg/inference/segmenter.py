"""One call for one patient: a CT in any form, a trained model, one result.

The work is nnU-Net's (``case_predictor``); here is what stands around it: reading, the liver first where there is a
model for it, putting back on the input's grid, post-processing, measuring.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from nnunet_livseg import __version__
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER, TUMOR, Structures, mask_of
from nnunet_livseg.data.liver_crop_dataset import Cutting, fill_values, is_cut
from nnunet_livseg.imaging.grid import spacing_of
from nnunet_livseg.imaging.images import on_grid
from nnunet_livseg.imaging.liver_crop import Region, cut_image, find_region, placed
from nnunet_livseg.imaging.orientation import mirrored_axes
from nnunet_livseg.inference.case_predictor import CasePredictor, Prediction
from nnunet_livseg.inference.ct_input import Source, open_source
from nnunet_livseg.inference.devices import best_device, require_device
from nnunet_livseg.inference.fit import require_fit
from nnunet_livseg.inference.quality import Quality, quality_of
from nnunet_livseg.inference.trained_model import CHECKPOINT, TrainedModel
from nnunet_livseg.patient.measure import measure
from nnunet_livseg.patient.segmentation import Provenance, Segmentation
from nnunet_livseg.postprocessing import apply, load_postprocessing
from nnunet_livseg.postprocessing.record import FILE
from nnunet_livseg.postprocessing.steps import as_text

_ONE_MEMBER = "one fold without mirroring: only overlapping patches could disagree, so agreement says little"
REGION_MARGIN_MM = 30.0  # what a model that was trained on whole CTs sees around the liver


@dataclass(frozen=True)
class Wishes:
    """What a result shall hold beside labels and measurements.

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
        model: Folder ``TRAINER__PLANS__CONFIGURATION`` of any nnU-Net training.
        folds: One or several; left out, what the quality says.
        checkpoint: File name of the weights.
        quality: ``fast``, ``standard`` (equals ``nnUNetv2_predict``), ``best``, or a ``Quality``.
        device: ``cuda``, ``cpu``, ``mps``; left out, the best that is here.
        liver_model: Folder of a model that finds the liver first; the other one then looks only there.
        progress: Show progress bars.
        wishes: What the results shall hold: ``probabilities``, ``uncertainty``, ``postprocess`` (see ``Wishes``).

    Raises:
        UserError: A model cannot be used, and why.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        folds: Sequence[str | int] | str | int | None = None,
        checkpoint: str = CHECKPOINT,
        quality: str | Quality = "standard",
        device: str | torch.device | None = None,
        liver_model: str | Path | None = None,
        progress: bool = False,
        **wishes: bool,
    ) -> None:
        folds = (folds,) if isinstance(folds, str | int) else folds
        self.model = TrainedModel.open(model, folds=folds and tuple(folds), checkpoint=checkpoint)
        self.quality = quality_of(quality)
        if folds:  # named folds are all wanted
            self.quality = replace(self.quality, every_fold=True)
        self.device = str(device or best_device())
        require_device(self.device)
        self.wishes = Wishes(**wishes)
        self.versions = {"nnunet_livseg": __version__, "nnunetv2": version("nnunetv2"), "torch": torch.__version__}
        self.cutting = cutting_of(self.model, has_liver_model=liver_model is not None)
        self.finder = None if liver_model is None else TrainedModel.open(liver_model)
        if self.finder is not None:
            _require_liver(self.finder, channels=len(self.model.dataset.channels))
        self.steps = load_postprocessing(self.model.folder) if self.wishes.postprocess else ()
        self.progress = progress

    @cached_property
    def predictor(self) -> CasePredictor:
        """The model's weights in memory, from the first CT on."""
        members = self.wishes.uncertainty
        return CasePredictor(
            self.model, quality=self.quality, device=self.device, members=members, progress=self.progress
        )

    @cached_property
    def liver_predictor(self) -> CasePredictor:
        """The liver model's weights; it need not be thorough to find a box."""
        return CasePredictor(
            self.finder, quality=quality_of("fast"), device=self.device, members=False, progress=self.progress
        )

    def segment(self, given: object, **reading) -> Segmentation:
        """Segment one CT; ``given`` and ``reading`` are those of ``ct_input.open_source``.

        Raises:
            UserError: The CT cannot be read, or does not fit the model.
        """
        start = time.perf_counter()
        source = given if isinstance(given, Source) else open_source(given, **reading)
        remarks = require_fit(source, self.model)
        prediction, structures, notes = self._predicted(source)
        values, changes = apply(prediction.labels, spacing_of(source.image), Structures(structures), self.steps)
        labels = on_grid(values, source.image)
        notes = [*notes, *self._mirrored(source.image, values, structures)]
        measurements, lesions = measure(
            source.image,
            labels,
            structures,
            tumor_probability=prediction.probabilities.get(TUMOR),
            tumor_votes=prediction.votes,
            own_vote=prediction.own_vote,
        )
        kept = prediction.probabilities if self.wishes.probabilities else {}
        uncertainty = prediction.uncertainty
        return Segmentation(
            source.name,
            source.image,
            labels,
            structures,
            lesions,
            measurements,
            self._provenance(time.perf_counter() - start),
            {name: on_grid(values.astype(np.float32), source.image) for name, values in kept.items()},
            None if uncertainty is None else on_grid(uncertainty.astype(np.float32).round(2), source.image),
            source.series,
            (*source.notes, *remarks, *notes, *changes, *self._remarks()),
        )

    def _mirrored(self, image, values: np.ndarray, structures: dict[str, tuple[int, ...]]) -> list[str]:
        """Contradictions between a CT's header and where its liver was found."""
        if LIVER not in structures or self.model.dataset.channels[0].lower() != "ct":
            return []
        return mirrored_axes(image, mask_of(values, structures[LIVER]))

    def _remarks(self) -> list[str]:
        """What limits every result of this model in this quality."""
        alone = len(self.predictor.folds) == 1 and not self.predictor.mirrors
        return [_ONE_MEMBER] if self.wishes.uncertainty and alone else []

    def weights(self) -> list[Path]:
        """Files that results depend on: descriptions and weights of all models, post-processing."""
        models = [model for model in (self.model, self.finder) if model is not None]
        files = [self.model.folder / FILE] if self.wishes.postprocess else []
        for model in (*models, *(model.previous_stage for model in models if model.previous_stage is not None)):
            files += [model.folder / "plans.json", model.folder / "dataset.json"]
            files += [model.folder / f"fold_{fold}" / model.checkpoint for fold in model.folds]
        return files

    def _predicted(self, source: Source) -> tuple[Prediction, dict[str, tuple[int, ...]], list[str]]:
        wanted = self.model.structures if self.wishes.probabilities else ()
        if self.finder is None:
            return self.predictor.predict(source.images, structures=wanted), self.model.structures, []
        region = self._region(source)
        if region is None:
            return self._nothing(source), self._structures(), ["the liver model found no liver: nothing segmented"]
        fills = fill_values(self.model.dataset.channels)
        cut = [
            cut_image(image, region, mode=self.cutting.mode, fill=fill)
            for image, fill in zip(source.images, fills, strict=True)
        ]
        found = self.predictor.predict(cut, structures=wanted)
        prediction, structures = self._put_back(found, region, source.image.GetSize()[::-1])
        return prediction, structures, []

    def _nothing(self, source: Source) -> Prediction:
        """Zeros in every map that was asked for."""
        labels = np.zeros(source.image.GetSize()[::-1], np.uint8)
        zeros = labels.astype(np.float16)
        names = self.model.structures if self.wishes.probabilities else ()
        return Prediction(labels, dict.fromkeys(names, zeros), uncertainty=zeros if self.wishes.uncertainty else None)

    def _region(self, source: Source) -> Region | None:
        found = self.liver_predictor.predict(source.images[: len(self.finder.dataset.channels)])
        mask = mask_of(found.labels, self.finder.structures[LIVER])
        return find_region(mask, spacing_mm=spacing_of(source.image), margin_mm=self.cutting.margin_mm)

    def _put_back(
        self, found: Prediction, region: Region, shape: tuple[int, ...]
    ) -> tuple[Prediction, dict[str, tuple[int, ...]]]:
        """The prediction of the liver's box on the whole grid; with the liver, where the model knows only tumors."""
        whole = found.changed(partial(placed, region=region, mode=self.cutting.mode, shape=shape))
        structures = self._structures()
        if LIVER not in self.model.structures:
            inside = whole.labels[region.slices]
            inside[region.inside & (inside == 0)] = structures[LIVER][0]
        return whole, structures

    def _structures(self) -> dict[str, tuple[int, ...]]:
        """The model's; where it does not know the liver, with the liver model's under the next free value."""
        known = self.model.structures
        if self.finder is None or LIVER in known:
            return known
        free = 1 + max(value for values in known.values() for value in values)
        return {LIVER: (free, *known.get(TUMOR, ())), **known}

    def _provenance(self, seconds: float) -> Provenance:
        settings = {
            "mirroring": "yes" if self.predictor.mirrors else "no",
            "step of the sliding window": f"{self.quality.step_size:g} of a patch",
        }
        if (previous := self.predictor.previous) is not None:
            settings["previous stage"] = f"{previous.model.name}, folds {', '.join(previous.folds)}"
        if self.finder is not None:
            settings["liver first"] = f"{self.finder.name}, {self.cutting.mode}, {self.cutting.margin_mm:g} mm"
        if self.wishes.postprocess:
            settings["post-processing"] = ", ".join(map(as_text, self.steps)) or "none: nothing was found to help"
        model = self.model
        return Provenance(
            model.name,
            self.predictor.folds,
            model.checkpoint,
            self.quality.name,
            settings,
            self.device,
            round(seconds, 1),
            self.versions,
        )


def cutting_of(model: TrainedModel, *, has_liver_model: bool) -> Cutting:
    """How images are cut to the liver: as in the model's training, or, for one trained on whole CTs, its wider box."""
    if not is_cut(model.dataset.json):
        return Cutting("crop", REGION_MARGIN_MM)
    if not has_liver_model:
        raise UserError(
            f"{model.folder.name} was trained on CTs that were cut to the liver (livseg two-stage data), so it cannot"
            "\n  read whole ones. Give the model that finds the liver: --liver-model FOLDER."
        )
    return Cutting.of_model(model.dataset.json)


def _require_liver(finder: TrainedModel, *, channels: int) -> None:
    if LIVER not in finder.structures:
        raise UserError(
            f"the liver model {finder.folder.name} has no label named liver; it has {', '.join(finder.structures)}."
        )
    if len(finder.dataset.channels) > channels:
        raise UserError(
            f"the liver model {finder.folder.name} needs {len(finder.dataset.channels)} channels, the other model"
            f" {channels}: they cannot read the same CT."
        )
