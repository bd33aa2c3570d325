"""Dice and time of the engines that run an exported model, and of OpenVINO's bfloat16 and 8-bit weights (nncf).

    python benchmarks/engines.py MODEL IMAGES LABELS CASE ... [--liver-model MODEL] [--variants NAME ...] [--json FILE]

MODEL is a folder of livseg export; IMAGES and LABELS are folders as in a raw dataset. Each CT is read and its liver
found once; then all variants run on it one after the other, so that other load on the machine meets all of them.
Without --liver-model, models look at whole CTs. Lines of FILE are kept, and what is in it is not run again.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.inference import engines
from nnunet_livseg.inference.ct_input import CTInput, read_ct
from nnunet_livseg.inference.segmenter import Segmenter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "images", "labels"):
        parser.add_argument(name, type=Path)
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--liver-model", type=Path)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, default=Path("engines.jsonl"))
    args = parser.parse_args()
    finder = args.liver_model and FoundOnce(Segmenter(args.liver_model, quality="fast", device="cpu", crop=False))
    segmenters = {}
    for variant in args.variants:
        engine, opener = VARIANTS[variant]
        with patch.dict(engines._OPENERS, {"openvino": opener} if opener else {}):
            segmenters[variant] = Segmenter(args.model, liver_model=finder, device="cpu", engine=engine)
            segmenters[variant].predictor.nnunet.network.eval()
    for case in args.cases:
        (image,) = args.images.glob(f"{case}_0000.*")
        (reference,) = args.labels.glob(f"{case}.*")
        ct, reference = read_ct(image), sitk.GetArrayFromImage(sitk.ReadImage(reference))
        first = None
        if finder:
            finder.find_liver(ct, rough=next(iter(segmenters.values())).rough_liver)
        for variant, segmenter in segmenters.items():
            if (case, variant) in finished(args.json):
                continue
            start = time.process_time()
            labels, _ = segmenter.label_map(ct)
            seconds = time.process_time() - start
            first = labels if first is None else first
            line = {
                "case": case,
                "variant": variant,
                "cpu_s": round(seconds, 1),
                "liver": dice(labels > 0, reference > 0),
                "tumor": dice(labels == 2, reference == 2),
                "differs": int(np.count_nonzero(labels != first)),
            }
            with args.json.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)


def finished(path: Path) -> set[tuple[str, str]]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return {(line["case"], line["variant"]) for line in map(json.loads, lines)}


def dice(predicted: np.ndarray, reference: np.ndarray) -> float | None:
    """None where the reference is empty."""
    total = predicted.sum() + reference.sum()
    return float(2 * np.sum(predicted & reference) / total) if reference.any() else None


class FoundOnce:
    """A liver finder that looks at each CT once."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter, self.name, self.last = segmenter, segmenter.name, (None, None)
        self.weights, self.settings = segmenter.weights, segmenter.settings

    def find_liver(self, ct: CTInput, *, rough: bool = False) -> np.ndarray:
        if self.last[0] is not ct:
            self.last = ct, self.segmenter.find_liver(ct, rough=rough)
        return self.last[1]


def compiled(*, precision: str = "f32", compress: bool = False) -> Callable:
    """An opener as ``engines`` has it, for OpenVINO with another precision, or with weights of 8 bits."""

    def opened(path: Path) -> tuple:
        core = engines.openvino_core()
        network = core.read_model(str(path))
        if compress:
            import nncf

            network = nncf.compress_weights(network, mode=nncf.CompressWeightsMode.INT8_ASYM)
        settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        run = core.compile_model(network, "CPU", settings)
        return lambda x: run(x)[0], tuple(run.input(0).shape)

    return opened


VARIANTS = {
    "openvino float32": ("openvino", None),
    "openvino bfloat16": ("openvino", compiled(precision="bf16")),
    "openvino 8-bit weights": ("openvino", compiled(compress=True)),
    "onnxruntime": ("onnxruntime", None),
    "torch": ("torch", None),
}

if __name__ == "__main__":
    sys.exit(main())
