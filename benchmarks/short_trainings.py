"""What comparisons of short trainings share: nnU-Net and the five systems, as nnU-Net trains and as the papers do."""

import argparse
import platform
from dataclasses import dataclass

from workplace import Workplace  # beside this script

from nnunet_livseg.variants import VARIANTS, find_variant

CONFIGURATION = "2d"
STOCK, STOCK_TRAININGS = "nnunet", 3
FURTHEST = ("dpcnet", "mpunet")  # above and below nnU-Net after the first training: trained twice, too
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


def all_jobs() -> list[Job]:
    """nnU-Net, the full network of every paper under both recipes, and some again, to show what chance does."""
    papers = dict.fromkeys(row.paper for row in VARIANTS if not row.paper.rival)
    full = [next(row for row in VARIANTS if row.paper == paper) for paper in papers]
    systems = [ONE_CHANNEL.get(row.name, row.name) for row in full]
    return [
        Job(STOCK, "nnunet"),
        *(Job(system, "nnunet", "dice_ce") for system in systems),
        *(Job(system, "paper") for system in systems),
        *(Job(STOCK, "nnunet", repeat=repeat) for repeat in range(1, STOCK_TRAININGS)),
        *(Job(system, "nnunet", "dice_ce", repeat=1) for system in FURTHEST),
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


def add_length(parser: argparse.ArgumentParser, *, epochs: int, iterations: int, patch: int) -> None:
    """Options for how long every training is."""
    parser.add_argument("--epochs", type=int, default=epochs, help="(default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=iterations, help="training steps per epoch")
    parser.add_argument("--validation-iterations", type=int, default=2, help="validation steps per epoch")
    parser.add_argument("--patch", type=int, default=patch, help="edge of a patch in pixels")


def parameters(configuration: dict, *, classes: int) -> int:
    """Trainable parameters of the network of a plans' configuration."""
    from nnunet_livseg.reference_networks import build_on_meta

    network = build_on_meta(configuration, classes=classes)
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def versions() -> dict[str, str]:
    """Of what trains."""
    from importlib.metadata import version

    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "nnunetv2")}
