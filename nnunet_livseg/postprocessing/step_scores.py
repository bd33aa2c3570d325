"""The scores of a training's validation cases with some steps of postprocessing."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from nnunet_livseg.core.errors import UserError, explain_case
from nnunet_livseg.core.labels import TUMOR, Structures
from nnunet_livseg.core.workers import run_jobs, worker_count
from nnunet_livseg.evaluation.case_evaluation import check_labels, mask_pairs, read_on_one_grid
from nnunet_livseg.evaluation.lesions import LesionPair, detection_counts, detection_scores
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.overlap import Confusion, overlap_scores
from nnunet_livseg.evaluation.results import CasePaths, SkippedCase
from nnunet_livseg.evaluation.statistics import bootstrap_means
from nnunet_livseg.imaging.images import case_memory_bytes
from nnunet_livseg.imaging.masks import box_with_rim
from nnunet_livseg.postprocessing.steps import LESION_NEIGHBORS, Step, apply

Steps = tuple[Step, ...]
DETECTION_RULE = "group_0"  # any overlap finds a lesion; evaluation.lesions explains it
_MORE_THAN_EVALUATION = 1.5  # memory: both label maps stay while steps are tried (docs/evidence/segmentation.md)


@dataclass(frozen=True)
class CaseScore:
    """One case after some steps.

    Args:
        dice: Per structure; NaN where it is empty in prediction and reference, as in nnU-Net.
        lesions: Found and missed reference lesions, true and false predicted ones; empty without a label for tumors.
        volumes_mm3: Of the predicted lesions.
    """

    dice: dict[str, float]
    lesions: dict[str, int]
    volumes_mm3: tuple[float, ...] = ()


def score_case(paths: CasePaths, structures: Structures, many: Sequence[Steps]) -> list[CaseScore]:
    """Scores of one case with each of ``many`` lists of steps; the files are read once.

    Raises:
        UserError: A file cannot be read, the grids differ, or labels are unknown.
    """
    predicted, reference, _ = read_on_one_grid(paths.predicted, paths.reference, Options(), structures)
    box = box_with_rim((predicted.labels != 0) | (reference.labels != 0))
    check_labels(predicted.labels[box], reference.labels[box], structures)
    scores = []
    for steps in many:
        labels, _ = apply(predicted.labels[box], predicted.spacing_mm, structures, steps)
        pairs = mask_pairs(labels, reference.labels[box], box, reference, structures)
        dice = {name: overlap_scores(Confusion.of(pair))["dice"] for name, pair in pairs.items()}
        if TUMOR not in pairs:
            scores.append(CaseScore(dice, {}))
            continue
        lesions = LesionPair(pairs[TUMOR], LESION_NEIGHBORS)
        volumes = lesions.predicted_sizes[1:] * math.prod(reference.spacing_mm)
        scores.append(CaseScore(dice, detection_counts(lesions)[DETECTION_RULE], tuple(volumes.tolist())))
    return scores


class ScoreTable:
    """Scores of all cases by steps, computed when first asked for.

    Args:
        cases: The validation cases.
        structures: Which values are liver and tumor.
        workers: Largest number of processes. Defaults to as many as processors and free memory allow.
        progress: Show a bar for each pass over the cases.
    """

    def __init__(
        self, cases: Sequence[CasePaths], structures: Structures, *, workers: int | None = 1, progress: bool = False
    ) -> None:
        self.cases = list(cases)
        self.structures = structures
        self.problems: list[SkippedCase] = []
        self._workers, self._progress = workers, progress
        self._known: dict[Steps, dict[str, CaseScore]] = {}

    def compute(self, wanted: Sequence[Steps]) -> None:
        """Make sure that the scores for each of ``wanted`` are there, in one pass over the files.

        Cases that cannot be scored in the first pass are left out of all, and named in ``problems``.

        Raises:
            UserError: No case can be scored, or one no longer.
        """
        many = [steps for steps in dict.fromkeys(wanted) if steps not in self._known]
        if not many:
            return
        found: dict[str, list[CaseScore]] = {}
        problems: list[SkippedCase] = []
        work = partial(score_case, structures=self.structures, many=many)
        need = int(_MORE_THAN_EVALUATION * max(case_memory_bytes(paths.predicted) for paths in self.cases))
        workers = worker_count(len(self.cases), need, workers=self._workers)
        with tqdm(total=len(self.cases), desc="tune", unit="case", disable=not self._progress) as bar:
            for paths, result in run_jobs(work, self.cases, workers=workers):
                bar.update()
                if isinstance(result, Exception):
                    problems.append(SkippedCase(paths.case, explain_case(result)))
                else:
                    found[paths.case] = result
        if problems and (self._known or not found):
            raise UserError(f"{problems[0].case} cannot be scored: {problems[0].reason}")
        self.problems += problems
        self.cases = [paths for paths in self.cases if paths.case in found]
        for i, steps in enumerate(many):
            self._known[steps] = {case: scores[i] for case, scores in found.items()}

    def scores(self, steps: Steps, cases: Sequence[str]) -> list[CaseScore]:
        """Scores of ``cases`` with ``steps``."""
        self.compute([steps])
        return [self._known[steps][case] for case in cases]


@dataclass(frozen=True)
class Summary:
    """Scores over cases.

    Args:
        dice: Mean over cases per structure; cases in which it is empty on both sides are excluded, as in nnU-Net.
        mean_dice: Mean over structures, nnU-Net's foreground mean.
        lesion_f1: Of all cases' lesions together.
        false_lesions_per_case: Predicted lesions that overlap none.
        tumor_free_cases: Cases whose reference has no tumor; None without a label for tumors.
        false_alarms: Tumor-free cases with a predicted tumor.
    """

    dice: dict[str, float]
    mean_dice: float
    lesion_f1: float = math.nan
    false_lesions_per_case: float = math.nan
    tumor_free_cases: int | None = None
    false_alarms: int | None = None

    def as_dict(self) -> dict:
        return asdict(self)


def summarize(scores: Sequence[CaseScore]) -> Summary:
    """Scores of cases taken together."""
    names = list(scores[0].dice)
    values = np.array([[score.dice[name] for name in names] for score in scores])
    means = _means(np.nansum(values, axis=0), np.isfinite(values).sum(axis=0))
    dice, mean_dice = dict(zip(names, means.tolist(), strict=True)), float(_over_structures(means))
    if not scores[0].lesions:
        return Summary(dice, mean_dice)
    pooled = {key: sum(score.lesions[key] for score in scores) for key in scores[0].lesions}
    free = [score.lesions for score in scores if not score.lesions["found"] + score.lesions["missed"]]
    alarms = sum(lesions["false"] > 0 for lesions in free)
    f1 = detection_scores(pooled)["f1"]
    return Summary(dice, mean_dice, f1, pooled["false"] / len(scores), len(free), alarms)


def gain_interval(after: Sequence[CaseScore], before: Sequence[CaseScore]) -> tuple[float, float]:
    """95 % interval of the gain in mean Dice over paired cases, percentile bootstrap; NaN below two cases.

    Cases are drawn and both means are formed anew, so that a false alarm that became an empty, uncounted case is
    treated as in the means themselves.
    """
    if len(after) < 2:
        return math.nan, math.nan
    columns = []
    for scores in (after, before):
        values = np.array([list(score.dice.values()) for score in scores])
        columns += [np.nan_to_num(values), np.isfinite(values)]
    drawn = np.split(bootstrap_means(np.concatenate(columns, axis=1)), 4, axis=1)
    gains = _over_structures(_means(*drawn[:2])) - _over_structures(_means(*drawn[2:]))
    gains = gains[np.isfinite(gains)]
    if not gains.size:
        return math.nan, math.nan
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``sums / counts``, NaN where nothing was counted."""
    return np.divide(sums, counts, out=np.full(np.shape(sums), math.nan), where=np.asarray(counts) > 0)


def _over_structures(means: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined; ``(..., M)`` gives ``(...)``."""
    return _means(np.nansum(means, axis=-1), np.isfinite(means).sum(axis=-1))
