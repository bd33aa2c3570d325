"""Rows of MFCNet ("Correlation Matters") and of the networks in its Table 1."""

from collections.abc import Mapping
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


_PLAIN = {"norm_op": None, "norm_op_kwargs": None}
_BATCH = {"norm_op": "torch.nn.modules.batchnorm.BatchNorm2d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}}
_RELU = {"nonlin": "torch.nn.ReLU", "nonlin_kwargs": {"inplace": True}}
_WIDE, _NARROW = (64, 128, 256, 512, 1024), (32, 64, 128, 256, 512)


def _mfcnet(name: str, trainer: str, reproduces: str, **row: Any) -> Variant:
    network = "nnunet_livseg.networks.mfcnet.MFCNet"
    return Variant(name, trainer, network, MFCNET_2020, reproduces, loss="ce", recipe=RECIPE, presets=_PRESETS, **row)


def _compared(
    name: str, trainer: str, label: str, network: str, *, paper: Mapping[str, Any] | None = None, **row: Any
) -> Variant:
    """A row that Table 1 compares with, trained as MFCNet is; ``paper`` has the layers and widths of its source."""
    presets = {"paper": Preset(**{"options": {}, **(paper or {})}, **_PAPER)}
    network = f"nnunet_livseg.networks.{network}"
    reproduces = f"Table 1, {label}"
    return Variant(name, trainer, network, MFCNET_2020, reproduces, loss="ce", recipe=RECIPE, presets=presets, **row)


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
        note="the paper has the original self-attention here; we use the spatial extractor alone",
    ),
    _compared(
        "mfcnet-unet",
        "MFCNetUNetTrainer",
        "U-Net",
        "sfan.SFANUNet",
        paper={"options": {"downsampling": "max"} | _PLAIN | _RELU, "features": _WIDE},
        note="Ronneberger 2015, with padded convolutions",
    ),
    _compared(
        "mfcnet-attention-unet",
        "MFCNetAttentionUNetTrainer",
        "Attention UNet",
        "comparators.AttentionGateUNet",
        paper={"options": {"downsampling": "max"} | _BATCH | _RELU, "features": _WIDE},
        note="Schlemper 2019, gated from the bottleneck",
    ),
    _compared(
        "mfcnet-r2unet",
        "MFCNetR2UNetTrainer",
        "R2U-Net",
        "unet_relatives.R2UNet",
        paper={"options": _BATCH | _RELU, "features": _WIDE},
        note="Alom 2019, two recurrent steps",
    ),
    _compared(
        "mfcnet-nested-unet",
        "MFCNetNestedUNetTrainer",
        "Nested UNet",
        "unet_relatives.NestedUNet",
        paper={"options": _PLAIN | _RELU, "features": _NARROW},
        region_options={"heads": "sigmoid"},
        note="Zhou 2018 (UNet++) with deep supervision",
    ),
    _mfcnet(
        "mfcnet-senet",
        "MFCNetSENetTrainer",
        "Table 1, SENet",
        options={"squeeze_excitation": True},
        note="squeeze-and-excitation on the backbone's skips; the paper does not name the network around it",
    ),
    _compared(
        "mfcnet-danet",
        "MFCNetDANetTrainer",
        "DANet",
        "atrous.DANet",
        paper={"options": {"width": 64}},
        note="Fu 2019 with ResNet-50 at output stride 8",
    ),
    _compared(
        "mfcnet-csnet",
        "MFCNetCSNetTrainer",
        "CS-Net",
        "unet_relatives.CSNet",
        paper={"options": _BATCH | _RELU, "features": _NARROW},
        note="Mou 2019",
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
