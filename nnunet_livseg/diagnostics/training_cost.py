"""The cost of training a variant on this machine: stored counts over the measured speed."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nnunet_livseg.diagnostics.benchmark import BenchmarkedNetwork, BenchmarkSetup, NetworkCost, seconds_in_turns
from nnunet_livseg.diagnostics.counted_cost import counted_cost
from nnunet_livseg.reference_networks import PATCH, channels_of, stock_configuration
from nnunet_livseg.variants import Variant

COUNTS = Path(__file__).with_name("training_counts.json")  # python docs/generate.py --counts renews it
EPOCHS, STEPS, VALIDATION_STEPS = 1000, 250, 50  # nnU-Net's
BATCH = 2  # nnU-Net's in 3D; in 2D its plans have more
FORWARDS = 3  # forward passes that a step counts as; torch counts 2.9 to 3.0 of them, and too many for depthwise ones
COPIES = 3  # of the parameters: values, gradients, momentum
MEASURED_PATCH = {"cpu": (32, 32, 32), "cuda": PATCH[3]}
GIGA, MIB = 10**9, 2**20


@dataclass(frozen=True)
class TrainingCount:
    """Counts of one training step of two patches at the reference geometry, in float32.

    Attributes:
        dim: 2 or 3.
        step_gflop: Operations of the forward and the backward pass.
        memory_mib: What is saved for the backward pass, parameters, gradients and momentum.
    """

    dim: int
    step_gflop: int
    memory_mib: int

    def seconds_per_epoch(self, gflop_per_s: float) -> float:
        """Time of 250 training and 50 validation steps, without waiting for data."""
        return self.step_gflop * (STEPS + VALIDATION_STEPS / FORWARDS) / gflop_per_s


@dataclass(frozen=True)
class MachineSpeed:
    """Operations per second in training steps of nnU-Net's network, and where they were measured."""

    gflop_per_s: float
    device_name: str
    threads: int
    patch: tuple[int, ...]
    torch: str

    def __str__(self) -> str:
        patch = "x".join(map(str, self.patch))
        return (
            f"{self.device_name}, {self.threads} thread{'s' * (self.threads > 1)}, torch {self.torch}:"
            f" {self.gflop_per_s:,.0f} GFLOP/s in steps of nnU-Net's network at {patch}"
        )


def count_training(variant: Variant | None) -> TrainingCount:
    """Count a row, or nnU-Net's network, without computing anything; 3D where there is one."""
    dim = 3 if variant is None else max(variant.dims)
    shape = (BATCH, channels_of(variant), *PATCH[dim])
    counted = counted_cost(stock_configuration(dim), variant, shape=shape)
    memory = counted.saved_bytes + COPIES * 4 * counted.parameters
    return TrainingCount(dim, round(FORWARDS * counted.forward_flops / GIGA), round(memory / MIB))


def stored_counts() -> dict[str, TrainingCount]:
    """The counts of all rows by name, and those of nnU-Net's network."""
    return {name: TrainingCount(**count) for name, count in json.loads(COUNTS.read_text("utf-8")).items()}


def measure_speed(device: str | None = None, *, repeats: int = 3) -> MachineSpeed:
    """Time training steps of nnU-Net's network, in seconds: a small patch on a CPU, the reference patch on a GPU."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    setting = BenchmarkSetup.of(
        patch=MEASURED_PATCH[device], batch=BATCH, device=device, repeats=repeats, compiled=device == "cuda"
    )
    subject = BenchmarkedNetwork.of(None, setting)
    (seconds,) = seconds_in_turns([subject.step], setting, before=1)
    speed = FORWARDS * subject.figures.flops / GIGA / seconds
    return MachineSpeed(speed, setting.device_name, setting.threads, setting.patch, setting.torch)


def cost_on(speed: MachineSpeed, count: TrainingCount) -> dict[str, float]:
    """For tables and JSON."""
    epoch = count.seconds_per_epoch(speed.gflop_per_s)
    return {**asdict(count), "epoch_s": epoch, "hours": epoch * EPOCHS / 3600}


def hours_by_step(figures: NetworkCost, dim: int) -> float | None:
    """Hours of nnU-Net's 1000 epochs at the reference patch, if a network keeps the speed of its measured step.

    None for a network that is counted in other dimensions, or not at all.
    """
    count = stored_counts().get(figures.name)
    if count is None or count.dim != dim:
        return None
    return count.seconds_per_epoch(FORWARDS * figures.flops / GIGA / figures.step_s) * EPOCHS / 3600
