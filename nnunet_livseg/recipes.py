"""How a network is trained, as data: read from the plans' ``livseg`` key or else from the variant's row.

A schedule is a pure function of the recipe, the epoch and the validation losses so far. nnU-Net stores those losses in
its checkpoints, so every schedule survives ``--c`` without state of its own.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from nnunet_livseg.core.errors import UserError

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Recipe:
    """Optimizer, schedule, length and sampling of a training; the defaults are nnU-Net's.

    Attributes:
        optimizer: One of ``OPTIMIZERS``.
        optimizer_options: Further arguments of the optimizer.
        learning_rate: Initial learning rate.
        weight_decay: L2 penalty.
        schedule: Key of ``SCHEDULES``.
        schedule_options: Arguments of the schedule.
        epochs: Number of epochs; iterations: training steps in each; validation_iterations: validation steps in each.
        foreground: Share of patches that are forced to contain foreground.
        probabilistic_oversampling: Whether chance decides for each patch if it is forced. Otherwise the same share of
            every batch is, rounded: of batch 2, a third is one. (nnU-Net's switch.)
        elastic: ``{"probability": p, "scale": [low, high], "magnitude": [low, high]}``: elastic deformation, see
            ``training.augmentation`` (``None``: nnU-Net's own augmentation, which has none).
        mirror: Whether patches are mirrored along all axes, in training and prediction, as nnU-Net does. Without it the
            network learns sides: the liver lies on the right.
        augmentation: ``"nnunet"``, or ``"ct"``: also noise, contrast, oral contrast, slice thickness and fields of view
            of other CTs.
        synthetic_tumors: Share of training patches in which tumors are drawn, see ``training.augmentation``.
        auxiliary_decay: ``{"every": epochs, "factor": f}``: after each so many epochs the losses of all outputs but the
            first weight ``f`` times as much as before (``None``: always the same).
        best: ``{"above": dice, "after": epochs}``: ``checkpoint_best.pth`` is the epoch with the highest validation
            Dice, chosen among those from which on more than so many epochs have been above that Dice, and among all
            while there are none (``None``: nnU-Net's rule, the highest moving average).
        stop_after: Stop when the validation loss has not improved for so many epochs (``None``: never).
        stop_below: Stop when the schedule's learning rate falls below this (``None``: never).
        checkpoint_minutes: Save ``checkpoint_latest.pth`` at the end of an epoch when the last is older than this.
        validation_scales: Sizes in plane at which the final validation predicts, see ``multiscale``.
        init: Checkpoint whose matching weights the training starts from.
        seed: Seed of the initial weights and of every epoch, so that an epoch that is repeated is the same again
            (``None``: chance, as in nnU-Net).
    """

    optimizer: str = "sgd"
    optimizer_options: Mapping[str, Any] = field(default_factory=lambda: {"momentum": 0.99, "nesterov": True})
    learning_rate: float = 1e-2
    weight_decay: float = 3e-5
    schedule: str = "poly"
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 1000
    iterations: int = 250
    validation_iterations: int = 50
    foreground: float = 0.33
    probabilistic_oversampling: bool = False
    elastic: Mapping[str, Any] | None = None
    mirror: bool = True
    augmentation: str = "nnunet"
    synthetic_tumors: float = 0.0
    auxiliary_decay: Mapping[str, float] | None = None
    best: Mapping[str, float] | None = None
    stop_after: int | None = None
    stop_below: float | None = None
    checkpoint_minutes: float = 5
    validation_scales: Sequence[float] = field(default_factory=lambda: [1.0])
    init: str | None = None
    seed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a plans file holds."""
        return asdict(self)

    def with_entries(self, content: Mapping[str, Any]) -> "Recipe":
        """This recipe with the entries that a plans file holds.

        Raises:
            UserError: An entry is unknown or out of range.
        """
        known = {f.name for f in fields(self)}
        unknown = sorted(set(content) - known)
        if unknown:
            raise UserError(
                f"the recipe in the plans has the unknown entries {', '.join(unknown)}; "
                f"known entries: {', '.join(sorted(known))}."
                "\n  Correct the plans file, or write it again with livseg plan."
            )
        return self.replace(**content)

    def validated(self) -> "Recipe":
        """This recipe, if its numbers make sense.

        Raises:
            UserError: They do not.
        """
        choices = (("schedule", SCHEDULES), ("optimizer", OPTIMIZERS), ("augmentation", AUGMENTATIONS))
        for name, known in choices:
            if getattr(self, name) not in known:
                raise UserError(f"{name} {getattr(self, name)!r} is unknown; known: {', '.join(known)}.")
        for name in ("epochs", "iterations", "validation_iterations"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}, but a training needs a whole number of at least 1."
                )
        if self.seed is not None and (not isinstance(self.seed, int) or self.seed < 0):
            raise UserError(f"the seed is {self.seed!r}, but must be a whole number of at least 0.")
        if not isinstance(self.synthetic_tumors, (int, float)) or not 0 <= self.synthetic_tumors <= 1:
            raise UserError(
                f"synthetic_tumors is {self.synthetic_tumors!r}, but must be from 0 to 1: the share of training patches"
                " that get them."
            )
        if not self.learning_rate > 0:
            raise UserError(f"the learning rate is {self.learning_rate}, but must be above 0.")
        _require_entries("auxiliary_decay", self.auxiliary_decay, ("every", "factor"))
        _require_entries("best", self.best, ("above", "after"))
        if self.auxiliary_decay and not (self.auxiliary_decay["every"] >= 1 and self.auxiliary_decay["factor"] > 0):
            raise UserError(
                f"auxiliary_decay is {dict(self.auxiliary_decay)}, but 'every' must be at least 1 epoch "
                "and 'factor' above 0."
            )
        if self.elastic is not None:
            _require_elastic(self.elastic)
        return self

    def replace(self, **changes: Any) -> "Recipe":
        """This recipe with the given entries replaced, checked."""
        return replace(self, **changes).validated()


def learning_rate(recipe: Recipe, epoch: int, validation_losses: Sequence[float]) -> float:
    """Learning rate of ``epoch`` (from 0), given the validation losses of the epochs before it."""
    return SCHEDULES[recipe.schedule](recipe, epoch, validation_losses, **recipe.schedule_options)


def _constant(recipe: Recipe, epoch: int, losses: Sequence[float]) -> float:
    return recipe.learning_rate


def _poly(recipe: Recipe, epoch: int, losses: Sequence[float], exponent: float = 0.9) -> float:
    return recipe.learning_rate * (1 - epoch / recipe.epochs) ** exponent


def _step(recipe: Recipe, epoch: int, losses: Sequence[float], every: int, factor: float) -> float:
    return recipe.learning_rate * factor ** (epoch // every)


def _plateau(recipe: Recipe, epoch: int, losses: Sequence[float], factor: float, patience: int) -> float:
    """Multiply by ``factor`` after more than ``patience`` epochs without a better loss, as torch's plateau schedule."""
    rate, waited = recipe.learning_rate, 0
    for better in _improvements(losses[:epoch]):
        waited = 0 if better else waited + 1
        if waited > patience:
            rate, waited = rate * factor, 0
    return rate


def is_best(rule: Mapping[str, float], validation_dice: Sequence[float]) -> bool:
    """Whether the last epoch is the one to keep by a recipe's ``best``, given the Dice of all epochs so far."""
    allowed = _allowed(rule, validation_dice)
    last = len(validation_dice) - 1
    return last in allowed and all(validation_dice[last] > validation_dice[epoch] for epoch in allowed[:-1])


def is_best_so_far(rule: Mapping[str, float], validation_dice: Sequence[float]) -> bool:
    """Whether the last epoch becomes ``checkpoint_best.pth``: as ``is_best``; while the rule allows no epoch, of all.

    The first epoch always does, as in nnU-Net, so that there is a best checkpoint from then on.
    """
    if _allowed(rule, validation_dice):
        return is_best(rule, validation_dice)
    return len(validation_dice) == 1 or is_best({"above": -math.inf, "after": 0}, validation_dice)


def _allowed(rule: Mapping[str, float], validation_dice: Sequence[float]) -> list[int]:
    """The epochs among which the rule chooses."""
    allowed, seen = [], 0
    for epoch, dice in enumerate(validation_dice):
        seen += dice > rule["above"]
        if seen > rule["after"] and math.isfinite(dice):  # NaN: no foreground in this validation
            allowed.append(epoch)
    return allowed


def reason_to_stop(recipe: Recipe, validation_losses: Sequence[float]) -> str | None:
    """Why the recipe ends the training after these epochs, or ``None`` if it does not."""
    waited, epoch = 0, len(validation_losses)
    for better in _improvements(validation_losses):
        waited = 0 if better else waited + 1
    if recipe.stop_after is not None and waited >= recipe.stop_after:
        return f"No better validation loss for {recipe.stop_after} epochs"
    if recipe.stop_below is not None and epoch < recipe.epochs:  # at its end, a schedule may be at 0
        rate = learning_rate(recipe, epoch, validation_losses)
        if rate < recipe.stop_below:
            return f"The learning rate would fall to {rate:.2g}, below {recipe.stop_below:.2g}"
    return None


class RecipeSchedule:
    """Sets the learning rate of an epoch; nnU-Net calls ``step(epoch)`` before it.

    Args:
        optimizer: Whose learning rate is set.
        recipe: The schedule.
        validation_losses: Returns those of all epochs so far.
    """

    def __init__(self, optimizer: "Optimizer", recipe: Recipe, validation_losses: Callable[[], list[float]]) -> None:
        self.optimizer, self.recipe, self.validation_losses = optimizer, recipe, validation_losses

    def step(self, epoch: int) -> None:
        """Set the learning rate of ``epoch`` (from 0)."""
        rate = learning_rate(self.recipe, epoch, self.validation_losses())
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def _require_entries(name: str, value: Mapping[str, float] | None, entries: Sequence[str]) -> None:
    if value is not None and set(value) != set(entries):
        raise UserError(f"the recipe's {name} is {dict(value)}, but must have the entries {' and '.join(entries)}.")


def _require_elastic(elastic: Mapping[str, Any]) -> None:
    _require_entries("elastic", elastic, ("probability", "scale", "magnitude"))
    ranges = [elastic["scale"], elastic["magnitude"]]
    right = 0 <= elastic["probability"] <= 1 and all(
        isinstance(r, (list, tuple)) and len(r) == 2 and 0 <= r[0] <= r[1] for r in ranges
    )
    if not right:
        raise UserError(
            f"the recipe's elastic is {dict(elastic)}.\n  'probability' must be from 0 to 1. 'scale' and "
            "'magnitude' must be two numbers each, from 0 on, the smaller one first."
        )


def _improvements(losses: Sequence[float]) -> Iterator[bool]:
    """For each loss whether it beats the best before it by more than a ten-thousandth (torch's default).

    A loss that is not finite beats nothing and is beaten by all others.
    """
    best = None
    for loss in losses:
        better = math.isfinite(loss) and (best is None or loss < best - 1e-4 * abs(best))
        best = loss if better else best
        yield better


OPTIMIZERS = ("adam", "adamw", "sgd")
AUGMENTATIONS = ("nnunet", "ct")
SCHEDULES = {"constant": _constant, "poly": _poly, "step": _step, "plateau": _plateau}

NNUNET = Recipe()
