"""Rows of MPU-Net: the network and the U-Net that it is compared with."""

from nnunet_livseg.recipes import Recipe
from nnunet_livseg.rows.schema import Paper, Preset, Variant

MPU_NET_2023 = Paper(
    "mpunet",
    "Yu Z. and Han S., 3D Medical Image Segmentation based on multi-scale MPU-Net, arXiv:2307.05799, 2023",
    "docs/papers/mpunet.md",
)
RECIPE = Recipe(
    optimizer="adam",
    optimizer_options={},
    learning_rate=1e-4,
    weight_decay=0.0,
    schedule="step",
    schedule_options={"every": 100, "factor": 0.5},
    epochs=600,
    auxiliary_decay={"every": 30, "factor": 0.8},
    best={"above": 0.0, "after": 0},
)
# 88 training and 22 validation scans, each seen once per epoch; every patch is cut around the liver
_LITS = RECIPE.replace(iterations=88, validation_iterations=22, foreground=1.0)
_LITS_CODE = _LITS.replace(best={"above": 0.9, "after": 50})
_GEOMETRY = {
    "configuration": "3d_fullres",
    "spacing_mm": (1.0, 1.54, 1.54),  # slices resampled to 1 mm, 512 pixels to 256
    "patch": (48, 256, 256),
    "batch": 1,
    "features": (32, 64, 128, 256, 512),
    "window_hu": (-200.0, 200.0),
    "window_to": (-1.0, 1.0),
}
_TEXT = {"gate": "skip", "multi_scale_block": True, "n_heads": 8, "pos_embed": [6, 32, 32], "supervision": "text"}
_CODE = {"elu_alpha": "channels", "unused_layers": True}

ROWS = (
    Variant(
        "mpunet",
        "MPUNetTrainer",
        "nnunet_livseg.networks.mpunet.MPUNet",
        MPU_NET_2023,
        "Tables 3, 5, 6, 7, MPU-Net; Tables 8 and 9",
        region_options={"heads": "sigmoid"},
        loss="tversky_ce",
        recipe=RECIPE,
        presets={
            "paper": Preset(recipe=_LITS, **_GEOMETRY),
            "code": Preset(options=_CODE, loss="tversky_ce_code", recipe=_LITS_CODE, **_GEOMETRY),
            "text": Preset(options=_TEXT, recipe=_LITS.replace(auxiliary_decay=None), **_GEOMETRY),
        },
    ),
    Variant(
        "mpunet-unet",
        "MPUNetUNetTrainer",
        "nnunet_livseg.networks.mpunet.MultiOutputUNet",
        MPU_NET_2023,
        "Tables 4, 5, 6, 7, U-Net",
        loss="tversky_ce",
        recipe=RECIPE,
        presets={
            "paper": Preset(recipe=_LITS, **_GEOMETRY),
            "code": Preset(loss="tversky_ce_code", recipe=_LITS_CODE, **_GEOMETRY),
        },
    ),
)
