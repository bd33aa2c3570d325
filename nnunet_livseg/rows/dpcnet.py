"""Rows of DPC-Net's Tables 1 to 5 that its authors trained themselves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nnunet_livseg.recipes import Recipe
from nnunet_livseg.rows.schema import Paper, Preset, Variant

DPC_NET_2022 = Paper(
    "dpcnet",
    "Zhang Y. et al., Decoupled Pyramid Correlation Network for Liver Tumor Segmentation from CT images, "
    "Medical Physics 2022",
    "docs/papers/dpcnet.md",
)
RECIPE = Recipe(optimizer="adam", optimizer_options={}, learning_rate=1e-4, weight_decay=0.0, schedule="constant")
NETWORK = "nnunet_livseg.networks.dpcnet.DPCNet"
# a third of the patches with foreground for sure; elastic deformation with the defaults of the first nnU-Net
_LITS = RECIPE.replace(
    foreground=1 / 3,
    probabilistic_oversampling=True,
    elastic={"probability": 0.2, "scale": [0.07, 0.10], "magnitude": [0.0, 0.67]},
)
_LITS_LOWRES = {
    "recipe": _LITS,
    "configuration": "3d_fullres",
    "spacing_mm": (2.47, 1.90, 1.90),
    "patch": (128, 128, 128),
    "batch": 2,
}
_TABLE4 = _LITS_LOWRES | {"features": (32, 64, 128, 256, 512)}
_PAPER_COUNTS = {
    "spacor_descriptor": "concat",
    "semcor_shared_mlp": True,
    "semcor_reduction": 4,
    "semcor_g": False,
    "bottleneck_in_pyramid": True,
}
_PFE = {"downsampling": "separate", "supervision": "paper"}
_PRESETS = {
    "paper": Preset(options=_PFE, loss="pooled_dice_ce", features=(32, 64, 128, 256, 320, 320), **_LITS_LOWRES),
    "table4": Preset(
        options=_PAPER_COUNTS | {"downsampling": "max", "supervision": "paper"}, loss="pooled_dice_ce", **_TABLE4
    ),
}
# a small network for whole CTs on a CPU: `livseg segment` starts with a model that was trained on these plans
_STARTER = Preset(
    recipe=Recipe(
        optimizer_options={"momentum": 0.95, "nesterov": True},
        learning_rate=0.02,
        epochs=50,
        iterations=50,
        validation_iterations=5,
        mirror=False,
        augmentation="ct",
    ),
    configuration="3d_fullres",
    spacing_mm=(4.0, 4.0, 4.0),
    patch=(64, 80, 80),
    batch=2,
    features=(8, 16, 32, 64, 96),
    window_hu=(-40.0, 160.0),
    window_to=(0.0, 4.0),  # 50 HU are 1, so nnU-Net's noise is a CT's; 0, which pads, is black
)
# a second look at the liver alone, at half the size of voxels, for tumors
_TUMORS = replace(
    _STARTER,
    recipe=_STARTER.recipe.replace(epochs=60, foreground=0.67),
    spacing_mm=(2.5, 2.0, 2.0),
    features=(16, 32, 48, 64, 72),
)
_STARTER_PRESETS = _PRESETS | {"starter": _STARTER, "tumors": _TUMORS}
_COMPARATOR_PRESETS = {"table4": Preset(options={"downsampling": "max"}, loss="pooled_dice_ce", **_TABLE4)}


def _dpcnet(name: str, trainer: str, reproduces: str, *, presets: Mapping[str, Preset] = _PRESETS, **row: Any):
    return Variant(
        name, trainer, row.pop("network", NETWORK), DPC_NET_2022, reproduces, recipe=RECIPE, presets=presets, **row
    )


def _with_loss(loss: str) -> dict[str, Preset]:
    """The presets of a row whose loss is what the table varies."""
    return {name: Preset(**(vars(preset) | {"loss": loss})) for name, preset in _PRESETS.items()}


_NO_PFE = {"supervise_pyramid": False}

ROWS = (
    _dpcnet("dpcnet", "DPCNetTrainer", "Table 2, row 6; Table 5, DPC-Net", presets=_STARTER_PRESETS),
    _dpcnet("dpcnet-pfe", "DPCNetPFETrainer", "Table 2, row 5", options={"spacor": None, "semcor": None}),
    _dpcnet(
        "dpcnet-plain",
        "DPCNetPlainTrainer",
        "Table 1, row 7; Table 2, row 4; Table 3, row 3; Table 4, SpaCor-first",
        options=_NO_PFE,
    ),
    _dpcnet(
        "dpcnet-unet",
        "DPCNetUNetTrainer",
        "Table 1, row 1; Table 2, row 1; Table 4, baseline",
        presets=_STARTER_PRESETS,
        options=_NO_PFE | {"spacor": None, "semcor": None},
    ),
    _dpcnet(
        "dpcnet-semcor-avg",
        "DPCNetSemCorAvgTrainer",
        "Table 1, row 2",
        options=_NO_PFE | {"spacor": None, "semcor": "avg"},
    ),
    _dpcnet(
        "dpcnet-semcor-max",
        "DPCNetSemCorMaxTrainer",
        "Table 1, row 3",
        options=_NO_PFE | {"spacor": None, "semcor": "max"},
    ),
    _dpcnet(
        "dpcnet-semcor", "DPCNetSemCorTrainer", "Table 1, row 4; Table 2, row 3", options=_NO_PFE | {"spacor": None}
    ),
    _dpcnet("dpcnet-spacor-avg", "DPCNetSpaCorAvgTrainer", "Table 1, row 5", options=_NO_PFE | {"spacor": "avg"}),
    _dpcnet("dpcnet-spacor-max", "DPCNetSpaCorMaxTrainer", "Table 1, row 6", options=_NO_PFE | {"spacor": "max"}),
    _dpcnet(
        "dpcnet-spacor",
        "DPCNetSpaCorTrainer",
        "Table 2, row 2",
        options=_NO_PFE | {"semcor": None, "final": "mean"},
        note="the prediction is the mean of all levels, so that SpaCor has a part in it",
    ),
    _dpcnet("dpcnet-ce", "DPCNetCETrainer", "Table 3, row 1", options=_NO_PFE, loss="ce", presets=_with_loss("ce")),
    _dpcnet(
        "dpcnet-dice",
        "DPCNetDiceTrainer",
        "Table 3, row 2",
        options=_NO_PFE,
        loss="dice",
        presets=_with_loss("pooled_dice"),
    ),
    _dpcnet(
        "dpcnet-semcor-first",
        "DPCNetSemCorFirstTrainer",
        "Table 4, SemCor-first",
        options=_NO_PFE | {"order": "semcor_first"},
    ),
    _dpcnet(
        "dpcnet-ag",
        "DPCNetAGTrainer",
        "Table 4, AG",
        network="nnunet_livseg.networks.comparators.AttentionGateUNet",
        presets=_COMPARATOR_PRESETS,
    ),
    _dpcnet(
        "dpcnet-daf",
        "DPCNetDAFTrainer",
        "Table 4, DAF",
        network="nnunet_livseg.networks.comparators.DAFNet",
        presets=_COMPARATOR_PRESETS,
    ),
)
