"""Convert all cases of a source to one nnU-Net raw dataset: resumable, whole or not at all."""

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from nnunet_livseg.core.errors import UserError, explain_case
from nnunet_livseg.core.names import ending
from nnunet_livseg.core.output_folder import require_folder
from nnunet_livseg.core.workers import run_jobs
from nnunet_livseg.data import splits
from nnunet_livseg.data.convert import dataset_files
from nnunet_livseg.data.convert.convert_case import ConversionOptions, Target, convert_case, fingerprint, still_there
from nnunet_livseg.data.convert.source_cases import SourceCase, SourceDataset

_SHOWN = 10


@dataclass(frozen=True)
class SplitOptions:
    """How cases are divided: cross-validation, or counts of training, validation and test patients.

    Args:
        folds: Number of folds; ``None``: 5, of fewer patients one each, of a single patient none. Unused where
            ``counts`` is given.
        counts: Patients for training, validation and test.
        seed: Of the shuffling.
        exclude: Cases to leave out.
    """

    folds: int | None = None
    counts: tuple[int, int, int] | None = None
    seed: int = 0
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Args:
        folder: The raw dataset.
        records: One per case, as in ``conversion.json``.
        kept: Cases that were finished by an earlier run.
        splits_conflict: Other splits of the preprocessed dataset, which nnU-Net would use instead, or None.
    """

    folder: Path
    records: list[dict]
    kept: int
    splits_conflict: Path | None


def convert(
    source: SourceDataset,
    folder: Path,
    *,
    settings: ConversionOptions | None = None,
    division: SplitOptions | None = None,
    workers: int = 1,
) -> Conversion:
    """Convert all cases into the raw dataset ``folder`` (``.../DatasetXXX_Name``).

    ``dataset.json`` is written last, so that nnU-Net never sees an unfinished dataset. Finished cases are kept when
    the same conversion runs again.

    Raises:
        UserError: With every case that cannot be used and why; the others are finished and kept.
        WriteError: At the first file that could not be written.
    """
    division = division or SplitOptions()
    settings = settings or ConversionOptions()
    settings = replace(settings, label_map={**source.label_map, **settings.label_map})
    cases = _kept_cases(source.cases, division.exclude)
    tests, fixed_split = _divide(cases, division)
    if not {case.identifier for case in cases} - tests:
        raise UserError(
            f"no case is left to train on: all {len(cases)} are test cases or excluded.\n"
            "  Give training cases a label, and `train` where a table has a column `part`."
        )
    require_folder(
        folder,
        inputs={place.path for case in cases for place in case.sources()},
        record=dataset_files.RECORD,
        remedy="Choose another folder, --id or --name.",
    )
    suffix = _file_ending(cases, settings)
    jobs = [(case, Target(folder, "Ts" if case.identifier in tests else "Tr", suffix)) for case in cases]
    records, todo = _finished_before(jobs, folder, settings)
    kept = len(records)
    if todo:
        dataset_files.begin(folder, list(records.values()))
    rejected = _convert_all(todo, records, folder, workers)
    if rejected:
        raise UserError(_refusal(rejected, len(jobs)))
    ordered = [records[case.identifier] for case in cases]
    split_list = [fixed_split] if fixed_split else _folds(ordered, division)
    dataset_files.finish(folder, ordered, split_list, source, suffix)
    return Conversion(folder, ordered, kept, dataset_files.conflicting_splits(folder.name, split_list))


def _finished_before(jobs: Sequence[tuple[SourceCase, Target]], folder: Path, settings: ConversionOptions):
    """Records of the cases that an earlier run finished from the same sources and settings, and the jobs left."""
    earlier = {record["case"]: record for record in dataset_files.read_records(folder)}
    records, todo = {}, []
    for case, target in jobs:
        record = earlier.get(case.identifier)
        if record and record["fingerprint"] == fingerprint(case, settings, target) and still_there(record, folder):
            records[case.identifier] = record
        else:
            todo.append((case, target, settings))
    return records, todo


def _kept_cases(cases: Sequence[SourceCase], exclude: Sequence[str]) -> list[SourceCase]:
    unknown = sorted(set(exclude) - {case.identifier for case in cases})
    if unknown:
        known = ", ".join(case.identifier for case in cases[:3])
        raise UserError(f"--exclude {unknown[0]}: there is no such case. Cases are named like {known}.")
    return [case for case in cases if case.identifier not in exclude]


def _divide(cases: Sequence[SourceCase], division: SplitOptions) -> tuple[set[str], splits.Split | None]:
    """The test cases, and the one split where counts were asked for; rejects before any work is done."""
    tests = {case.identifier for case in cases if case.test}
    patient_of = {case.identifier: case.patient for case in cases if not case.test}
    if division.counts:
        split, drawn = splits.train_val_test_split(patient_of, division.counts, seed=division.seed)
        return tests | set(drawn), split
    _cross_validation(patient_of, division, stratum_of=dict.fromkeys(patient_of, False))
    return tests, None


def _file_ending(cases: Sequence[SourceCase], settings: ConversionOptions) -> str:
    """nnU-Net wants one ending per dataset: plain ``.nii`` only where all of it can be linked."""
    endings = {ending(source.path) for case in cases for source in case.sources()}
    return ".nii" if settings.link and endings == {".nii"} else ".nii.gz"


def _convert_all(todo: list, records: dict[str, dict], folder: Path, workers: int) -> dict[str, str]:
    """Convert, adding to ``records`` and saving them after each case; returns the rejected cases and why."""
    rejected = {}
    results = run_jobs(_convert, todo, workers=workers)
    for (case, *_), result in tqdm(results, total=len(todo), unit="case", desc=folder.name, disable=not todo):
        if isinstance(result, Exception):
            rejected[case.identifier] = explain_case(result)
        else:
            records[case.identifier] = result
            dataset_files.write_records(folder, list(records.values()))
    return rejected


def _convert(job: tuple[SourceCase, Target, ConversionOptions]) -> dict:
    return convert_case(*job)


def _refusal(rejected: dict[str, str], total: int) -> str:
    shown = "\n".join(f"  {case}: {reason}" for case, reason in sorted(rejected.items())[:_SHOWN])
    more = f"\n  ... and {len(rejected) - _SHOWN} more" if len(rejected) > _SHOWN else ""
    return (
        f"{len(rejected)} of {total} cases cannot be used; the dataset is not finished (no dataset.json).\n"
        f"{shown}{more}\n  Correct the files, or skip cases with --exclude, and run the same command again;"
        " finished cases are kept."
    )


def _folds(records: Sequence[dict], division: SplitOptions) -> list[splits.Split]:
    """Folds with alike shares of patients with tumors."""
    training = [record for record in records if record["part"] == "Tr"]
    patient_of = {record["case"]: record["patient"] for record in training}
    stratum_of = {record["case"]: record["tumor_ml"] > 0 for record in training}
    return _cross_validation(patient_of, division, stratum_of=stratum_of)


def _cross_validation(
    patient_of: Mapping[str, str], division: SplitOptions, *, stratum_of: Mapping[str, Hashable]
) -> list[splits.Split]:
    count = min(5, len(set(patient_of.values()))) if division.folds is None else division.folds
    if division.folds is None and count < 2:
        return []
    return splits.cross_validation_splits(patient_of, count, stratum_of=stratum_of, seed=division.seed)


def default_workers() -> int:
    """Half the processors, four at most: a 512x512x600 volume takes about 2 GB while it is checked."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))
