"""The dataset of a cell: a small phantom, with plans that hold all four configurations and train in seconds."""

import inspect
import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from pydoc import locate

from nnunet_livseg.core.files import write_json
from nnunet_livseg.data.phantom import write_dataset
from nnunet_livseg.plans import Overrides, make_plans, plans_name
from nnunet_livseg.variants import Variant

from .nnunet import Workplace
from .support import LABELS

SIZE, SPACING_MM = (24, 48, 48), (9.0, 7.0, 7.0)
WIDEST = 8  # channels of a stage
CASCADE = ("3d_lowres", "3d_cascade_fullres")
COARSER = 1.5  # voxels of the first stage


@dataclass(frozen=True)
class Dataset:
    """A dataset in nnU-Net's folders."""

    place: Workplace
    name: str

    @property
    def images(self) -> Path:
        """The unseen case."""
        return self.place.raw / self.name / "imagesTs"

    def write_plans(self, row: Variant, *, epochs: int) -> None:
        """Plans for a row as ``livseg plan`` writes them, narrow and with one iteration per epoch.

        Raises:
            UserError: See ``make_plans``.
        """
        folder, name = self.place.preprocessed / self.name, plans_name(row, "default")
        short = {"epochs": epochs, "iterations": 1, "validation_iterations": 1}
        own_width = "width" in inspect.signature(locate(row.network)).parameters  # whatever the stock plans say
        overrides = Overrides(**short, batch=2, options={"width": WIDEST} if own_width else {})
        stock = json.loads((folder / "nnUNetPlans.json").read_text())
        write_json(folder / f"{name}.json", make_plans(stock, row, preset="default", name=name, overrides=overrides))


def prepared(place: Workplace, *, labels: str, phases: int) -> Dataset:
    """The dataset with these labels and as many image channels; made at the first call."""
    number = 900 + 10 * list(LABELS).index(labels) + phases
    dataset = Dataset(place, f"Dataset{number}_{labels}")
    splits = place.preprocessed / dataset.name / "splits_final.json"
    if not splits.is_file():
        kind = {"phases": phases, "label_style": LABELS[labels]}
        size = {"cases": 3, "test_cases": 1, "size": SIZE, "spacing_mm": SPACING_MM}
        write_dataset(place.raw / dataset.name, **kind, **size, progress=False)
        place.run("nnUNetv2_plan_and_preprocess", "-d", number, "-c", "2d", "3d_fullres", nnUNet_n_proc_DA=1)
        _shrink_and_add_cascade(place.preprocessed / dataset.name / "nnUNetPlans.json")
        place.run("nnUNetv2_preprocess", "-d", number, "-c", CASCADE[0])
        splits.write_text(json.dumps([{"train": ["phantom_000", "phantom_001"], "val": ["phantom_002"]}]))
    return dataset


def _shrink_and_add_cascade(plans_file: Path) -> None:
    """Narrow networks, and the low resolution with its cascade, which nnU-Net plans for large images only."""
    plans = json.loads(plans_file.read_text())
    configurations = plans["configurations"]
    for configuration in configurations.values():
        kwargs = configuration["architecture"]["arch_kwargs"]
        kwargs["features_per_stage"] = [min(width, WIDEST) for width in kwargs["features_per_stage"]]
    first, second = CASCADE
    low = deepcopy(configurations["3d_fullres"])
    low |= {"data_identifier": f"nnUNetPlans_{first}", "next_stage": second}
    low["spacing"] = [COARSER * spacing for spacing in low["spacing"]]
    configurations[first] = low
    configurations[second] = {"inherits_from": "3d_fullres", "previous_stage": first}
    write_json(plans_file, plans)
