"""A folder of predictions: evaluate every case, in parallel, resumable, and write all tables."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nnunet_livseg.core.errors import UserError, explain_case
from nnunet_livseg.core.files import digest, read_json, stamps, with_floats, write_json, write_text
from nnunet_livseg.core.labels import Structures
from nnunet_livseg.core.output_folder import require_folder, require_nothing_foreign
from nnunet_livseg.core.tables import csv_text
from nnunet_livseg.core.workers import run_jobs, worker_count
from nnunet_livseg.evaluation.case_evaluation import LITS_LABELS, evaluate_case
from nnunet_livseg.evaluation.case_table import apart_from, read_case_table
from nnunet_livseg.evaluation.csv_tables import case_rows, column_rows, lesion_header, lesion_rows, summary_document
from nnunet_livseg.evaluation.label_meaning import LabelValues
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.pairing import find_inputs
from nnunet_livseg.evaluation.results import SCHEMA, CasePaths, CaseResult, FolderResult, Inputs, SkippedCase
from nnunet_livseg.evaluation.summary import summarize
from nnunet_livseg.evaluation.summary_markdown import summary_markdown
from nnunet_livseg.imaging.images import case_memory_bytes

SUMMARY = "summary.json"
TABLES = ("cases.csv", "lesions.csv", "columns.csv", "summary.md", "report.html")  # with the page of the command


def evaluate_folder(
    predictions: str | Path,
    references: str | Path | None = None,
    *,
    out: str | Path,
    liver: Iterable[int] = (),
    tumor: Iterable[int] = (),
    reference_liver: Iterable[int] = (),
    reference_tumor: Iterable[int] = (),
    options: Options | None = None,
    images: str | Path | None = None,
    case_table: str | Path | None = None,
    method: str | None = None,
    folds: Sequence[str] = (),
    workers: int | None = 1,
    memory_gb: float | None = None,
    progress: bool = False,
    on_guess: Callable[[str], None] | None = None,
) -> FolderResult:
    """Evaluate all predictions that have a reference and write ``cases.csv``, ``lesions.csv``, ``summary.json``,
    ``summary.md``.

    Finished cases are saved to ``out/cases/CASE.json`` and reused by the next call, as long as their files and the
    options stay the same.

    Args:
        predictions: Folder of predictions, or a model folder (the ``validation`` cases of all folds).
        references: Folder of references. For a model folder, defaults to those of its dataset.
        out: Folder for the results.
        liver: Label values of the liver. Defaults to those in ``dataset.json`` or the files, or to a guess.
        tumor: Label values of the tumor, likewise.
        reference_liver: Label values of the liver in the references, if they differ from the predictions'.
        reference_tumor: The same of the tumor.
        options: Definitions. Defaults to those of the package.
        images: Folder of the CTs, for pictures in the report.
        case_table: CSV file whose columns become strata.
        method: Name in tables. Defaults to the folder's name.
        folds: Folds of a model folder. Defaults to all.
        workers: Largest number of processes; ``None``: as many as processors and memory allow. They are started anew,
            so a script that asks for more than one needs ``if __name__ == "__main__":``.
        memory_gb: Memory for all workers. Defaults to 80 % of the free memory.
        progress: Show a progress bar.
        on_guess: Called with what the labels were taken for, before the work begins, if that is a guess.

    Raises:
        UserError: If the inputs do not fit together, no case can be evaluated, or ``out`` has another program's
            ``summary.json``.
    """
    out, options = require_folder(out), options or Options()
    _require_own_summary(out)
    fallback = LITS_LABELS if options.mode == "lits" else None
    values = LabelValues(tuple(liver), tuple(tumor), tuple(reference_liver), tuple(reference_tumor))
    inputs = find_inputs(predictions, references, values=values, images=images, fallback=fallback, folds=folds)
    if inputs.guess and on_guess:
        on_guess("\n".join(inputs.guess))
    inputs.notes = [*inputs.notes, *inputs.guess]
    inputs.method = method or inputs.method
    table = read_case_table(case_table, (paths.case for paths in inputs.cases)) if case_table else {}
    results, failed, n_reused = _run(inputs, options, out, workers=workers, memory_gb=memory_gb, progress=progress)
    results, odd = _one_unit(results)
    problems = sorted(inputs.problems + failed + odd, key=lambda problem: problem.case)
    if not results:
        raise UserError("no case could be evaluated:\n" + "\n".join(f"  {p.case}: {p.reason}" for p in problems[:10]))
    result = FolderResult(inputs, options, results, problems, {}, {}, n_reused)
    own = {name for row in case_rows(result) for name in row} | set(lesion_header(result))
    result.case_table, renamed = apart_from(own, table)
    inputs.notes = [*inputs.notes, *renamed]
    result.summary = summarize(results, options, result.case_table)
    write_tables(result, out)
    return result


def _require_own_summary(out: Path) -> None:
    """Keep files that are not an evaluation's, such as nnU-Net's ``summary.json``, from being replaced."""
    path = out / SUMMARY
    if not path.exists():
        begun = any(out.glob("cases/*.json"))
        require_nothing_foreign(out, TABLES, record=SUMMARY, made_before=begun)
        return
    try:
        schema = str(read_json(path, remedy="").get("schema", ""))
    except UserError:
        schema = ""
    if not schema.startswith(SCHEMA.partition("/")[0]):
        raise UserError(
            f"{path} was not written by livseg evaluate; nnU-Net writes a file of this name. The evaluation would"
            f" replace it.\n  Choose another folder, such as {out / 'evaluation'}."
        )


def write_tables(result: FolderResult, out: Path) -> None:
    """Write ``cases.csv``, ``lesions.csv``, ``columns.csv``, ``summary.json`` and ``summary.md``, each whole."""
    write_text(out / "cases.csv", csv_text(case_rows(result)))
    write_text(out / "lesions.csv", csv_text(lesion_rows(result), header=lesion_header(result)))
    write_text(out / "columns.csv", csv_text(column_rows(result)))
    write_json(out / SUMMARY, summary_document(result))
    write_text(out / "summary.md", summary_markdown(result))


def _run(
    inputs: Inputs, options: Options, out: Path, *, workers: int | None, memory_gb: float | None, progress: bool
) -> tuple[list[CaseResult], list[SkippedCase], int]:
    done: dict[str, CaseResult] = {}
    todo: list[tuple[CasePaths, str]] = []
    for paths in inputs.cases:
        key = _case_key(paths, inputs.structures, options)
        stored = _load_case(out, paths.case, key)
        if stored is None:
            case_file(out, paths.case).unlink(missing_ok=True)  # a result of other inputs must not stand for this one
            todo.append((paths, key))
        else:
            done[paths.case] = stored
    n_reused, problems = len(done), []
    files = (path for paths, _ in todo for path in (paths.predicted, paths.reference))
    need = max(map(case_memory_bytes, files), default=1)
    n_workers = worker_count(len(todo), need, workers=workers, memory_gb=memory_gb)
    work = partial(_evaluate_and_store, structures=inputs.structures, options=options, out=out)
    bar = tqdm(total=len(inputs.cases), initial=n_reused, unit="case", desc=inputs.method, disable=not progress)
    with bar:
        for (paths, _), result in run_jobs(work, todo, workers=n_workers):
            bar.update()
            if isinstance(result, Exception):
                problems.append(SkippedCase(paths.case, explain_case(result)))
            else:
                done[paths.case] = result
    return [done[case] for case in sorted(done)], problems, n_reused


def _evaluate_and_store(
    job: tuple[CasePaths, str], *, structures: Structures, options: Options, out: Path
) -> CaseResult:
    paths, key = job
    result = evaluate_case(paths.predicted, paths.reference, structures=structures, options=options, case=paths.case)
    result.fold = paths.fold
    write_json(case_file(out, result.case), {"schema": SCHEMA, "key": key, **result.as_dict()})
    return result


def _case_key(paths: CasePaths, structures: Structures, options: Options) -> str:
    """Changes when a file, the meaning of the labels, an option or the schema changes."""
    files = stamps((paths.predicted, paths.reference))
    return digest([SCHEMA, files, paths.fold, structures.as_dict(), options.as_dict()])


def case_file(out: Path, case: str) -> Path:
    """Where the result of a finished case lies."""
    return out / "cases" / f"{case}.json"


def _load_case(out: Path, case: str, key: str) -> CaseResult | None:
    """The stored result of a case, or ``None`` where there is none or its inputs have changed since."""
    try:
        content = with_floats(read_json(case_file(out, case), remedy=""))
    except UserError:
        return None
    if content.pop("key", None) != key or content.pop("schema", None) != SCHEMA:
        return None
    return CaseResult(**content)


def _one_unit(results: list[CaseResult]) -> tuple[list[CaseResult], list[SkippedCase]]:
    """Millimeters and pixels cannot be averaged: keep the kind that most cases have."""
    kinds = [(result.unit, result.ndim) for result in results]
    if len(set(kinds)) <= 1:
        return results, []
    main = max(set(kinds), key=kinds.count)
    odd = [result for result in results if (result.unit, result.ndim) != main]
    reason = "its lengths are in {} in {}D, but those of most cases are in {} in {}D, and cannot be averaged with them"
    problems = [SkippedCase(r.case, reason.format(r.unit, r.ndim, *main)) for r in odd]
    return [result for result in results if (result.unit, result.ndim) == main], problems
