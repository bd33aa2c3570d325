"""A trained model as a folder that other programs can run: ONNX, JSON, and weights without pickle.

The folder is a model folder as any other, ``fold_F/checkpoint_final.safetensors`` beside ``plans.json`` and
``dataset.json`` (see ``safe_weights``), so torch runs it. ``fold_F/network.onnx`` is for the other engines, and
``export.json`` says what a program needs to know that runs it by itself.
"""

# Shape letters: C image channels, K output channels, *S patch

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from torch import Tensor, nn

from nnunet_livseg import __version__
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import INCOMPLETE, write_json
from nnunet_livseg.core.output_folder import require_folder
from nnunet_livseg.inference.case_predictor import CasePredictor
from nnunet_livseg.inference.engines import ENGINES, FLOAT32, IN_TORCH, NETWORK, RECORD, EngineNetwork, is_usable
from nnunet_livseg.inference.quality import quality_of
from nnunet_livseg.inference.safe_weights import SafeWeights, known_architecture, write_safe_weights
from nnunet_livseg.inference.trained_model import SAFE_CHECKPOINT, TrainedModel
from nnunet_livseg.postprocessing.steps_file import FILE as POSTPROCESSING

FIRST_TORCH = (2, 6)  # whose exporter takes names of inputs
FORMAT = 1  # raised when a key of export.json changes its meaning
OTHERS = tuple(engine for engine in ENGINES if engine not in IN_TORCH)
LEAST_EQUAL = 0.999  # share of labels on each patch; below, float32 does not run the network as torch does
_PHANTOM = {"size": (48, 96, 96), "phases": 1}


@dataclass(frozen=True)
class Parity:
    """One patch through an engine, and through torch.

    Args:
        largest_difference: Largest difference between two logits of one voxel.
        largest_logit: Largest absolute logit in torch.
        equal_labels: Share of the patch's voxels with the same label.
    """

    largest_difference: float
    largest_logit: float
    equal_labels: float


def export_model(model: TrainedModel, out: Path, *, ct: Sequence[sitk.Image] = ()) -> dict[str, Any]:
    """Write ``model`` to a new folder ``out``; returns the content of its ``export.json``.

    Args:
        model: Any trained model.
        out: A folder that does not exist or is empty.
        ct: A CT, one image per channel, whose middle is the patch to compare engines on; left out, a phantom.

    Raises:
        UserError: The model cannot be loaded, or the folder not be written.
    """
    _require_place(model, out)
    predictor = CasePredictor(model, quality=quality_of(), device="cpu")
    plans, configuration = model.plans, _configuration(predictor)
    patches = {"random": _random_patch(predictor), "ct" if ct else "phantom": _middle_patch(predictor, ct)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=INCOMPLETE, dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        folds = [_export_fold(predictor, number, folder, patches) for number in range(len(predictor.folds))]
        record = _record(predictor, configuration, dict(zip(predictor.folds, folds, strict=True)))
        write_json(folder / "plans.json", {**plans, "configurations": {configuration: _settings(predictor)}})
        write_json(folder / "dataset.json", model.dataset.json)
        if (model.folder / POSTPROCESSING).is_file():
            shutil.copy(model.folder / POSTPROCESSING, folder)
        write_json(folder / RECORD, record, default=np.generic.item)
        if out.is_dir():
            out.rmdir()
        folder.rename(out)
    return record


def _require_place(model: TrainedModel, out: Path) -> None:
    require_folder(out, inputs=[model.folder])
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty, and networks of two exports must not mix.\n  Name another folder.")
    if model.previous_configuration and out.name != model.folder.name:
        raise UserError(
            f"{model.folder.name} is the second model of nnU-Net's cascade, whose first one is found by its name."
            f"\n  Export both into one folder under their names: -o FOLDER/{model.folder.name}"
        )


def _configuration(predictor: CasePredictor) -> str:
    """The name in the plans of what the predictor has loaded."""
    configurations, loaded = predictor.model.plans["configurations"], predictor.model.folder.name.split("__")[-1]
    return loaded if loaded in configurations else next(iter(configurations))


def _settings(predictor: CasePredictor) -> dict[str, Any]:
    """The configuration with all that it inherits."""
    settings = predictor.nnunet.configuration_manager.configuration
    return {key: value for key, value in settings.items() if key != "inherits_from"}


# --- one fold ---------------------------------------------------------------------------------------------------------


def _export_fold(
    predictor: CasePredictor, number: int, folder: Path, patches: Mapping[str, Tensor]
) -> tuple[dict[str, dict[str, Parity]], dict[str, str]]:
    """Write weights and network of a fold; returns parity by engine and patch, and reasons by engine."""
    nnunet, place = predictor.nnunet, folder / f"fold_{predictor.folds[number]}"
    network = getattr(nnunet.network, "_orig_mod", nnunet.network).eval()
    network.load_state_dict(nnunet.list_of_parameters[number])
    trainer, configuration = nnunet.trainer_name, _configuration(predictor)
    architecture = known_architecture(trainer, predictor.model.plans, configuration)
    weights = SafeWeights(network.state_dict(), trainer, configuration, nnunet.allowed_mirroring_axes, architecture)
    write_safe_weights(weights, place / SAFE_CHECKPOINT)
    if reason := write_onnx(network, patches["random"], place / NETWORK):
        return {}, dict.fromkeys(OTHERS, reason)
    return compared(network, place / NETWORK, patches, decide=predictor.label_manager.convert_logits_to_segmentation)


def write_onnx(network: nn.Module, example: Tensor, path: Path) -> str:
    """Write ``network`` for inputs of the shape of ``example (1, C, *S)``; returns why it cannot, or nothing."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        return f"{missing[0]} is not installed here: pip install 'nnunet-livseg[onnx]', and export again."
    if tuple(map(int, torch.__version__.split(".")[:2])) < FIRST_TORCH:
        return f"torch {torch.__version__} does not write ONNX by tracing; {'.'.join(map(str, FIRST_TORCH))} does."
    try:
        program = torch.onnx.export(
            network, (example,), dynamo=True, input_names=["image"], output_names=["logits"], verbose=False
        )
        program.save(path)
    except Exception as error:  # whatever an operation without ONNX raises
        path.unlink(missing_ok=True)
        return f"the network has no ONNX form: {type(error).__name__}: {_first_line(error)}"
    return ""


def compared(
    network: nn.Module, path: Path, patches: Mapping[str, Tensor], *, decide: Any
) -> tuple[dict[str, dict[str, Parity]], dict[str, str]]:
    """Parity of every engine that is usable, by patch, and by engine why it does not run the network as torch does.

    Args:
        network: In torch.
        path: Its ONNX file.
        patches: ``(1, C, *S)`` by name.
        decide: From logits ``(K, *S)`` to labels.
    """
    with torch.inference_mode():
        expected = {name: network(patch)[0] for name, patch in patches.items()}
    found, reasons = {}, {}
    for engine in filter(is_usable, OTHERS):
        try:
            other = EngineNetwork([path], engine, shape=next(iter(patches.values())).shape)
            parities = {name: _parity(expected[name], other(patch)[0], decide) for name, patch in patches.items()}
        except Exception as error:  # an operation that the engine lacks
            reasons[engine] = _first_line(error)
            continue
        found[engine] = parities
        low = [name for name, parity in parities.items() if parity.equal_labels < LEAST_EQUAL]
        if low and engine in FLOAT32:
            reasons[engine] = (
                f"only {parities[low[0]].equal_labels:.2%} of the labels of the {low[0]} patch equal those of torch."
            )
    return found, reasons


def _parity(expected: Tensor, found: Tensor, decide: Any) -> Parity:
    labels = [np.asarray(decide(logits)) for logits in (expected, found)]
    return Parity(
        float((expected - found).abs().max()),
        float(expected.abs().max()),
        float(np.mean(labels[0] == labels[1])),
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# --- the patches ------------------------------------------------------------------------------------------------------


def _random_patch(predictor: CasePredictor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, _inputs(predictor), *_patch_size(predictor), generator=generator)


def _patch_size(predictor: CasePredictor) -> list[int]:
    return [int(n) for n in predictor.nnunet.configuration_manager.patch_size]


def _inputs(predictor: CasePredictor) -> int:
    """Channels of the network's input, with those of a previous stage's labels."""
    labels = len(predictor.label_manager.foreground_labels) if predictor.previous else 0
    return len(predictor.model.dataset.channels) + labels


def _middle_patch(predictor: CasePredictor, ct: Sequence[sitk.Image]) -> Tensor:
    """The middle of a CT as the network sees it; of a cascade, without a liver in the previous stage's labels."""
    images = list(ct) or [_phantom()] * len(predictor.model.dataset.channels)
    settings = predictor.nnunet.configuration_manager
    edge_mm = 1.5 * max(n * s for n, s in zip(_patch_size(predictor), settings.spacing, strict=True))
    images = [_middle(image, edge_mm) for image in images]
    images = [predictor.grid.coarse(image) for image in images] if predictor.grid else images
    axes = predictor.axes(images[0])
    stacked = axes.stacked(images)
    previous = np.zeros((1, *stacked.shape[1:]), np.int16) if predictor.previous else None
    data, _ = predictor.preprocessed(stacked, axes.spacing_mm, previous)
    patch = _patch_size(predictor)
    size = (1,) * (data.ndim - 1 - len(patch)) + tuple(patch)
    padded = pad_nd_image(data, size, "constant", {"constant_values": 0})
    starts = [(full - n) // 2 for full, n in zip(padded.shape[1:], size, strict=True)]
    middle = padded[(slice(None), *(slice(start, start + n) for start, n in zip(starts, size, strict=True)))]
    return torch.from_numpy(np.ascontiguousarray(middle)).reshape(1, len(data), *patch).float()


def _middle(image: sitk.Image, edge_mm: float) -> sitk.Image:
    """The middle of an image, at most a cube: no more needs preprocessing than a patch."""
    size = [min(n, max(1, round(edge_mm / s))) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    return sitk.RegionOfInterest(image, size, [(n - m) // 2 for n, m in zip(image.GetSize(), size, strict=True)])


def _phantom() -> sitk.Image:
    from nnunet_livseg.data.phantom import make_case

    case = make_case(0, **_PHANTOM)
    image = sitk.GetImageFromArray(case.image[0])
    image.SetSpacing([float(s) for s in case.grid.spacing_mm[::-1]])
    return image


# --- export.json ------------------------------------------------------------------------------------------------------


def _record(predictor: CasePredictor, configuration: str, folds: Mapping[str, tuple]) -> dict[str, Any]:
    """All that a program needs to know that runs ``network.onnx`` by itself, and how well engines agree."""
    nnunet, model = predictor.nnunet, predictor.model
    plans, axes = nnunet.plans_manager, nnunet.allowed_mirroring_axes
    packages = ("nnunetv2", "torch", *(name for name in ("onnx", "onnxscript", *FLOAT32) if find_spec(name)))
    return {
        "format": FORMAT,
        "model": model.name,
        "trainer": nnunet.trainer_name,
        "configuration": configuration,
        "checkpoint": model.checkpoint,
        "input_shape": [1, _inputs(predictor), *_patch_size(predictor)],
        "spacing_mm": list(nnunet.configuration_manager.spacing),
        "axes_of_the_reader": list(plans.transpose_forward),
        "channels": [_window(predictor, index) for index in range(len(model.dataset.channels))],
        "labels": model.dataset.json["labels"],
        "outputs": list(map(_as_list, _outputs(predictor))),
        "exclusive": predictor.exclusive,
        "mirroring_axes": axes and list(axes),
        "parity": {
            fold: {engine: {name: vars(p) for name, p in of.items()} for engine, of in found.items()}
            for fold, (found, _) in folds.items()
        },
        "not_exported": {engine: reason for _, reasons in folds.values() for engine, reason in reasons.items()},
        "made_with": {"nnunet_livseg": __version__, **{name: version(name) for name in packages}},
    }


def _window(predictor: CasePredictor, index: int) -> dict[str, Any]:
    """What preprocessing does with the values of a channel: the HU window, and mean and SD for CT."""
    plans, configuration = predictor.nnunet.plans_manager, predictor.nnunet.configuration_manager
    scheme = configuration.normalization_schemes[index]
    window = {"name": predictor.model.dataset.channels[index], "normalization": scheme}
    if scheme == "CTNormalization":
        found = plans.foreground_intensity_properties_per_channel[str(index)]
        window |= {"window_hu": [found["percentile_00_5"], found["percentile_99_5"]]}
        window |= {"mean_hu": found["mean"], "sd_hu": found["std"]}
    return window


def _outputs(predictor: CasePredictor) -> Sequence[Any]:
    """Label value, or values of the region, of every output channel."""
    manager = predictor.label_manager
    return manager.foreground_regions if manager.has_regions else manager.all_labels


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
