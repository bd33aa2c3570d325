"""Rows of SFAN: the network, the U-Net that it is compared with, and the ablations that its paper does not print."""

from collections.abc import Mapping
from typing import Any

from nnunet_livseg.recipes import Recipe
from nnunet_livseg.rows.schema import Paper, Preset, Variant

SFAN_2019 = Paper(
    "sfan",
    "Zhang Y. et al., Semantic Feature Attention Network for Liver Tumor Segmentation in Large-scale CT database, "
    "arXiv:1911.00282, 2019",
    "docs/papers/sfan.md",
)
RECIPE = Recipe(optimizer="adam", optimizer_options={}, learning_rate=1e-4, weight_decay=0.0, schedule="constant")
_PAPER_LAYERS = {
    "downsampling": "max",
    "norm_op": None,
    "norm_op_kwargs": None,
    "nonlin": "torch.nn.ReLU",
    "nonlin_kwargs": {"inplace": True},
}
_PRESETS = {
    "paper": Preset(
        options=_PAPER_LAYERS,
        recipe=RECIPE.replace(validation_scales=[0.5, 1.0, 1.5]),
        configuration="2d",
        features=(64, 128, 256, 512, 1024),
        window_hu=(-75.0, 175.0),
    )
}
_DEEPLAB = {
    "paper": Preset(
        options={"width": 64},
        recipe=RECIPE.replace(validation_scales=[0.5, 1.0, 1.5]),
        configuration="2d",
        window_hu=(-75.0, 175.0),
    )
}


def _sfan(name: str, trainer: str, reproduces: str, *, options: Mapping[str, Any] | None = None, **row: Any) -> Variant:
    network = row.pop("network", "nnunet_livseg.networks.sfan.SFAN")
    return Variant(
        name,
        trainer,
        network,
        SFAN_2019,
        reproduces,
        options=options or {},
        loss="weighted_ce",
        recipe=RECIPE,
        presets=row.pop("presets", _PRESETS),
        **row,
    )


ROWS = (
    _sfan("sfan", "SFANTrainer", "LiTS test, tumor Dice per case 71.0; Figs. 3 and 4, SFAN"),
    _sfan(
        "sfan-without-sat",
        "SFANWithoutSATTrainer",
        "no printed row",
        options={"sat": False},
        note="ablation that the paper does not have: levels pass unweighted",
    ),
    _sfan(
        "sfan-without-gca",
        "SFANWithoutGCATrainer",
        "no printed row",
        options={"gca": False},
        note="ablation that the paper does not have: aligned levels are fused unweighted",
    ),
    _sfan("sfan-unet", "SFANUNetTrainer", "Figs. 3 and 4, U-Net", network="nnunet_livseg.networks.sfan.SFANUNet"),
    _sfan(
        "sfan-deeplabv3",
        "SFANDeepLabV3Trainer",
        "Figs. 3 and 4, DeepLabv3",
        network="nnunet_livseg.networks.atrous.DeepLabV3",
        presets=_DEEPLAB,
        note="ResNet-101, output stride 16",
    ),
)
