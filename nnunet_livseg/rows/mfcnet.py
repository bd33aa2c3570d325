"""Rows of MFCNet ("Correlation Matters")."""

from typing import Any

from nnunet_livseg.recipes import Recipe
from nnunet_livseg.rows.schema import Paper, Preset, Variant

MFCNET_2020 = Paper(
    "mfcnet",
    "Pang S. et al., Correlation Matters: Multi-scale Fine-Grained Contextual Information Extraction for Hepatic Tumor "
    "Segmentation, PAKDD 2020",
    "docs/papers/mfcnet.md",
)
RECIPE = Recipe(
    optimizer="adam",
    optimizer_options={},
    learning_rate=2e-4,
    weight_decay=0.0,
    schedule="plateau",
    schedule_options={"factor": 0.5, "patience": 10},
    epochs=400,
    stop_after=20,
    stop_below=5e-7,
)
# 512 voxels of 0.7676 mm (the median of LiTS) resized to 448; an epoch is 4/5 of the 7,190 slices in batches of 8
_PAPER = {
    "recipe": RECIPE.replace(iterations=719, validation_iterations=180),
    "configuration": "2d",
    "spacing_mm": (1.0, 0.877, 0.877),
    "patch": (448, 448),
    "batch": 8,
}
_PRESETS = {"paper": Preset(**_PAPER), "imagenet": Preset(options={"weights": "imagenet"}, **_PAPER)}


def _mfcnet(name: str, trainer: str, reproduces: str, **row: Any) -> Variant:
    network = "nnunet_livseg.networks.mfcnet.MFCNet"
    return Variant(name, trainer, network, MFCNET_2020, reproduces, loss="ce", recipe=RECIPE, presets=_PRESETS, **row)


ROWS = (
    _mfcnet("mfcnet", "MFCNetTrainer", "Table 1, Ours"),
    _mfcnet(
        "mfcnet-backbone",
        "MFCNetBackboneTrainer",
        "Table 1, CE-Net",
        options={"spatial_context": False, "channel_context": False},
        note="CE-Net's network, trained as MFCNet is (softmax and cross-entropy)",
    ),
    _mfcnet(
        "mfcnet-spatial",
        "MFCNetSpatialTrainer",
        "Table 1, Self-attention",
        options={"channel_context": False},
        note="the paper puts the original self-attention in lieu of its own; here it is ours, alone",
    ),
    _mfcnet(
        "mfcnet-channel",
        "MFCNetChannelTrainer",
        "not printed: channel context alone",
        options={"spatial_context": False},
    ),
    _mfcnet(
        "mfcnet-energy-danet",
        "MFCNetEnergyDANetTrainer",
        "not printed: channel energies of DANet's code",
        options={"channel_energy": "danet"},
        note="each channel gathers the least similar ones",
    ),
    _mfcnet(
        "mfcnet-energy-scaled",
        "MFCNetEnergyScaledTrainer",
        "not printed: channel energies divided by the number of voxels",
        options={"channel_energy": "scaled"},
        note="recommended in 3D: the paper's softmax saturates on large maps",
    ),
)
