"""The records of an evaluation: a pair of files, the numbers of a case, of a folder, and of several methods."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from nnunet_livseg.core.labels import Structures
from nnunet_livseg.evaluation.metrics import Metric, metric_table
from nnunet_livseg.evaluation.options import Options

SCHEMA = "nnunet_livseg.evaluation/1"
ALPHA = 0.05
# The same method in two laboratories, tumor Dice on LiTS: up to 0.06 apart on one fold, 0.006 over five folds
NOISE_ONE_FOLD, NOISE_FIVE_FOLDS = 0.06, 0.01


@dataclass(frozen=True)
class CasePaths:
    """One pair of files; ``fold`` is set in a cross-validation, ``image`` where the CT was found."""

    case: str
    predicted: Path
    reference: Path
    fold: str = ""
    image: Path | None = None


@dataclass(frozen=True)
class SkippedCase:
    """A case that was skipped, and why."""

    case: str
    reason: str


@dataclass
class Inputs:
    """All pairs found, skipped cases, and the meaning of the labels; ``guess`` says what of it was guessed."""

    method: str
    structures: Structures
    cases: list[CasePaths]
    problems: list[SkippedCase] = field(default_factory=list)
    folds: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    guess: list[str] = field(default_factory=list)


@dataclass
class CaseResult:
    """All numbers of one case.

    Args:
        case: Name of the case.
        unit: ``mm`` or ``px``: unit of all lengths.
        ndim: Dimensions of the image; with ``unit`` it gives the unit of volumes (ml, mm2, px).
        structures: Structure to metric to value (``metrics.metric_table`` explains them).
        counts: Structure to voxel counts ``both``, ``predicted``, ``reference``, ``image``.
        lesions: One row per reference lesion and per unmatched predicted lesion.
        detection: Counts of found, missed, true and false lesions by rule.
        burden: Predicted and reference tumor burden and their difference, where there are liver and tumor.
        slices: Structure to the scores of its axial slices, where ``options.slices`` asks for them.
        fold: Fold of a cross-validation the case was predicted in.
        notes: What a reader should know (resampled, float labels, ...).
        seconds: Time that the evaluation took.
    """

    case: str
    unit: str
    ndim: int
    structures: dict[str, dict[str, float]]
    counts: dict[str, dict[str, int]]
    lesions: list[dict] = field(default_factory=list)
    detection: dict[str, dict[str, int]] = field(default_factory=dict)
    burden: dict[str, float] = field(default_factory=dict)
    slices: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    fold: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict:
        return asdict(self)

    def status(self, structure: str) -> str:
        """``both_empty``, ``missed``, ``false_alarm`` or ``both``: which masks have voxels."""
        counts = self.counts[structure]
        names = {
            (False, False): "both_empty",
            (False, True): "missed",
            (True, False): "false_alarm",
            (True, True): "both",
        }
        return names[bool(counts["predicted"]), bool(counts["reference"])]


@dataclass
class FolderResult:
    """Everything about one folder of predictions.

    Args:
        inputs: Pairs of files, meaning of the labels, method name.
        options: How it was evaluated.
        cases: Finished cases, in the order of their names.
        problems: Skipped cases, and why.
        case_table: Case to column to text.
        summary: What ``summary.summarize`` makes of the cases.
        n_reused: Cases whose stored result was taken.
    """

    inputs: Inputs
    options: Options
    cases: list[CaseResult]
    problems: list[SkippedCase]
    case_table: dict[str, dict[str, str]] = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    n_reused: int = 0

    @property
    def method(self) -> str:
        return self.inputs.method

    @property
    def unit(self) -> str:
        return self.cases[0].unit if self.cases else "mm"

    @property
    def notes(self) -> list[str]:
        """What a reader should know: about the folder, and about single cases."""
        return [*self.inputs.notes, *(f"{case.case}: {note}" for case in self.cases for note in case.notes)]

    @property
    def ndim(self) -> int:
        return self.cases[0].ndim if self.cases else 3

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics of a structure, in the order of the columns."""
        return metric_table(self.options, length_unit=self.unit)

    @property
    def size_unit(self) -> str:
        """Unit of volumes: ml, mm2 (2D) or px."""
        if self.unit == "px":
            return "px"
        return "ml" if self.ndim == 3 else "mm2"


@dataclass(frozen=True)
class PairedTest:
    """One test: method ``a`` against method ``b`` in one metric of one structure, over the cases both have.

    ``difference`` is the mean of a - b (of absolute values where 0 is best) over the ``n`` cases in which both have a
    value; ``n_left_out`` are the others. ``lacking_a`` and ``lacking_b`` count the cases in which a method has no value
    by its own fault (``Comparison.lacking``): in the Wilcoxon test they are its worst, and ``wins`` and ``losses`` of
    ``a`` count them. ``p_holm`` is its p adjusted over all pairs of methods in this metric.
    """

    structure: str
    metric: str
    a: str
    b: str
    n: int
    n_left_out: int
    difference: float
    ci95: tuple[float, float]
    p_wilcoxon: float
    p_t: float
    p_holm: float
    wins: int
    ties: int
    losses: int
    noise_floor: float | None
    lacking_a: int = 0
    lacking_b: int = 0
    winner: str | None = None  # by the signed ranks

    @property
    def lacks_more(self) -> str | None:
        """The method that has no value in more cases."""
        if self.lacking_a == self.lacking_b:
            return None
        return self.a if self.lacking_a > self.lacking_b else self.b

    @property
    def significant(self) -> bool:
        """A method that lacks values of more cases cannot win: what it has are its easier cases."""
        return self.p_holm < ALPHA and self.winner != self.lacks_more

    @property
    def within_noise(self) -> bool:
        return self.noise_floor is not None and abs(self.difference) < self.noise_floor


@dataclass
class Comparison:
    """The result of ``compare``.

    Args:
        methods: Every method's own evaluation.
        cases: Names of the cases that every method has.
        left_out: Case to the methods that lack it.
        pairs: All tests.
        ranking: ``structure.metric`` to method to mean rank and shares of bootstrap ranks.
        folds: Number of folds behind the predictions, which decides the noise floor.
    """

    methods: list[FolderResult]
    cases: list[str]
    left_out: dict[str, list[str]]
    pairs: list[PairedTest] = field(default_factory=list)
    ranking: dict[str, dict[str, dict]] = field(default_factory=dict)
    folds: int = 1

    @property
    def names(self) -> list[str]:
        return [result.method for result in self.methods]

    @cached_property
    def _by_case(self) -> list[dict[str, CaseResult]]:
        return [{case.case: case for case in result.cases} for result in self.methods]

    def values(self, structure: str, metric: str) -> np.ndarray:
        """``(cases, methods)`` values over the common cases."""
        columns = [[of[case].structures[structure][metric] for case in self.cases] for of in self._by_case]
        return np.array(columns, dtype=np.float64).T

    def lacking(self, structure: str, metric: str) -> np.ndarray:
        """``(cases, methods)``: no value by the method's own fault. It is infinite, or undefined although the reference
        or the prediction has voxels; if both are rightly empty, an undefined value is not a fault.
        """
        values = self.values(structure, metric)
        empty = [[of[case].status(structure) == "both_empty" for case in self.cases] for of in self._by_case]
        return np.isinf(values) | (np.isnan(values) & ~np.array(empty, dtype=bool).T)

    def merits(self, structure: str, metric: str) -> np.ndarray:
        """``(cases, methods)`` values of which more is better; what a method lacks is minus infinity."""
        better = self.methods[0].metrics[metric].better
        values = self.values(structure, metric)
        signed = {"higher": values, "lower": -values, "zero": -np.abs(values)}.get(better, values)
        return np.where(self.lacking(structure, metric), -np.inf, signed)

    def best(self, structure: str, metric: str) -> tuple[str | None, bool]:
        """The method that lacks fewest values and has the best mean, and whether it is proven: significant and beyond
        noise against every other."""
        merits = finite_merits(self.merits(structure, metric))
        if not self.methods[0].metrics[metric].better or not len(merits):
            return None, False
        name = self.names[int(np.argmax(merits.mean(axis=0)))]
        tests = [p for p in self.pairs if (p.structure, p.metric) == (structure, metric) and name in (p.a, p.b)]
        proven = (test.significant and test.winner == name and not test.within_noise for test in tests)
        return name, len(tests) == len(self.names) - 1 > 0 and all(proven)  # a baseline alone proves no other


def finite_merits(merits: np.ndarray) -> np.ndarray:
    """The cases ``(N, methods)`` in which every method has a value or lacks it; a lack outweighs any values."""
    rows = merits[~np.isnan(merits).any(axis=1)]
    values = rows[np.isfinite(rows)]
    lack = -1e6 * (1 + float(np.abs(values).max())) if values.size else -1.0
    return np.where(np.isfinite(rows), rows, lack)
