"""Compare methods on the same cases: paired tests, intervals, noise floor, ranking

  livseg compare PREDICTIONS_A PREDICTIONS_B REFERENCES --out DIR
  livseg compare TRAINING_A TRAINING_B --out DIR

The last folder holds the references, unless all folders are trainings by nnU-Net. A value is printed bold only where it
differs significantly from every other method's and by more than the noise between two runs of one method.
Exit status: 0 all cases compared, 3 some were left out (they are named), 1 nothing could be done.
"""

import argparse
from pathlib import Path

from nnunet_livseg.cli.evaluate import add_shared_arguments, finish, settings, write_paper_tables
from nnunet_livseg.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", help="folders of predictions, then the folder of references")
    parser.add_argument("--names", nargs="+", help="names of the methods in tables (default: the folders' names)")
    parser.add_argument("--folds", type=int, help="folds behind the predictions: 5 lowers the noise floor")
    add_shared_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from nnunet_livseg.evaluation.comparison import compare
    from nnunet_livseg.evaluation.comparison_tables import comparison_markdown
    from nnunet_livseg.evaluation.printed_tables import paper_table

    tables = [paper_table(name) for name in args.table]
    methods, references = _split(args.folders)
    comparison = compare(methods, references, names=args.names, folds=args.folds, **settings(args))
    texts = write_paper_tables(tables, comparison.methods, args.out, comparison)
    if not args.no_report:
        from nnunet_livseg.report.comparison_report import write_comparison_report
        from nnunet_livseg.report.evaluation_report import write_report

        write_comparison_report(comparison, args.out / "report.html")
        for result in comparison.methods:
            write_report(result, args.out / result.method / "report.html")
    print("", comparison_markdown(comparison), *texts, sep="\n")
    status = finish(comparison.methods, args.out)
    for case, lacking in comparison.left_out.items():
        print(f"left out of the comparison: {case}, which {', '.join(lacking)} lacks")
    return status or (3 if comparison.left_out else 0)


def _split(folders: list[Path]) -> tuple[list[Path], Path | None]:
    if all(any(folder.glob("fold_*/validation")) for folder in folders):
        return folders, None
    if len(folders) < 3:
        given = ", ".join(map(str, folders))
        raise UserError(f"a comparison needs two folders of predictions and one of references, but got {given}")
    return folders[:-1], folders[-1]
