"""What a tuning found: the nouns that are written down and shown."""

from dataclasses import dataclass, field

from nnunet_livseg.core.labels import Structures
from nnunet_livseg.evaluation.pairing import Problem
from nnunet_livseg.postprocessing.step_scores import Steps, Summary
from nnunet_livseg.postprocessing.steps import Step


@dataclass(frozen=True)
class Trial:
    """One step tried on top of those kept before it.

    Args:
        step: What was tried.
        before: Scores without it.
        after: Scores with it.
        gain_ci95: Interval of the gain over paired cases.
        verdict: ``kept``, or why not.
    """

    step: Step
    before: Summary
    after: Summary
    gain_ci95: tuple[float, float]
    verdict: str

    @property
    def kept(self) -> bool:
        return self.verdict == "kept"

    @property
    def gain(self) -> float:
        """Gain in mean Dice."""
        return self.after.mean_dice - self.before.mean_dice


@dataclass(frozen=True)
class HeldOut:
    """What the tuning brings on cases that it did not see: each fold with the steps that the other folds choose.

    Args:
        gain: In mean Dice.
        gain_ci95: Interval over paired cases.
        steps: Fold to the steps that the other folds choose.
    """

    gain: float
    gain_ci95: tuple[float, float]
    steps: dict[str, Steps]


@dataclass(frozen=True)
class Tuning:
    """The outcome.

    Args:
        steps: What helps, in order.
        trials: All that was tried.
        before: Scores as predicted.
        after: Scores with ``steps``, on the cases that they were chosen on.
        held_out: None for a single fold.
        structures: Which values are liver and tumor.
        folds: Folds whose validation cases were used.
        n_cases: How many cases.
        left_out: Cases that could not be used, and why.
        notes: What else a reader should know.
    """

    steps: Steps
    trials: list[Trial]
    before: Summary
    after: Summary
    held_out: HeldOut | None
    structures: Structures
    folds: list[str]
    n_cases: int
    left_out: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
