"""evaluate predictions against references: every metric, lesion by lesion, tables and a report

  livseg evaluate PREDICTIONS REFERENCES -o OUT
  livseg evaluate PREDICTIONS REFERENCES --liver 1 --tumor 2 -o OUT
  livseg evaluate PREDICTIONS REFERENCES --liver 1 --tumor 2 --reference-liver 6 --reference-tumor 7 -o OUT
  livseg evaluate nnUNet_results/Dataset003_Liver/DPCNetTrainer__nnUNetPlans__3d_fullres -o OUT

PREDICTIONS is a folder of label maps, or a model folder: then the validation cases of all folds are evaluated against
the references of the training. Finished cases are kept: run the same command again after an interruption.
"""

import argparse
from pathlib import Path

from nnunet_livseg.cli.shared_options import add, counted, finish

STEP = "evaluate"
NEIGHBORS = (6, 18, 26)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg evaluate``."""
    parser.add_argument(
        "predictions", type=Path, metavar="PREDICTIONS", help="folder of predicted label maps, or a model folder"
    )
    parser.add_argument(
        "references", type=Path, nargs="?", metavar="REFERENCES",
        help="folder of reference label maps (default: those of the training)")  # fmt: skip
    add(parser, "name", says="the folder's name")
    add_evaluation_options(parser)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """What ``evaluate`` and ``compare`` have in common."""
    add(parser, "out", required=True)
    parser.add_argument(
        "--mode", choices=("default", "lits"), default="default",
        help="lits: metrics as the LiTS scorer of 2017 computes them (default: default)")  # fmt: skip
    add(parser, "liver", "tumor", default=(), says="by dataset.json, names in the files, or a guess that is printed")
    for structure in ("liver", "tumor"):
        parser.add_argument(
            f"--reference-{structure}", type=int, nargs="+", default=(), metavar="LABEL",
            help=f"label values of the {structure} in the references (default: as in the predictions)")  # fmt: skip
    parser.add_argument("--resample", action="store_true", help="resample predictions on other grids to the reference")
    parser.add_argument(
        "--case-table", type=Path, metavar="CSV", help="table whose columns become strata of the cases (default: none)"
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER",
        help="folder of the CTs, for pictures in the report (default: imagesTr beside the references)")  # fmt: skip
    parser.add_argument(
        "--table", action="append", default=[], metavar="NAME",
        help="table of a paper to write too, e.g. dpcnet-4; may be repeated (default: none)")  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, nargs="+", metavar="MM", help="tolerances of the surface Dice in mm (default: 2)"
    )
    parser.add_argument(
        "--nsd", choices=("area", "voxels"), help="weight of surfaces in the surface Dice (default: area)"
    )
    parser.add_argument(
        "--hd95", choices=("max", "pooled"),
        help="max of the two directed percentiles, or the percentile of all distances (default: max)")  # fmt: skip
    parser.add_argument(
        "--surface-connectivity", type=int, choices=NEIGHBORS, help="neighbors that define a surface (default: 6)"
    )
    parser.add_argument(
        "--lesion-connectivity", type=int, choices=NEIGHBORS, help="neighbors that join voxels to a lesion (default: 6)"
    )
    parser.add_argument(
        "--diameter-edges", type=float, nargs="+", metavar="MM",
        help="diameters in mm that separate the strata of lesions (default: 10 20)")  # fmt: skip
    parser.add_argument("--slices", action="store_true", help="score axial slices in pixels too, as mfcnet-1 needs it")
    parser.add_argument(
        "--worst", choices=("diagonal",), help="replacement of infinite distances in means (default: none)"
    )
    add(parser, "workers", says="by processors and free memory")
    parser.add_argument(
        "--memory-gb", type=float, metavar="GB", help="memory for all workers (default: 80 %% of the free memory)"
    )
    add(parser, "no_report", "quiet")


def settings(args: argparse.Namespace) -> dict:
    """The arguments that ``evaluate_folder`` and ``compare`` share."""
    from nnunet_livseg.evaluation.options import Options

    chosen = {
        "mode": args.mode,
        "surface_connectivity": args.surface_connectivity,
        "lesion_connectivity": args.lesion_connectivity,
        "hd95": args.hd95,
        "nsd": args.nsd,
        "tolerances": args.tolerance,
        "worst": args.worst,
        "diameter_edges": args.diameter_edges,
        "resample": args.resample,
        "slices": args.slices,
    }
    return {
        "out": args.out,
        "liver": args.liver,
        "tumor": args.tumor,
        "reference_liver": args.reference_liver,
        "reference_tumor": args.reference_tumor,
        "on_guess": print,
        "options": Options(**{name: value for name, value in chosen.items() if value is not None}),
        "images": args.images,
        "case_table": args.case_table,
        "workers": args.workers,
        "memory_gb": args.memory_gb,
        "progress": not args.quiet,
    }


def run(args: argparse.Namespace) -> int:
    """Evaluate, write everything, and print the tables."""
    from nnunet_livseg.evaluation.folder_evaluation import evaluate_folder
    from nnunet_livseg.evaluation.printed_tables import paper_table
    from nnunet_livseg.evaluation.summary_markdown import structure_table

    tables = [paper_table(name) for name in args.table]  # a wrong name is reported before the work
    result = evaluate_folder(args.predictions, args.references, method=args.name, **settings(args))
    # everything is written before anything is printed: a closed pipe costs no file
    texts = write_paper_tables(tables, [result], args.out)
    if not args.no_report:
        from nnunet_livseg.report.evaluation_report import write_report

        write_report(result, args.out / "report.html")
    cases = counted(len(result.cases), "case")
    print(f"\n{result.method}: {cases}, {result.n_reused} of them taken from {args.out / 'cases'}\n")
    print(structure_table(result), *texts, sep="\n")
    print_notes([result])
    return finish(skipped_cases([result]), args.out, more=", all in summary.json")


def write_paper_tables(tables: list, results: list, out: Path, comparison: object = None) -> list[str]:
    """Write each table of a paper to ``out``; returns their texts."""
    from nnunet_livseg.core.files import write_text
    from nnunet_livseg.evaluation.printed_tables import render

    texts = [render(table, results, comparison=comparison) for table in tables]
    for table, text in zip(tables, texts, strict=True):
        write_text(out / f"table_{table.name}.md", text)
    return texts


def skipped_cases(results: list) -> list[str]:
    """One line for each case that could not be evaluated."""
    return [f"{result.method}: {problem.case}: {problem.reason}" for result in results for problem in result.problems]


def print_notes(results: list, *, shown: int = 20) -> None:
    """What a reader should know, the first few."""
    notes = _notes(results)
    print(*(f"note: {note}" for note in notes[:shown]), sep="\n", end="\n" if notes else "")
    if len(notes) > shown:
        print(f"  and {len(notes) - shown} more, all in summary.md")


def _notes(results: list) -> list[str]:
    """What a reader should know, each note once and with the cases that it is about; guesses were printed before."""
    inputs = [result.inputs for result in results]
    cases: dict[str, list[str]] = {note: [] for one in inputs for note in one.notes if note not in one.guess}
    for case in (case for result in results for case in result.cases):
        for note in case.notes:
            cases.setdefault(note, []).append(case.case)
    several = {note: f"{len(found)} cases, such as " for note, found in cases.items() if len(found) > 1}
    return [several.get(note, "") + "".join(f"{case}: " for case in found[:1]) + note for note, found in cases.items()]
