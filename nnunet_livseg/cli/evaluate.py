"""Evaluate predictions against references: every metric, lesion by lesion, tables and a report

  livseg evaluate PREDICTIONS REFERENCES --out DIR
  livseg evaluate PREDICTIONS REFERENCES --liver 1 --tumor 2 --out DIR
  livseg evaluate nnUNet_results/Dataset003_Liver/DPCNetTrainer__nnUNetPlans__3d_fullres --out DIR

PREDICTIONS is a folder of label maps, or the folder of a training (all folds' validation cases are taken, the
references are found). Finished cases are kept: run the same command again after an interruption.
Exit status: 0 all cases evaluated, 3 some cases were left out (they are named), 1 nothing could be done.
"""

import argparse
from pathlib import Path

LEFT_OUT = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("predictions", type=Path, help="folder of predicted label maps, or of a training")
    parser.add_argument("references", type=Path, nargs="?", help="folder of reference label maps")
    parser.add_argument("--name", help="name of the method in tables (default: the folder's name)")
    add_shared_arguments(parser)


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``evaluate`` and ``compare`` have in common."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--mode", choices=("default", "lits"), default="default", help="lits: the 2017 LiTS scorer")
    parser.add_argument("--liver", type=int, nargs="+", default=(), metavar="LABEL", help="label values of the liver")
    parser.add_argument("--tumor", type=int, nargs="+", default=(), metavar="LABEL", help="label values of the tumor")
    parser.add_argument("--resample", action="store_true", help="bring predictions on other grids to the reference's")
    parser.add_argument("--case-table", type=Path, metavar="CSV", help="columns of this table become strata")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the CTs, for pictures in the report")
    parser.add_argument(
        "--table", action="append", default=[], metavar="NAME", help="also a paper's table: dpcnet-4, ..."
    )
    parser.add_argument("--tolerance", type=float, nargs="+", metavar="MM", help="tolerances of the surface Dice (2)")
    parser.add_argument(
        "--nsd", choices=("area", "voxels"), help="surface Dice weighted by area (default) or by voxels"
    )
    parser.add_argument("--hd95", choices=("max", "pooled"), help="larger directed percentile (default) or pooled one")
    parser.add_argument("--surface", type=int, choices=(6, 18, 26), help="neighbourhood of the surface (6)")
    parser.add_argument("--connectivity", type=int, choices=(6, 18, 26), help="neighbourhood of a lesion (6)")
    parser.add_argument("--diameters", type=float, nargs="+", metavar="MM", help="borders of lesion strata (10 20)")
    parser.add_argument("--slices", action="store_true", help="also score axial slices in pixels (mfcnet-1 wants it)")
    parser.add_argument("--worst", choices=("diagonal",), help="image diagonal in place of infinite distances")
    parser.add_argument("--workers", type=int, help="processes at most (default: by processors and free memory)")
    parser.add_argument("--memory-gb", type=float, help="memory for all processes (default: 80 %% of what is free)")
    parser.add_argument("--no-report", action="store_true", help="tables only, no report.html")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def settings(args: argparse.Namespace) -> dict:
    """The arguments that ``evaluate_folder`` and ``compare`` share."""
    from nnunet_livseg.evaluation.options import Options

    chosen = {
        "mode": args.mode,
        "surface_neighbours": args.surface,
        "lesion_neighbours": args.connectivity,
        "hd95": args.hd95,
        "nsd": args.nsd,
        "tolerances": args.tolerance,
        "worst": args.worst,
        "diameter_edges": args.diameters,
        "resample": args.resample,
        "slices": args.slices,
    }
    return {
        "out": args.out,
        "liver": args.liver,
        "tumor": args.tumor,
        "options": Options(**{name: value for name, value in chosen.items() if value is not None}),
        "images": args.images,
        "case_table": args.case_table,
        "workers": args.workers,
        "memory_gb": args.memory_gb,
        "progress": not args.quiet,
    }


def run(args: argparse.Namespace) -> int:
    from nnunet_livseg.evaluation.folder_evaluation import evaluate_folder
    from nnunet_livseg.evaluation.printed_tables import paper_table
    from nnunet_livseg.evaluation.summary_markdown import structure_table

    tables = [paper_table(name) for name in args.table]  # a wrong name is said before the work
    result = evaluate_folder(args.predictions, args.references, method=args.name, **settings(args))
    # everything is written before anything is printed: a closed pipe costs no file
    texts = write_paper_tables(tables, [result], args.out)
    if not args.no_report:
        from nnunet_livseg.report.evaluation_report import write_report

        write_report(result, args.out / "report.html")
    print(f"\n{result.method}: {len(result.cases)} cases, {result.n_reused} of them taken from {args.out / 'cases'}\n")
    print(structure_table(result), *texts, sep="\n")
    return finish([result], args.out)


def write_paper_tables(tables: list, results: list, out: Path, comparison: object = None) -> list[str]:
    """Write each table of a paper to ``out``; returns their texts."""
    from nnunet_livseg.core.files import write_text
    from nnunet_livseg.evaluation.printed_tables import render

    texts = [render(table, results, comparison=comparison) for table in tables]
    for table, text in zip(tables, texts, strict=True):
        write_text(out / f"table_{table.name}.md", text)
    return texts


def finish(results: list, out: Path) -> int:
    """Say what was left out and where the results are; the exit status."""
    problems = [(result.method, problem) for result in results for problem in result.problems]
    for method, problem in problems[:20]:
        print(f"left out: {method}: {problem.case}: {problem.reason}")
    if len(problems) > 20:
        print(f"  and {len(problems) - 20} more, all in summary.json")
    notes = _notes(results)
    print(*(f"note: {note}" for note in notes[:20]), sep="\n", end="\n" if notes else "")
    if len(notes) > 20:
        print(f"  and {len(notes) - 20} more, all in summary.md")
    print(f"written to {out}")
    return LEFT_OUT if problems else 0


def _notes(results: list) -> list[str]:
    """What a reader should know, each note once and with the cases that it is about."""
    cases: dict[str, list[str]] = {note: [] for result in results for note in result.inputs.notes}
    for case in (case for result in results for case in result.cases):
        for note in case.notes:
            cases.setdefault(note, []).append(case.case)
    several = {note: f"{len(found)} cases, such as " for note, found in cases.items() if len(found) > 1}
    return [several.get(note, "") + "".join(f"{case}: " for case in found[:1]) + note for note, found in cases.items()]
