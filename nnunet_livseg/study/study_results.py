"""From finished trainings to one comparison per dataset: evaluation of each seed, mean over seeds, noise, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json
from nnunet_livseg.core.names import file_name
from nnunet_livseg.core.nnunet_folders import folder
from nnunet_livseg.data.raw_dataset import RawDataset
from nnunet_livseg.evaluation.comparison import compare_results
from nnunet_livseg.evaluation.folder_evaluation import evaluate_folder
from nnunet_livseg.evaluation.results import CaseResult, Comparison, FolderResult
from nnunet_livseg.evaluation.summary import summarize
from nnunet_livseg.study.job_state import DONE, JobState, cost_file
from nnunet_livseg.study.study_jobs import Method, StudyPlan, Training
from nnunet_livseg.study.training_logs import TrainingLog, read_logs

NOTHING = "No results yet that can be compared."


@dataclass(frozen=True)
class Cost:
    """What a method has cost: parameters, hours of training per fold, and the most memory of a training.

    ``None``: not known, for example of a training that was started by hand.
    """

    parameters: int | None
    hours: float
    memory_gib: float | None


@dataclass(frozen=True)
class DatasetResults:
    """All that the report says about a dataset.

    Attributes:
        title: The dataset, and whether this is about its test cases.
        file: The same as a part of file names.
        comparison: Comparison of the methods that have results; ``None`` if none has, or they share no case.
        baseline: Label of the baseline.
        seeds: Label to the number of its seeds with results.
        floors: ``structure.metric`` to the noise between seeds, where a method has two.
        costs: Label to what it has cost.
        curves: Label to its logs; empty for test cases.
        missing: Trainings or predictions that are not done, with their state.
        why: Why there is no comparison.
    """

    title: str
    file: str
    comparison: Comparison | None
    baseline: str
    seeds: Mapping[str, int]
    floors: Mapping[str, float]
    costs: Mapping[str, Cost]
    curves: Mapping[str, Sequence[TrainingLog]]
    missing: Mapping[str, JobState]
    why: str = NOTHING


def dataset_results(plan: StudyPlan, dataset: str, states: Mapping[str, JobState]) -> DatasetResults:
    """Evaluate what is finished of a dataset, each case where it was a validation case.

    Cases that were evaluated before are not evaluated again.
    """
    trainings = [training for training in plan.trainings if training.dataset == dataset]
    done = [training for training in trainings if states[training.name].word == DONE]
    by_seed = {method.label: _evaluate(plan, method, done) for method in plan.methods}
    logs = {t.name: read_logs(t.folder) for t in trainings if t.folder.is_dir()}
    of_method = {m.label: [t for t in trainings if t.method == m] for m in plan.methods}
    return DatasetResults(
        title=dataset,
        file=dataset,
        **_compared(plan, by_seed, of_method, logs, folds=len(plan.study.folds)),
        curves={label: [logs[t.name] for t in found if t.name in logs] for label, found in of_method.items()},
        missing={t.name: states[t.name] for t in trainings if states[t.name].word != DONE},
    )


def test_case_results(plan: StudyPlan, dataset: str, states: Mapping[str, JobState]) -> DatasetResults:
    """The same of the test cases, as far as they are predicted and have references in ``labelsTs``."""
    predictions = [one for one in plan.predictions.values() if one.trainings[0].dataset == dataset]
    raw = RawDataset.open(folder("nnUNet_raw") / dataset)
    references = raw.folder / "labelsTs" if raw.files("labelsTs") else None
    by_seed: dict[str, list[FolderResult]] = {}
    of_method: dict[str, list[Training]] = {}
    for prediction in predictions:
        label = prediction.trainings[0].method.label
        of_method.setdefault(label, []).extend(prediction.trainings)
        if references and states[prediction.name].word == DONE:
            out = plan.study.folder / "evaluation" / prediction.name
            result = evaluate_folder(prediction.folder, references, out=out, method=label)
            by_seed.setdefault(label, []).append(result)
    logs = {t.name: read_logs(t.folder) for label in by_seed for t in of_method[label]}
    return DatasetResults(
        title=f"{dataset}, test cases",
        file=f"{dataset}_test",
        **_compared(plan, by_seed, of_method, logs, folds=1),
        curves={},
        missing={one.name: states[one.name] for one in predictions if states[one.name].word != DONE},
        why=NOTHING if references else f"{raw.folder} has no labelsTs, so the predictions are not evaluated.",
    )


def _compared(
    plan: StudyPlan,
    by_seed: Mapping[str, Sequence[FolderResult]],
    of_method: Mapping[str, Sequence[Training]],
    logs: Mapping[str, TrainingLog],
    *,
    folds: int,
) -> dict[str, Any]:
    """Fields of ``DatasetResults`` that follow from the evaluations of each method's seeds."""
    by_seed = {label: results for label, results in by_seed.items() if results}
    means = [mean_over_seeds(label, results) for label, results in by_seed.items()]
    floors = noise_between_seeds(by_seed)
    return {
        "comparison": _comparison(plan, means, floors, folds=folds),
        "baseline": plan.baseline,
        "seeds": {label: len(results) for label, results in by_seed.items()},
        "floors": floors,
        "costs": {label: _cost(plan, of_method[label], logs) for label in by_seed},
    }


def _evaluate(plan: StudyPlan, method: Method, done: Sequence[Training]) -> list[FolderResult]:
    """One evaluation per seed."""
    results = []
    for seed in plan.study.seeds:
        found = [training for training in done if training.method == method and training.seed == seed]
        if not found:
            continue
        name = file_name(f"{method.label}-seed-{seed}" if seed is not None else method.label)
        out = plan.study.folder / "evaluation" / found[0].dataset / name
        folds = [training.fold for training in found]
        results.append(evaluate_folder(found[0].folder.parent, out=out, folds=folds, method=method.label))
    return results


def mean_over_seeds(label: str, results: Sequence[FolderResult]) -> FolderResult:
    """One result whose value of a case is the mean over the seeds that have the case.

    A value that one seed lacks (infinite or undefined) is lacking in the mean, so that no seed's fault is hidden.
    """
    if len(results) == 1:
        return results[0]
    cases: dict[str, list[CaseResult]] = {}
    for result in results:
        for case in result.cases:
            cases.setdefault(case.case, []).append(case)
    means = [_mean_case(found) for _, found in sorted(cases.items())]
    first = results[0]
    problems = [problem for result in results for problem in result.problems]
    summary = summarize(means, first.options, first.case_table)
    return replace(first, cases=means, problems=problems, summary=summary)


def _mean_case(found: Sequence[CaseResult]) -> CaseResult:
    first = found[0]
    structures = {
        name: {metric: float(np.mean([case.structures[name][metric] for case in found])) for metric in values}
        for name, values in first.structures.items()
    }
    counts = {
        name: {key: sum(case.counts[name][key] for case in found) for key in values}
        for name, values in first.counts.items()
    }
    return replace(first, structures=structures, counts=counts)


def noise_between_seeds(by_seed: Mapping[str, Sequence[FolderResult]]) -> dict[str, float]:
    """``structure.metric`` to the largest difference between the means of two seeds of one method."""
    floors: dict[str, float] = {}
    for results in by_seed.values():
        if len(results) < 2:
            continue
        cases = set.intersection(*({case.case for case in result.cases} for result in results))
        for structure, metrics in results[0].cases[0].structures.items():
            for metric in metrics:
                values = [
                    [case.structures[structure][metric] for case in result.cases if case.case in cases]
                    for result in results
                ]
                columns = np.array(values)
                finite = columns[:, np.isfinite(columns).all(axis=0)]
                if finite.size:
                    spread = float(np.ptp(finite.mean(axis=1)))
                    floors[f"{structure}.{metric}"] = max(spread, floors.get(f"{structure}.{metric}", 0.0))
    return floors


def _comparison(
    plan: StudyPlan, means: Sequence[FolderResult], floors: Mapping[str, float], *, folds: int
) -> Comparison | None:
    if not means:
        return None
    try:
        return compare_results(means, folds=folds, baseline=plan.baseline, floors=floors)
    except UserError:  # the finished folds of two methods have no cases in common yet
        return None


# --- costs ------------------------------------------------------------------------------------------------------------


def _cost(plan: StudyPlan, trainings: Sequence[Training], logs: Mapping[str, TrainingLog]) -> Cost:
    hours = [logs[t.name].seconds / 3600 for t in trainings if t.name in logs and logs[t.name].dice]
    paths = [cost_file(plan, training.name) for training in trainings]
    records = [read_json(path, remedy="Remove it.") for path in paths if path.is_file()]
    key = "gpu_gib" if plan.study.device == "cuda" else "host_gib"
    memory = [record[key] for record in records if record.get(key)]
    plans = folder("nnUNet_preprocessed") / trainings[0].dataset / f"{trainings[0].plans}.json"
    parameters = _parameters(plans, trainings[0].method.configuration)
    return Cost(parameters, sum(hours) / max(1, len(hours)), max(memory) if memory else None)


def _parameters(plans: Path, configuration: str) -> int | None:
    """Parameters of the network in a plans file, for the dataset's own channels and classes."""
    if not plans.is_file():
        return None
    import torch
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    from nnunet_livseg.core.dataset_json import read_dataset_json
    from nnunet_livseg.reference_networks import build

    content = read_json(plans, keys=("configurations",), remedy="Write it again with livseg study run.")
    described = read_dataset_json(plans.parent, required=("labels",)).content
    labels = LabelManager(described["labels"], described.get("regions_class_order"))
    with torch.device("meta"):
        network = build(
            content["configurations"][configuration],
            channels=len(content["foreground_intensity_properties_per_channel"]),
            classes=labels.num_segmentation_heads,
            initialize=False,
        )
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
