"""The fields of a row of the table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunet_livseg.recipes import NNUNET, Recipe


@dataclass(frozen=True)
class Paper:
    """A publication."""

    key: str
    citation: str
    page: str  # documentation in docs/papers
    rival: bool = False  # not on liver tumors: a network for any image, to compare with


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
    window_to: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Variant:
    """One row of one table of one paper.

    Attributes:
        name: What ``livseg plan -m`` takes; trainer: what ``nnUNetv2_train -tr`` takes.
        network: Import path of the network class; options: what it departs from the class's defaults in.
        region_options: What changes in the options where the dataset has regions (sigmoid instead of softmax), for
            networks that compute probabilities themselves.
        loss: Key of ``losses.LOSSES``.
        recipe: How it is trained unless the plans say otherwise.
        reproduces: The printed row or rows.
        presets: What ``livseg plan --preset`` knows beside ``default``.
        dims: Numbers of spatial dimensions that it exists in.
        phases: Least number of contrast phases (image channels) that the row is about; 0 where the network does not
            tell phases apart and takes any channels.
        note: A remark for the tables, if the row needs one.
        extra: The extra of this package, and the library, that the network needs; empty where nnU-Net brings all.
    """

    name: str
    trainer: str
    network: str
    paper: Paper
    reproduces: str
    options: Mapping[str, Any] = field(default_factory=dict)
    region_options: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "dice_ce"
    recipe: Recipe = NNUNET
    presets: Mapping[str, Preset] = field(default_factory=dict)
    dims: tuple[int, ...] = (2, 3)
    phases: int = 0
    note: str = ""
    extra: str = ""
