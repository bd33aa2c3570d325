"""Time of one patch in every engine beside torch, on one thread, for rows of the table at nnU-Net's full width.

    python benchmarks/engine_time.py ROW ... [--patch 64 64 64] [--rounds 3] [--engines NAME ...]

Engines run in turns, so that other load on the machine meets all of them. Printed are CPU seconds in torch (median) and
the median over turns of each engine's share of them.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median

import torch
from torch import nn

from nnunet_livseg.inference.devices import predict_in_bfloat16
from nnunet_livseg.inference.engines import ENGINES, TORCH_BFLOAT16, EngineNetwork
from nnunet_livseg.inference.export_model import write_onnx
from nnunet_livseg.reference_networks import build, channels_of, stock_configuration
from nnunet_livseg.variants import find_variant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--patch", type=int, nargs="+", default=(64, 64, 64))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=["openvino", "onnxruntime"], choices=ENGINES[1:])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for row in map(find_variant, args.rows):
        configuration = stock_configuration(len(args.patch), patch=tuple(args.patch))
        network = build(configuration, row, channels=channels_of(row), deep_supervision=False).eval()
        patch = torch.randn(1, channels_of(row), *args.patch, generator=torch.Generator().manual_seed(0))
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            file = Path(folder) / "network.onnx"
            with torch.inference_mode(False):
                if reason := write_onnx(network, patch, file):
                    print(f"{row.name}: {reason}", flush=True)
                    continue
                others = {name: in_engine(name, network, file, shape=patch.shape) for name in args.engines}
            turns = [
                {name: seconds(one, patch) for name, one in {"torch": network, **others}.items()}
                for _ in range(args.rounds + 1)
            ][1:]
        shares = [f"{name} {median(turn[name] / turn['torch'] for turn in turns):.2f}" for name in others]
        alone = median(turn["torch"] for turn in turns)
        size = "x".join(map(str, args.patch))
        print(f"{row.name}, {size}: torch {alone:.1f} s, {', '.join(shares)}", flush=True)


def in_engine(engine: str, network: nn.Module, file: Path, *, shape: Sequence[int]) -> nn.Module:
    """The network as an engine other than ``torch`` runs it; ``file`` is its ONNX form, for those that need one."""
    if engine != TORCH_BFLOAT16:
        return EngineNetwork([file], engine, shape=shape)
    rounded = deepcopy(network)
    predict_in_bfloat16(rounded)
    return rounded


def seconds(network: Callable, patch: torch.Tensor) -> float:
    start = time.process_time()
    network(patch)
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
