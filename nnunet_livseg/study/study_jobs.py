"""The jobs of a study, as data: what is prepared, what is trained, which method each training belongs to."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import dataset_number, did_you_mean
from nnunet_livseg.core.nnunet_folders import find_dataset, folder
from nnunet_livseg.data.raw_dataset import find_raw_dataset
from nnunet_livseg.plans import Overrides, plans_name
from nnunet_livseg.study.study_file import Study
from nnunet_livseg.variants import Variant, find_variant

REPORT = "report"  # the job that comes last


@dataclass(frozen=True)
class Method:
    """What a line of the table is about: a row with preset, recipe and configuration."""

    row: str
    preset: str
    recipe: str
    configuration: str
    label: str

    @property
    def variant(self) -> Variant:
        return find_variant(self.row)


@dataclass(frozen=True)
class PlansSpec:
    """A plans file that a study needs in each of its datasets."""

    name: str
    row: str
    preset: str
    overrides: Overrides


@dataclass(frozen=True)
class Training:
    """One fold of one method with one seed; its folder is nnU-Net's."""

    dataset: str
    method: Method
    seed: int | None
    fold: str
    plans: str

    @property
    def model(self) -> str:
        return f"{self.method.variant.trainer}__{self.plans}__{self.method.configuration}"

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.model}/fold_{self.fold}"

    @property
    def folder(self) -> Path:
        return folder("nnUNet_results") / self.name

    def command(self, device: str, how: str = "--c") -> list[str]:
        """nnU-Net's command line; ``how`` is ``--c``, which also starts, or ``--val``."""
        words = ["nnUNetv2_train", dataset_number(self.dataset), self.method.configuration, self.fold]
        return [*words, "-tr", self.method.variant.trainer, "-p", self.plans, "-device", device, how]


@dataclass(frozen=True)
class EnsemblePrediction:
    """The test cases of a dataset, predicted by the ensemble of all folds of one method with one seed."""

    trainings: tuple[Training, ...]

    @property
    def name(self) -> str:
        first, folds = self.trainings[0], (training.fold for training in self.trainings)
        return f"{first.dataset}/{first.model}/test_folds_{'_'.join(folds)}"

    @property
    def folder(self) -> Path:
        return folder("nnUNet_results") / self.name

    def command(self, device: str) -> list[str]:
        """nnU-Net's command line; cases that are in the folder already are not predicted again."""
        first, folds = self.trainings[0], [training.fold for training in self.trainings]
        images = folder("nnUNet_raw") / first.dataset / "imagesTs"
        words = ["nnUNetv2_predict", "-i", str(images), "-o", str(self.folder), "-d", dataset_number(first.dataset)]
        words += ["-c", first.method.configuration, "-tr", first.method.variant.trainer, "-p", first.plans]
        return [*words, "-f", *folds, "-device", device, "--continue_prediction"]


def _fold_order(training: Training) -> tuple[int, str]:
    return len(training.fold), training.fold


def preparation(dataset: str) -> str:
    """Name of the job that plans and preprocesses a dataset."""
    return f"{dataset}/prepare"


@dataclass(frozen=True)
class StudyPlan:
    """All methods and trainings of a study, in the order in which they run.

    Attributes:
        left_out: Combinations that do not exist, and why.
    """

    study: Study
    datasets: tuple[str, ...]
    methods: tuple[Method, ...]
    trainings: tuple[Training, ...]
    plans: tuple[PlansSpec, ...]
    left_out: dict[str, str]

    @property
    def baseline(self) -> str:
        """Label of the method that the others are tested against; the first one where the file names none."""
        asked = self.study.baseline.lower() or self.methods[0].label
        found = [m for m in self.methods if asked in (m.label.lower(), m.row.lower(), m.variant.trainer.lower())]
        if not found:
            known = dict.fromkeys(name for m in self.methods for name in (m.label, m.row))
            raise UserError(
                f"{self.study.path}: the baseline {self.study.baseline!r} is none of the study's methods."
                f"{did_you_mean(asked, known)}\n  Methods: {', '.join(m.label for m in self.methods)}."
            )
        return found[0].label

    @cached_property
    def by_name(self) -> dict[str, Training]:
        return {training.name: training for training in self.trainings}

    @cached_property
    def predictions(self) -> dict[str, EnsemblePrediction]:
        """By name; none if the file does not ask for test cases."""
        models: dict[tuple[str, str], list[Training]] = {}
        for training in self.trainings if self.study.test else ():
            models.setdefault((training.dataset, training.model), []).append(training)
        found = (EnsemblePrediction(tuple(sorted(trainings, key=_fold_order))) for trainings in models.values())
        return {prediction.name: prediction for prediction in found}

    def needed_by(self, job: str) -> list[str]:
        """Names of the jobs that must be done before this one can start."""
        if job in self.by_name:
            return [preparation(self.by_name[job].dataset)]
        return [training.name for training in self.predictions[job].trainings] if job in self.predictions else []


def plan_study(study: Study) -> StudyPlan:
    """The jobs of a study.

    Raises:
        UserError: A dataset or the baseline is unknown, or nothing is left to train.
    """
    datasets = tuple(_dataset(name) for name in study.datasets)
    left_out: dict[str, str] = {}
    methods = tuple(_methods(study, left_out))
    if not methods:
        reasons = "\n  ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UserError(f"{study.path}: no combination of rows, presets and configurations exists:\n  {reasons}")
    specs: dict[str, PlansSpec] = {}
    trainings = []
    for dataset in datasets:  # all methods of a fold first, so that a table of few folds is there early
        for seed in study.seeds:
            for fold in study.folds:
                for method in methods:
                    spec = _plans_of(study, method, seed)
                    specs[spec.name] = spec
                    trainings.append(Training(dataset, method, seed, fold, spec.name))
    plan = StudyPlan(study, datasets, methods, tuple(trainings), tuple(specs.values()), left_out)
    _ = plan.baseline  # a wrong name is reported now
    for dataset in datasets if study.test else ():
        _require_test_cases(study, dataset)
    return plan


def _dataset(name: str) -> str:
    try:
        return find_dataset(name, "nnUNet_preprocessed").name
    except UserError:
        return find_dataset(name, "nnUNet_raw").name


def _require_test_cases(study: Study, dataset: str) -> None:
    raw = find_raw_dataset(dataset)
    if not raw.files("imagesTs"):
        raise UserError(
            f"{study.path} asks for the prediction of test cases (test = true), but {raw.folder / 'imagesTs'} has none"
            f" (files that end in {raw.file_ending}).\n  Put images there, or remove the line."
        )


def _methods(study: Study, left_out: dict[str, str]) -> Iterator[Method]:
    several = [len(getattr(study, key)) > 1 for key in ("presets", "recipes", "configurations")]
    for row in study.rows:
        for preset in study.presets:
            for recipe in study.recipes:
                for configuration in study.configurations:
                    parts = [part for part, many in zip((preset, recipe, configuration), several, strict=True) if many]
                    label = " ".join([row, *parts])
                    if why := _why_not(find_variant(row), preset, configuration):
                        left_out[label] = why
                    else:
                        yield Method(row, preset, recipe, configuration, label)


def _why_not(variant: Variant, preset: str, configuration: str) -> str:
    dims = 2 if configuration == "2d" else 3
    if dims not in variant.dims:
        return f"{variant.name} does not exist in {dims}D"
    if preset == "default":
        return ""
    if preset not in variant.presets:
        return f"{variant.name} has no preset {preset}"
    only = variant.presets[preset].configuration
    return f"preset {preset} is for {only}" if only not in (None, configuration) else ""


def _plans_of(study: Study, method: Method, seed: int | None) -> PlansSpec:
    """The plans of a method; where the study changes nothing they are those of ``livseg plan``, also by name."""
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in study.settings.items()}
    configurations = None
    if settings:
        fitting = [c for c in study.configurations if not _why_not(method.variant, method.preset, c)]
        configurations = tuple(fitting)
    overrides = Overrides(recipe=method.recipe, seed=seed, configurations=configurations, **settings)
    name = plans_name(method.variant, method.preset, source=study.plans, overrides=overrides)
    return PlansSpec(f"{study.title if settings else ''}{name}", method.row, method.preset, overrides)
