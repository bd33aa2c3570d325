"""Check an nnU-Net raw dataset before preprocessing and training."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nnunet_livseg.core.dataset_json import declared_values
from nnunet_livseg.core.errors import UserError, explain
from nnunet_livseg.core.findings import ERROR, WARNING, Finding, error, warning
from nnunet_livseg.core.labels import LIVER, TUMOR, Structures
from nnunet_livseg.core.workers import run_jobs
from nnunet_livseg.data.check_description import check_description, check_files
from nnunet_livseg.data.check_images import Rules, check_case
from nnunet_livseg.data.raw_dataset import RawCase, RawDataset

__all__ = ["ERROR", "WARNING", "Finding", "check_dataset"]

CASES_PER_PROCESS = 4  # fewer are checked sooner than a process has started


def check_dataset(folder: str | Path, *, processes: int = 1, progress: bool = False) -> list[Finding]:
    """All problems of the raw dataset in ``folder``; errors first, then by case.

    Args:
        folder: Folder with ``dataset.json``, ``imagesTr`` and ``labelsTr``.
        processes: Cases read at the same time; each needs the memory of one scan and its label map.
        progress: Show a progress bar.
    """
    try:
        dataset = RawDataset.open(folder)
    except UserError as problem:
        return [error("dataset.json", str(problem))]
    cases = dataset.cases()
    findings = [*check_description(dataset), *check_files(dataset, cases)]
    checksums: dict[int, str] = {}
    results = _results(cases, _rules(dataset), processes)
    for name, found, checksum in tqdm(results, total=len(cases), desc="check", unit="case", disable=not progress):
        findings += found
        if checksum is not None and checksums.setdefault(checksum, name) != name:
            findings.append(_copy(name, checksums[checksum]))
    return sorted(findings, key=lambda f: (f.severity != ERROR, f.case or "", f.kind))


def _rules(dataset: RawDataset) -> Rules:
    try:
        structures = dataset.structures
    except UserError:  # among the findings; what else can be asked of the voxels?
        structures = Structures({})
    return Rules(
        values=tuple(declared_values(dataset.labels)),
        liver=frozenset(structures.values.get(LIVER, ())),
        tumor=frozenset(structures.values.get(TUMOR, ())),
        ignore=structures.ignore,
        ct=tuple(name.casefold() == "ct" for name in dataset.channels),
    )


def _results(cases: list[RawCase], rules: Rules, processes: int) -> Iterator[tuple[str, list[Finding], int | None]]:
    """Name, findings and checksum of each case, in order of completion."""
    workers = min(processes, len(cases) // CASES_PER_PROCESS)
    for case, result in run_jobs(partial(check_case, rules=rules), cases, workers=workers):
        if isinstance(result, Exception):
            yield case.name, [error("not checked", f"{case.name}: {explain(result)}", case.name)], None
        else:
            yield case.name, *result


def _copy(name: str, other: str) -> Finding:
    first, second = sorted((name, other))
    return warning(
        "same image twice",
        f"{second}: the image equals that of {first} voxel for voxel; in two folds they would make validation look"
        " better than it is.\n  Remove one, or put both into the same fold.",
        second,
    )
