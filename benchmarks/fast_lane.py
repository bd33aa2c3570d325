"""Every part of the fast lane of ``livseg segment`` alone, beside ``nnUNetv2_predict``; for docs/evidence/.

    python benchmarks/fast_lane.py WORK CT [--reference LABELS] [--json docs/evidence/fast_lane.json] [--ways WAY ...]

CT is a real one of 512x512 voxels in plane that holds a liver, but not in its first and last slice. It is resampled to
100 slices; longer ones repeat those two slices up to 300, and that is resampled to 600. Commands run one after the
other on the CPU in fresh processes, with the report left out; memory is the sum over a command's processes (PSS,
Linux). Rows in the JSON file are not measured again. ``--ways`` measures some ways alone, and no starter model.

1. All ways side by side on the shortest CT, DPC-Net with a quarter of its channels. Its weights are the initial ones,
   which take the same time; its output layers answer background, so that no time goes into measuring noise.
2. ``--quality fast`` on all CTs.
3. The time of ten patches at full width, in every engine. Minutes of whole CTs follow from the number of
   patches: they are projected.
4. The starter model on the CT as it is: which labels change, and Dice against the reference.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from engine_time import in_engine  # beside this script
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from segment import SEGMENT, box_of_crop, dice, enlarge, measured

from nnunet_livseg.core.files import write_json
from nnunet_livseg.diagnostics.machine import processor_name
from nnunet_livseg.imaging.grid import spacing_of
from nnunet_livseg.inference.engines import BFLOAT16, IN_TORCH, TORCH, TORCH_BFLOAT16, is_usable
from nnunet_livseg.inference.export_model import write_onnx
from nnunet_livseg.inference.quality import PRESETS, quality_of
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.variants import find_variant

PREDICT = "nnUNetv2_predict"
ENGINES = (TORCH_BFLOAT16, "openvino", BFLOAT16)  # beside torch
WAYS = {  # arguments of livseg segment; of nnUNetv2_predict behind its name
    PREDICT: (),
    f"{PREDICT} --disable_tta": ("--disable_tta",),
    "standard": (),
    "standard --disable_tta": ("--disable_tta",),
    "standard --disable_tta --crop": ("--disable_tta", "--crop"),
    "standard --disable_tta -step_size 0.75": ("--disable_tta", "-step_size", "0.75"),
    "standard --disable_tta --torch-resampling": ("--disable_tta", "--torch-resampling"),
    "fast": ("--quality", "fast"),
    **{f"fast --engine {engine}": ("--quality", "fast", "--engine", engine) for engine in ENGINES},
}
OF_STARTER = {
    "standard": ("--quality", "standard"),
    "standard -step_size 0.75": ("--quality", "standard", "-step_size", "0.75"),
    "standard --fit-patch": ("--quality", "standard", "--fit-patch"),
    "standard --torch-resampling": ("--quality", "standard", "--torch-resampling"),
    "balanced": (),
    f"balanced --engine {TORCH_BFLOAT16}": ("--engine", TORCH_BFLOAT16),
    "fast": ("--quality", "fast"),
}
MIRRORED = 8  # copies of a patch in 3D


@dataclass(frozen=True)
class Bench:
    """What is measured.

    Args:
        slices: How many slices each CT has, from short to long.
        in_plane: Voxels along x and y.
        spacing_mm: Voxel size of the networks (z, y, x).
        patch: Voxels.
        quarter: Channels of the narrow network.
        full: Channels of the wide one; None for nnU-Net's.
        patches: How many are timed at full width.
    """

    slices: tuple[int, ...] = (100, 300, 600)
    in_plane: int = 512
    spacing_mm: tuple[float, float, float] = (1.5, 1.0, 1.0)
    patch: tuple[int, int, int] = (128, 128, 128)
    quarter: tuple[int, ...] = (8, 16, 32, 64, 80, 80)
    full: tuple[int, ...] | None = None
    patches: int = 10


class Record:
    """The JSON file: what is in it is not measured again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = json.loads(path.read_text()) if path.exists() else {"rows": {}}

    def keep(self, name: str, value: Any) -> None:
        self.content[name] = value
        write_json(self.path, self.content)

    def row(self, *key: object) -> dict | None:
        return self.content["rows"].get(" | ".join(map(str, key)))

    def add(self, row: Mapping[str, Any], *key: object) -> None:
        self.content["rows"][" | ".join(map(str, key))] = row
        write_json(self.path, self.content)
        print(time.strftime("%H:%M:%S"), *key, row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--json", type=Path, default=Path("fast_lane.json"))
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help="such as 'fast' (default: all)")
    args = parser.parse_args()
    measure(args.work, args.ct, Record(args.json), Bench(), reference=args.reference, ways=args.ways)


def measure(
    work: Path,
    ct: Path,
    record: Record,
    bench: Bench,
    *,
    reference: Path | None = None,
    ways: Sequence[str] | None = None,
) -> None:
    """Everything that the record lacks, or of these ways alone."""
    record.keep("machine", {"name": processor_name(), "threads": torch.get_num_threads(), "torch": torch.__version__})
    record.keep("spacing_mm", bench.spacing_mm)
    cts = {count: work / f"x{count}" / f"ct{count}_0000.nii.gz" for count in bench.slices}
    make_cts(ct, cts, bench.in_plane)
    model = work / "quarter" / "DPCNetTrainer__nnUNetPlans__3d_fullres"
    if not model.exists():
        write_model(model, bench, bench.quarter)
    exported = model.parent / "exported"
    engines = [engine for engine in (TORCH, *ENGINES) if is_usable(engine)]
    if not exported.exists() and any(map(needs_export, engines)):
        measured("livseg", "export", model, "-o", exported)
    for way in ways or WAYS:
        for count, path in cts.items():
            alone = count != bench.slices[0] and not way.startswith("fast")
            engine = engine_of(way)
            if alone or engine not in engines or record.row("quarter", count, way):
                continue
            folder = exported if needs_export(engine) else model
            record.add(run(way, folder, path, work / "out"), "quarter", count, way)
    for count, path in cts.items():
        if not record.row("passes", count):
            record.add(forward_passes(path, bench), "passes", count)
    for engine in engines:
        if not record.row("full", engine):
            seconds = seconds_per_patch(bench, engine)
            record.add({"median": round(median(seconds), 3), "all": seconds}, "full", engine)
    for way in () if ways else OF_STARTER:
        if engine_of(way) in engines and not record.row("starter", way):
            record.add(run_starter(way, ct, work / "starter", reference), "starter", way)


def engine_of(way: str) -> str:
    """What runs the network."""
    return way.partition("--engine ")[2] or TORCH


def needs_export(engine: str) -> bool:
    """Whether the engine runs exported models alone."""
    return engine not in IN_TORCH


def make_cts(ct: Path, paths: Mapping[int, Path], in_plane: int) -> None:
    """The CT with the wanted numbers of slices: resampled, with its end slices repeated, that resampled."""
    image = sitk.ReadImage(str(ct))
    counts = list(paths)
    for count, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        missing = max(0, counts[min(1, len(counts) - 1)] - image.GetDepth()) if count > counts[0] else 0
        longer = sitk.ZeroFluxNeumannPad(image, (0, 0, missing // 2), (0, 0, missing - missing // 2))
        enlarge(longer, (count, in_plane, in_plane), path)


def write_model(folder: Path, bench: Bench, features: Sequence[int]) -> None:
    """A model folder as after training, with initial weights and background as the answer."""
    settings = stock_configuration(3, patch=bench.patch, features=tuple(features)) | {
        "data_identifier": "none",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": list(bench.spacing_mm),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
    }
    for what, order in {"data": 3, "seg": 1, "probabilities": 1}.items():
        kwargs = {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        settings |= {f"resampling_fn_{what}": "resample_data_or_seg_to_shape", f"resampling_fn_{what}_kwargs": kwargs}
    network = build(settings, find_variant("dpcnet"), deep_supervision=False)
    weights = network.state_dict()
    for head in [name for name in weights if "seg_layers" in name and name.endswith(".bias")]:
        weights[head] = torch.tensor([1e3, 0, 0])
    plans = {
        "dataset_name": "Dataset999_FastLane",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": settings},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 100.0, "std": 50.0, "percentile_00_5": -40.0, "percentile_99_5": 200.0}
        },
    }
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumor": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    checkpoint = {
        "trainer_name": "DPCNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": (0, 1, 2),
        "network_weights": weights,
    }
    (folder / "fold_0").mkdir(parents=True)
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", dataset)


def run(way: str, model: Path, ct: Path, out: Path) -> dict[str, Any]:
    """Time, memory and stages of one command on one CT."""
    if way.startswith(PREDICT):
        options = ("-i", ct.parent, "-o", out / "theirs", "-m", model, "-f", 0, "-device", "cpu", "-npp", 1, "-nps", 1)
        peak, seconds = measured("nnUNetv2_predict_from_modelfolder", *options, *WAYS[way])
        return {"seconds": round(seconds, 1), "peak_gib": round(peak / 2**30, 2)}
    options = (ct, "-m", model, "-o", out / "ours", "--overwrite")
    peak, seconds = measured("livseg", *SEGMENT, *options, *WAYS[way])
    stages = json.loads((out / "ours" / "measurements.json").read_text())["made_with"]["seconds_by_stage"]
    return {"seconds": round(seconds, 1), "peak_gib": round(peak / 2**30, 2), "stages": rounded(stages)}


def run_starter(way: str, ct: Path, out: Path, reference: Path | None) -> dict[str, Any]:
    """The same of the starter model, with the labels that differ from those of ``standard`` and Dice."""
    folder, first = (out / name.replace(" ", "_") for name in (way, next(iter(OF_STARTER))))
    peak, seconds = measured("livseg", *SEGMENT, ct, "-o", folder, "--overwrite", *OF_STARTER[way])
    path = folder / "segmentation.nii.gz"
    ours, standard = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in (path, first / "segmentation.nii.gz")
    )
    row = {"seconds": round(seconds, 1), "peak_gib": round(peak / 2**30, 2)}
    row["equal"] = float(np.mean(ours == standard))
    if reference:
        row |= dict(zip(("liver", "tumor"), dice(path, reference), strict=True))
    return row


def forward_passes(path: Path, bench: Bench) -> dict[str, int]:
    """How often each way runs the network on a CT."""
    image = sitk.ReadImage(str(path))
    box, whole, spacing_mm = box_of_crop(path), image.GetSize()[::-1], spacing_of(image)
    sizes = {False: whole, True: whole if box is None else tuple(part.stop - part.start for part in box.slices)}
    passes = {}
    for way, words in WAYS.items():
        quality = PRESETS["fast" if "fast" in words else "standard"]
        step = 0.75 if "-step_size" in words else None
        quality = quality_of(quality, step_size=step, mirroring=False if "--disable_tta" in words else None)
        size = sizes[quality.crop or "--crop" in words]
        grid = [
            max(round(n * mm / own), side)
            for n, mm, own, side in zip(size, spacing_mm, bench.spacing_mm, bench.patch, strict=True)
        ]
        steps = compute_steps_for_sliding_window(grid, bench.patch, quality.step_size)
        passes[way] = prod(map(len, steps)) * (MIRRORED if quality.mirroring else 1)
    return passes


def seconds_per_patch(bench: Bench, engine: str) -> list[float]:
    """Seconds of each patch of the network at full width, after a first one, which fills caches."""
    configuration = stock_configuration(3, patch=bench.patch, features=bench.full)
    network = build(configuration, find_variant("dpcnet"), deep_supervision=False).eval()
    patch = torch.randn(1, 1, *bench.patch)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        if needs_export(engine) and (reason := write_onnx(network, patch, file)):
            sys.exit(f"the network cannot be exported: {reason}")
        if engine != TORCH:
            network = in_engine(engine, network, file, shape=patch.shape)
        with torch.inference_mode():
            for _ in range(bench.patches + 1):
                start = time.perf_counter()
                network(patch)
                seconds.append(round(time.perf_counter() - start, 3))
    return seconds[1:]


def rounded(stages: Mapping[str, float]) -> dict[str, float]:
    return {name: round(seconds, 1) for name, seconds in stages.items()}


if __name__ == "__main__":
    sys.exit(main())
