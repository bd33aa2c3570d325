"""THE TABLE: every network that this package brings, one row each. Trainers, plans, commands, docs and tests derive
from it. Data only; importing it imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunet_livseg.errors import UserError
from nnunet_livseg.names import did_you_mean
from nnunet_livseg.recipes import DPCNET, NNUNET, Recipe


@dataclass(frozen=True)
class Paper:
    """A publication."""

    key: str
    citation: str
    page: str  # documentation in docs/papers


@dataclass(frozen=True)
class Preset:
    """A named set of numbers for ``livseg plan --preset``: what it changes beside the row and the stock plans.

    ``None`` keeps what the stock plans say. A preset with a patch size is for one configuration only.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    loss: str | None = None
    recipe: Recipe | None = None
    configuration: str | None = None
    spacing_mm: tuple[float, ...] | None = None  # (z, y, x)
    patch: tuple[int, ...] | None = None  # (z, y, x) voxels
    batch: int | None = None
    features: tuple[int, ...] | None = None  # channels per stage; fixes the number of stages
    window_hu: tuple[float, float] | None = None


@dataclass(frozen=True)
class Variant:
    """One row of one table of one paper.

    Attributes:
        name: What ``livseg plan -m`` takes; trainer: what ``nnUNetv2_train -tr`` takes.
        network: Import path of the network class; options: what it departs from the class's defaults in.
        loss: Key of ``losses.LOSSES``.
        recipe: How it is trained unless the plans say otherwise.
        reproduces: The printed row or rows.
        presets: What ``livseg plan --preset`` knows beside ``default``.
        dims: Numbers of spatial dimensions that it exists in.
        note: A remark for the tables, if the row needs one.
    """

    name: str
    trainer: str
    network: str
    paper: Paper
    reproduces: str
    options: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "dice_ce"
    recipe: Recipe = NNUNET
    presets: Mapping[str, Preset] = field(default_factory=dict)
    dims: tuple[int, ...] = (2, 3)
    note: str = ""


# --- DPC-Net ----------------------------------------------------------------------------------------------------------

DPC_NET_2022 = Paper(
    "dpcnet",
    "Zhang Y. et al., Decoupled Pyramid Correlation Network for Liver Tumor Segmentation from CT images, "
    "Medical Physics 2022",
    "docs/papers/dpcnet.md",
)
_DPCNET = "nnunet_livseg.networks.dpcnet.DPCNet"
_LITS_LOWRES = {"configuration": "3d_fullres", "spacing_mm": (2.47, 1.90, 1.90), "patch": (128, 128, 128), "batch": 2}
_TABLE4 = _LITS_LOWRES | {"features": (32, 64, 128, 256, 512)}
_PAPER_COUNTS = {
    "spacor_descriptor": "concat",
    "semcor_shared_mlp": True,
    "semcor_reduction": 4,
    "semcor_g": False,
    "bottleneck_in_pyramid": True,
}
_PFE = {"downsampling": "separate", "supervision": "paper"}
_DPCNET_PRESETS = {
    "paper": Preset(options=_PFE, loss="pooled_dice_ce", features=(32, 64, 128, 256, 320, 320), **_LITS_LOWRES),
    "table4": Preset(
        options=_PAPER_COUNTS | {"downsampling": "max", "supervision": "paper"}, loss="pooled_dice_ce", **_TABLE4
    ),
}
_COMPARATOR_PRESETS = {"table4": Preset(options={"downsampling": "max"}, loss="pooled_dice_ce", **_TABLE4)}


def _dpcnet(name: str, trainer: str, reproduces: str, *, presets: Mapping[str, Preset] = _DPCNET_PRESETS, **row: Any):
    return Variant(
        name, trainer, row.pop("network", _DPCNET), DPC_NET_2022, reproduces, recipe=DPCNET, presets=presets, **row
    )


def _with_loss(loss: str) -> dict[str, Preset]:
    """The presets of a row whose loss is what the table varies."""
    return {name: Preset(**(vars(preset) | {"loss": loss})) for name, preset in _DPCNET_PRESETS.items()}


_NO_PFE = {"supervise_pyramid": False}

_DPCNET_ROWS = (
    _dpcnet("dpcnet", "DPCNetTrainer", "Table 2, row 6; Table 5, DPC-Net"),
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

# --- the table --------------------------------------------------------------------------------------------------------

VARIANTS: tuple[Variant, ...] = (*_DPCNET_ROWS,)


def find_variant(name: str) -> Variant:
    """The row with this name or trainer name, in any case.

    Raises:
        UserError: There is none; the message names close ones.
    """
    by_name = {key.lower(): row for row in VARIANTS for key in (row.name, row.trainer)}
    if name.lower() not in by_name:
        known = [key for row in VARIANTS for key in (row.name, row.trainer)]
        raise UserError(f"there is no variant {name!r}.{did_you_mean(name, known)}\n  livseg list shows all of them.")
    return by_name[name.lower()]
