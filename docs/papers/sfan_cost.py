"""Prints what SFAN costs beside nnU-Net's own network: parameters, FLOPs, kept activations, time of a training step.

python docs/papers/sfan_cost.py [--rounds 5]

Time is measured interleaved, one step of every network per round; the shortest counts, so other load on the machine
changes the ratios little.
"""

import argparse
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunet_livseg.reference import build, stock_configuration
from nnunet_livseg.variants import find_variant

CASES = {
    "3D 64^3": ((64, 64, 64), (32, 64, 128, 256, 320)),
    "2D 256^2": ((256, 256), (32, 64, 128, 256, 512, 512, 512)),
}
ROWS = (None, "sfan", "sfan-without-sat", "sfan-without-gca", "sfan-unet")


def networks(patch, features):
    """nnU-Net's network and the rows, at the geometry that nnU-Net plans for the patch."""
    configuration = stock_configuration(len(patch), patch=patch, features=features)
    torch.manual_seed(0)
    return {row or "nnU-Net": build(configuration, row and find_variant(row)) for row in ROWS}


def step(network, x):
    """Forward and backward pass with all training outputs; seconds."""
    start = time.perf_counter()
    sum(output.mean() for output in network(x)).backward()
    network.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def kept_mib(network, x):
    """Activations that autograd keeps for the backward pass, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = network(x)  # lives on, so that no storage is freed and its address used again
        assert outputs
        return sum(kept.values()) / 2**20


def gflop(network, x):
    """Of a training step: forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step(network, x)
    return counter.get_total_flops() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for case, (patch, features) in CASES.items():
        x = torch.randn(1, 1, *patch)
        rows = networks(patch, features)
        seconds = {name: [] for name in rows}
        for _ in range(rounds + 1):
            for name, network in rows.items():
                seconds[name].append(step(network, x))
        stock = min(seconds["nnU-Net"][1:])
        stock_kept, stock_gflop = kept_mib(rows["nnU-Net"], x), gflop(rows["nnU-Net"], x)
        for name, network in rows.items():
            parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
            kept, flop = kept_mib(network, x), gflop(network, x)
            print(
                f"| {case} | {name} | {parameters:.2f}M | {flop:.1f} ({flop / stock_gflop:.2f}) "
                f"| {kept:.0f} ({kept / stock_kept:.2f}) | {min(seconds[name][1:]) / stock:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
