"""compare methods on the same cases: paired tests, intervals, run-to-run noise, ranking

  livseg compare PREDICTIONS_A PREDICTIONS_B REFERENCES -o OUT
  livseg compare MODEL_FOLDER_A MODEL_FOLDER_B -o OUT

The last folder holds the references, unless all are model folders of nnU-Net. A value is printed bold only if it
differs significantly from every other method's and by more than the noise between two runs of one method.
"""

import argparse
from pathlib import Path

from nnunet_livseg.cli.evaluate import add_evaluation_options, print_notes, settings, skipped_cases, write_paper_tables
from nnunet_livseg.cli.shared_options import add, finish
from nnunet_livseg.core.errors import UserError

STEP = "evaluate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg compare``."""
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="folders of predictions, then the folder of references"
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="names of the methods in tables (default: the folders' names)"
    )
    add(parser, "cv_folds", says="counted in model folders, else 1")
    add_evaluation_options(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, write everything, and print the table."""
    from nnunet_livseg.evaluation.comparison import compare
    from nnunet_livseg.evaluation.comparison_tables import comparison_markdown
    from nnunet_livseg.evaluation.printed_tables import paper_table

    tables = [paper_table(name) for name in args.table]
    methods, references = _split(args.folders)
    comparison = compare(methods, references, names=args.names, folds=args.cv_folds, **settings(args))
    texts = write_paper_tables(tables, comparison.methods, args.out, comparison)
    if not args.no_report:
        from nnunet_livseg.report.comparison_report import write_comparison_report
        from nnunet_livseg.report.evaluation_report import write_report

        write_comparison_report(comparison, args.out / "report.html")
        for result in comparison.methods:
            write_report(result, args.out / result.method / "report.html")
    print("", comparison_markdown(comparison), *texts, sep="\n")
    print_notes(comparison.methods)
    lacking = [f"{case}: not compared, {', '.join(names)} lacks it" for case, names in comparison.left_out.items()]
    return finish([*skipped_cases(comparison.methods), *lacking], args.out, more=", all in the summary.json files")


def _split(folders: list[Path]) -> tuple[list[Path], Path | None]:
    if all(any(folder.glob("fold_*/validation")) for folder in folders):
        return folders, None
    if len(folders) < 3:
        given = ", ".join(map(str, folders))
        raise UserError(f"a comparison needs two folders of predictions and one of references, but got {given}")
    return folders[:-1], folders[-1]
