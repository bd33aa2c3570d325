"""Where attention stands before training: the mean of every map of untrained networks, seed by seed.

    python benchmarks/attention_at_start.py [-m dpcnet sfan ...] [--seeds 6]

A gate that starts near 0 or 1 hardly changes: the sigmoid is flat there. Networks have nnU-Net's geometry with at most
128 channels and its initialization; the image is noise of mean 0 and variance 1, as nnU-Net normalizes it.
"""

import argparse

import torch

from nnunet_livseg.blocks.attention_spec import record_attention
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.variants import find_variant

WIDTHS = (16, 32, 64, 128, 128)
SIZE = (32, 64, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--variants", nargs="+", default=["dpcnet", "sfan", "mpunet", "sam-urim"])
    parser.add_argument("--seeds", type=int, default=6)
    args = parser.parse_args()
    print("| network | map | level | mean over the image, seed by seed |\n|---|---|---|---|")
    for name in args.variants:
        found = [means(name, seed) for seed in range(args.seeds)]
        for key, level in found[0]:
            print(f"| {name} | {key} | {level} | {' '.join(f'{one[key, level]:.3f}' for one in found)} |")


def means(name: str, seed: int) -> dict[tuple[str, int], float]:
    """Mean of every attention map of an untrained network on noise, by key and level."""
    torch.manual_seed(seed)
    row = find_variant(name)
    channels = max(1, row.phases)
    network = build(stock_configuration(3, features=WIDTHS), row, channels=channels).eval()
    shown = [one for one in network.attention_specs() if not one.key.endswith(("features", "pyramid"))]
    _, maps = record_attention(network, torch.randn(1, channels, *SIZE), shown, point=(0.5,) * 3)
    return {(one.key, one.level): values.mean().item() for one, values in zip(shown, maps, strict=True)}


if __name__ == "__main__":
    main()
