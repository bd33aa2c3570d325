"""What comparisons of short trainings share: nnU-Net and the five systems, as nnU-Net trains and as the papers do."""

import argparse
import json
import platform
from dataclasses import dataclass
from typing import Any

from workplace import Workplace  # beside this script

from nnunet_livseg.variants import VARIANTS, find_variant

CONFIGURATION = "2d"
STOCK, STOCK_TRAININGS = "nnunet", 3  # more than one, which shows what chance does
ONE_CHANNEL = {"sam-urim": "sam-urim-single-urim"}  # rows in lieu of those that need several contrast phases


@dataclass(frozen=True)
class Length:
    """How long every training is."""

    epochs: int
    iterations: int
    validation_iterations: int


@dataclass(frozen=True)
class Job:
    """One training. ``loss`` is ``None`` where the row's own is taken; ``repeat`` counts trainings of the same kind."""

    system: str  # STOCK or a name of livseg list
    recipe: str
    loss: str | None = None
    repeat: int = 0

    @property
    def name(self) -> str:
        return "-".join([self.system, self.recipe] + [str(self.repeat + 1)] * bool(self.repeat))

    @property
    def trainer(self) -> str:
        return "nnUNetTrainerShort" if self.system == STOCK else find_variant(self.system).trainer


def all_jobs(paper_loss: dict[str, str] | None = None) -> list[Job]:
    """nnU-Net, the full network of every paper under both recipes, and nnU-Net again.

    Args:
        paper_loss: By system, a loss in lieu of the paper's.
    """
    papers = dict.fromkeys(row.paper for row in VARIANTS if not row.paper.rival)
    full = [next(row for row in VARIANTS if row.paper == paper) for paper in papers]
    systems = [ONE_CHANNEL.get(row.name, row.name) for row in full]
    return [
        Job(STOCK, "nnunet"),
        *(Job(system, "nnunet", "dice_ce") for system in systems),
        *(Job(system, "paper", (paper_loss or {}).get(system)) for system in systems),
        *(Job(STOCK, "nnunet", repeat=repeat) for repeat in range(1, STOCK_TRAININGS)),
    ]


def stock_plans(
    stock: dict, geometry: dict, length: Length, *, name: str, data: str, configuration: str = CONFIGURATION
) -> dict:
    """Plans with nnU-Net's own network at the geometry of other plans, and the length of the training.

    Args:
        stock: nnU-Net's own plans.
        geometry: The other plans.
        length: How long a training is.
        name: Name of the new plans.
        data: Name of the plans whose preprocessed data they share.
        configuration: The one that the new plans have.
    """
    ours, theirs = (plans["configurations"][configuration] for plans in (geometry, stock))
    known = theirs["architecture"]["arch_kwargs"]
    kwargs = {key: ours["architecture"]["arch_kwargs"][key] for key in known}
    settings = {key: value for key, value in ours.items() if key != "livseg"} | {
        "data_identifier": f"{data}_{configuration}",
        "architecture": theirs["architecture"] | {"arch_kwargs": kwargs},
        "length": {key: getattr(length, key) for key in ("epochs", "iterations", "validation_iterations")},
    }
    return stock | {"plans_name": name, "configurations": {configuration: settings}}


def plan(place: Workplace, job: Job, length: Length, *, number: int, source: str, name: str) -> None:
    """``livseg plan`` of a system: plans ``name`` of dataset ``number``, made from the plans ``source``."""
    times = ("--epochs", length.epochs, "--iterations", length.iterations)
    times += ("--validation-iterations", length.validation_iterations)
    loss = ("--loss", job.loss) if job.loss else ()
    words = ("livseg", "plan", "-d", number, "-m", job.system, "-p", source, "-plans_name", name)
    place.call(f"{job.name}/plan", *words, "--recipe", job.recipe, *loss, *times)


def outcome(place: Workplace, job: Job, *, plans: str, classes: int) -> dict[str, Any]:
    """Settings and cost of a job, and of its evaluation the summary (``summary``) and the cases (``cases``)."""
    content = json.loads((place.preprocessed / f"{plans}.json").read_text())["configurations"][CONFIGURATION]
    evaluation = place.folder / "comparison" / job.name
    steps = {name: step for name, step in place.steps.items() if name.startswith(f"{job.name}/")}
    return {
        "name": job.name,
        "trainer": job.trainer,
        "recipe": job.recipe,
        "repeat": job.repeat,
        "livseg": content.get("livseg"),
        "parameters": parameters(content, classes=classes),
        "steps": {name.partition("/")[2]: step for name, step in steps.items()},
        "summary": json.loads((evaluation / "summary.json").read_text()),
        "cases": [json.loads(path.read_text()) for path in sorted((evaluation / "cases").glob("*.json"))],
    }


def add_length(parser: argparse.ArgumentParser) -> None:
    """Options for how long every training is."""
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=25, help="training steps per epoch")
    parser.add_argument("--validation-iterations", type=int, default=2, help="validation steps per epoch")
    parser.add_argument("--patch", type=int, default=128, help="edge of a patch in pixels")


def first_against_others(place: Workplace, first: Job, structure: str) -> dict[str, dict]:
    """Tests of ``livseg compare`` on a structure's Dice, the first training with every other, by the other's name."""
    tests = json.loads((place.folder / "comparison" / "comparison.json").read_text())["tests"]
    wanted = (first.name, structure, "dice")
    return {test["b"]: test for test in tests if (test["a"], test["structure"], test["metric"]) == wanted}


def against_first(test: dict | None) -> dict[str, Any] | None:
    """A training minus the first, from ``livseg compare``'s first minus it; ``None`` for the first itself."""
    return test and {
        "difference": -test["difference"],
        "ci95": [-test["ci95_high"], -test["ci95_low"]],
        "p_holm": test["p_holm"],
        "better": test["losses"],
        "worse": test["wins"],
    }


def parameters(configuration: dict, *, classes: int) -> int:
    """Trainable parameters of the network of a plans' configuration."""
    from nnunet_livseg.reference_networks import build_on_meta

    network = build_on_meta(configuration, classes=classes)
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def versions() -> dict[str, str]:
    """Of what trains."""
    from importlib.metadata import version

    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "nnunetv2")}
