"""What nnU-Net's training logs say: time of every epoch, losses and Dice. No checkpoint is opened for it."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

_EPOCH = re.compile(r"\bEpoch (\d+)\s*$")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?|nan|inf")
_SECONDS = re.compile(r"Epoch time: ([\d.]+) s")


@dataclass
class TrainingLog:
    """Epochs of one fold over all its attempts; a repeated epoch counts once in the curve, and each time in the hours.

    Attributes:
        dice: Epoch to mean Dice of its validation patches, as nnU-Net estimates it.
        loss: Epoch to validation loss.
        seconds: Time of all epochs that were trained.
    """

    dice: dict[int, float] = field(default_factory=dict)
    loss: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0


def read_logs(fold: Path) -> TrainingLog:
    """All logs of a fold in the order in which they were begun."""
    log = TrainingLog()
    for path in sorted(fold.glob("training_log_*.txt"), key=lambda path: (path.stat().st_mtime, path.name)):
        _read(path, log)
    return log


def _read(path: Path, log: TrainingLog) -> None:
    epoch = -1
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.partition(": ")[2].strip()  # after the time
        if found := _EPOCH.search(line):
            epoch = int(found[1])
        elif text.startswith("val_loss"):
            log.loss[epoch] = _mean(text.removeprefix("val_loss"))
        elif text.startswith("Pseudo dice"):
            log.dice[epoch] = _mean(re.sub(r"np\.float\d+", "", text.removeprefix("Pseudo dice")))
        elif found := _SECONDS.search(line):
            log.seconds += float(found[1])


def _mean(text: str) -> float:
    numbers = [float(number) for number in _NUMBER.findall(text)]
    numbers = [number for number in numbers if math.isfinite(number)]
    return sum(numbers) / len(numbers) if numbers else math.nan
