"""Rows of the multi-phase SAM + URIM."""

from typing import Any

from nnunet_livseg.recipes import Recipe
from nnunet_livseg.rows.schema import Paper, Preset, Variant

SAM_URIM_2021 = Paper(
    "sam_urim",
    "Zhang Y. et al., Multi-phase Liver Tumor Segmentation with Spatial Aggregation and Uncertain Region Inpainting, "
    "MICCAI 2021",
    "docs/papers/sam_urim.md",
)
RECIPE = Recipe(
    optimizer_options={"momentum": 0.9},
    learning_rate=5e-4,
    weight_decay=1e-4,
    schedule="step",
    schedule_options={"every": 50, "factor": 0.1},
    epochs=200,
)
CODE_RECIPE = Recipe(
    optimizer="adam", optimizer_options={}, learning_rate=5e-4, weight_decay=0.0, schedule="constant", epochs=500
)
NETWORK = "nnunet_livseg.networks.sam_urim.SAMURIM"
_CODE_READINGS = {
    "pre_softmax_sigmoid": True,
    "aspp": True,
    "align_corners": True,
    "dropout": 1.0,
    "urim_concat_input": False,
    "lc_bias": "inside",
}
_CROP = {"configuration": "2d", "patch": (224, 224), "batch": 8, "window_hu": (-70.0, 180.0)}
_RESNEXT = {"backbone": "resnext50"}
PRESETS = {
    "paper": Preset(options=_RESNEXT | {"dropout": 1.0}, **_CROP),
    "code": Preset(options=_RESNEXT | {"pretrained": "imagenet"} | _CODE_READINGS, recipe=CODE_RECIPE, **_CROP),
    "resnet50": Preset(options={"backbone": "resnet50", "dropout": 1.0}, **_CROP),
    "unet": Preset(options={"backbone": "unet", "dropout": 1.0}, **_CROP),
    "scratch": Preset(recipe=CODE_RECIPE),  # from random weights, where SGD at 5e-4 learns slowly
    "small": Preset(options={"decoder_features": 64}, features=(16, 32, 64, 128), recipe=CODE_RECIPE),  # for a CPU
}


def _row(name: str, trainer: str, reproduces: str, *, phases: int = 2, **row: Any) -> Variant:
    return Variant(
        name,
        trainer,
        NETWORK,
        SAM_URIM_2021,
        reproduces,
        loss="ce",
        recipe=RECIPE,
        presets=PRESETS,
        phases=phases,
        region_options={"regions": True},
        **row,
    )


def _compared(name: str, trainer: str, label: str, network: str, *, features: tuple[int, ...], note: str) -> Variant:
    """A network that Tables 1 and 2 compare with, trained as PA-ResSeg's public code trains it."""
    return Variant(
        name,
        trainer,
        f"nnunet_livseg.networks.multi_phase.{network}",
        SAM_URIM_2021,
        f"Tables 1 and 2, {label}",
        loss="ce",
        recipe=CODE_RECIPE,
        presets={"paper": Preset(options=_BATCH, features=features, **_CROP)},
        phases=2,
        note=note,
    )


_BATCH = {
    "norm_op": "torch.nn.modules.batchnorm.BatchNorm2d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.ReLU",
    "nonlin_kwargs": {"inplace": True},
}
_NO_URIM = {"urim": False}

ROWS = (
    _row("sam-urim", "SAMURIMTrainer", "Table 1, Ours and SAM; Table 2, Ours; Table 3, row 4; U-Net backbone"),
    _row("sam-urim-no-urim", "SAMURIMNoURIMTrainer", "Table 3, row 3 (SAM)", options=_NO_URIM),
    _row(
        "sam-urim-add",
        "SAMURIMAddTrainer",
        "Table 3, row 2 (MP, FLF-add); baseline of the backbones",
        options=_NO_URIM | {"fusion": "add"},
    ),
    _row(
        "sam-urim-single",
        "SAMURIMSingleTrainer",
        "Table 3, row 1 (SP)",
        options=_NO_URIM | {"fusion": "single"},
        phases=1,
        note="sees the first channel only",
    ),
    _row(
        "sam-urim-single-urim",
        "SAMURIMSingleURIMTrainer",
        "not in the paper: URIM on one phase",
        options={"fusion": "single"},
        phases=1,
        note="what SAM + URIM is on single-phase images; sees the first channel only",
    ),
    _row("sam-urim-ilf", "SAMURIMILFTrainer", "Table 1, ILF", options={"fusion": "ilf"}),
    _row("sam-urim-dlf", "SAMURIMDLFTrainer", "Table 1, DLF", options={"fusion": "dlf"}),
    _row("sam-urim-mw", "SAMURIMMWTrainer", "Table 1, MW", options={"fusion": "mw"}),
    _row("sam-urim-pa", "SAMURIMPATrainer", "Table 1, PA", options={"fusion": "pa"}),
    _compared(
        "sam-urim-mc-fcn",
        "SAMURIMMCFCNTrainer",
        "MC-FCN",
        "MCFCN",
        features=(64, 128, 256, 512, 512, 512),
        note="Sun 2017, as FCN-8s",
    ),
    _compared(
        "sam-urim-mw-unet",
        "SAMURIMMWUNetTrainer",
        "MW-UNet",
        "MWUNet",
        features=(32, 64, 128, 256),
        note="Wu 2019",
    ),
    _compared(
        "sam-urim-pa-resseg",
        "SAMURIMPAResSegTrainer",
        "PA-ResSeg",
        "PAResSeg",
        features=(64, 128, 256, 512, 512, 512),
        note="Xu 2021",
    ),
)
