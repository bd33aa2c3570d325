"""A folder of predictions: evaluate every case, in parallel, resumable, and write all tables."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_json, write_text
from nnunet_livseg.core.labels import Structures
from nnunet_livseg.core.workers import WorkerDied, memory_need_bytes, run_jobs, worker_count
from nnunet_livseg.evaluation.case_evaluation import LITS_LABELS, CaseResult, evaluate_case
from nnunet_livseg.evaluation.case_table import read_case_table
from nnunet_livseg.evaluation.columns import column_rows
from nnunet_livseg.evaluation.csv_tables import case_rows, lesion_header, lesion_rows, summary_document, to_csv
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.pairing import CasePaths, Inputs, Problem, find_inputs
from nnunet_livseg.evaluation.store import case_file, case_key, load_case, save_case, to_json
from nnunet_livseg.evaluation.summary import summarise
from nnunet_livseg.evaluation.summary_markdown import summary_markdown

log = logging.getLogger(__name__)


@dataclass
class FolderResult:
    """Everything about one folder of predictions.

    Args:
        inputs: Pairs of files, meaning of the labels, method name.
        options: How it was evaluated.
        cases: Finished cases, in the order of their names.
        problems: Cases that were left out, and why.
        case_table: Case to column to text.
        summary: What ``summary.summarise`` makes of the cases.
        n_reused: Cases whose stored result was taken.
    """

    inputs: Inputs
    options: Options
    cases: list[CaseResult]
    problems: list[Problem]
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


def evaluate_folder(
    predictions: str | Path,
    references: str | Path | None = None,
    *,
    out: str | Path,
    liver: Iterable[int] = (),
    tumor: Iterable[int] = (),
    options: Options | None = None,
    images: str | Path | None = None,
    case_table: str | Path | None = None,
    method: str | None = None,
    workers: int | None = 1,
    memory_gb: float | None = None,
    progress: bool = False,
) -> FolderResult:
    """Evaluate all predictions that have a reference and write ``cases.csv``, ``lesions.csv``, ``summary.json``,
    ``summary.md``.

    Each finished case is stored at once as ``out/cases/CASE.json`` and taken from there by the next call, as long as
    its
    files and the options stay the same.

    Args:
        predictions: Folder of predictions, or of a training by nnU-Net (all folds' ``validation``).
        references: Folder of references; found for a training.
        out: Folder for the results.
        liver: Label values of the liver, instead of ``dataset.json``.
        tumor: Label values of the tumor.
        options: Definitions.
        images: Folder of the CTs, for pictures in the report.
        case_table: CSV file whose columns become strata.
        method: Name in tables; the folder's name where left out.
        workers: Processes at most; ``None``: as many as processors and memory allow. More than one are started anew, so
            a script that asks for them needs its ``if __name__ == "__main__":``.
        memory_gb: Memory for all workers; 80 % of what is free where left out.
        progress: Show a progress bar.

    Raises:
        UserError: The inputs do not fit together, or not one case could be evaluated.
    """
    out, options = Path(out), options or Options()
    fallback = LITS_LABELS if options.mode == "lits" else None
    inputs = find_inputs(predictions, references, liver=liver, tumor=tumor, images=images, fallback=fallback)
    inputs.method = method or inputs.method
    table = read_case_table(case_table, (paths.case for paths in inputs.cases)) if case_table else {}
    results, failed, n_reused = _run(inputs, options, out, workers=workers, memory_gb=memory_gb, progress=progress)
    results, odd = _one_unit(results)
    problems = sorted(inputs.problems + failed + odd, key=lambda problem: problem.case)
    if not results:
        raise UserError(
            "not one case could be evaluated:\n" + "\n".join(f"  {p.case}: {p.reason}" for p in problems[:10])
        )
    summary = summarise(results, options, table)
    result = FolderResult(inputs, options, results, problems, table, summary, n_reused)
    write_tables(result, out)
    return result


def write_tables(result: FolderResult, out: Path) -> None:
    """Write ``cases.csv``, ``lesions.csv``, ``columns.csv``, ``summary.json`` and ``summary.md``, each whole."""
    write_text(out / "cases.csv", to_csv(case_rows(result)))
    write_text(out / "lesions.csv", to_csv(lesion_rows(result), header=lesion_header(result)))
    write_text(out / "columns.csv", to_csv(column_rows(result)))
    write_json(out / "summary.json", to_json(summary_document(result)))
    write_text(out / "summary.md", summary_markdown(result))


def _run(
    inputs: Inputs, options: Options, out: Path, *, workers: int | None, memory_gb: float | None, progress: bool
) -> tuple[list[CaseResult], list[Problem], int]:
    done: dict[str, CaseResult] = {}
    todo: list[tuple[CasePaths, str]] = []
    for paths in inputs.cases:
        key = case_key(paths, inputs.structures, options)
        stored = load_case(out, paths.case, key)
        if stored is None:
            case_file(out, paths.case).unlink(missing_ok=True)  # a result of other inputs must not stand for this one
            todo.append((paths, key))
        else:
            done[paths.case] = stored
    n_reused, problems = len(done), []
    files = (path for paths, _ in todo for path in (paths.predicted, paths.reference))
    need = max(map(memory_need_bytes, files), default=1)
    n_workers = worker_count(len(todo), need, workers=workers, memory_gb=memory_gb)
    work = partial(_evaluate_and_store, structures=inputs.structures, options=options, out=out)
    bar = tqdm(total=len(inputs.cases), initial=n_reused, unit="case", desc=inputs.method, disable=not progress)
    with bar:
        for (paths, _), result in run_jobs(work, todo, workers=n_workers):
            bar.update()
            if isinstance(result, Exception):
                problems.append(Problem(paths.case, reason(result)))
                log.info("%s: %s", paths.case, getattr(result, "traceback_text", result))
            else:
                done[paths.case] = result
    return [done[case] for case in sorted(done)], problems, n_reused


def _evaluate_and_store(
    job: tuple[CasePaths, str], *, structures: Structures, options: Options, out: Path
) -> CaseResult:
    paths, key = job
    result = evaluate_case(paths.predicted, paths.reference, structures=structures, options=options, case=paths.case)
    result.fold = paths.fold
    save_case(out, result, key)
    return result


def reason(error: Exception) -> str:
    """Why a case was left out, for people; an error of the disk concerns every case and is raised."""
    if isinstance(error, (UserError, WorkerDied)):
        return str(error)
    if isinstance(error, MemoryError):
        return "there was not enough memory for this case"
    if isinstance(error, OSError):
        raise error  # a full disk or missing permission concerns every case
    return f"a fault of this program ({type(error).__name__}: {error}); please report it"


def _one_unit(results: list[CaseResult]) -> tuple[list[CaseResult], list[Problem]]:
    """Millimetres and pixels cannot be averaged: keep the kind that most cases have."""
    kinds = [(result.unit, result.ndim) for result in results]
    if len(set(kinds)) <= 1:
        return results, []
    main = max(set(kinds), key=kinds.count)
    odd = [result for result in results if (result.unit, result.ndim) != main]
    reason = "lengths in {} in {} dimensions, but most cases are in {} in {}"
    problems = [Problem(r.case, reason.format(r.unit, r.ndim, *main)) for r in odd]
    return [result for result in results if (result.unit, result.ndim) == main], problems
