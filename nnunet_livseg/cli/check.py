"""check a raw dataset for errors before preprocessing and training

Looks at dataset.json (channel names, labels, regions), at the files of every case, and into every image and label map:
geometry, NaN, empty images, Hounsfield range, label values, damaged files. All problems are listed; the exit status is
1 if there is an error, and 0 if there are only warnings.

examples:
  livseg check 3
  livseg check nnUNet_raw/Dataset003_Liver -np 4 --json findings.json
"""

import sys
from argparse import ArgumentParser, Namespace

from nnunet_livseg.cli.shared_options import STANDARD_OUTPUT, add, counted, put_json

STEP = "data in"
FORMAT = 1
SHOWN_PER_KIND = 5


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of ``livseg check``."""
    parser.add_argument("dataset", metavar="DATASET", help="folder of a raw dataset, or its name or number")
    add(parser, "workers", default=2)
    add(parser, "json", says="text")
    parser.add_argument("--all", action="store_true", help=f"print all findings, not only {SHOWN_PER_KIND} of a kind")
    add(parser, "quiet")


def run(args: Namespace) -> int:
    """Check, print, and return 1 if there is an error."""
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.data.check_dataset import ERROR, check_dataset
    from nnunet_livseg.data.raw_dataset import find_raw_folder

    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: give at least 1.")
    folder = find_raw_folder(args.dataset)
    findings = check_dataset(folder, processes=args.workers, progress=not args.quiet and sys.stderr.isatty())
    errors = sum(finding.severity == ERROR for finding in findings)
    if args.json:
        content = {"format": FORMAT, "folder": str(folder), "errors": errors, "warnings": len(findings) - errors}
        put_json(args.json, {**content, "findings": [finding.as_dict() for finding in findings]})
    if args.json == STANDARD_OUTPUT:
        return 1 if errors else 0
    _show(findings, None if args.all else SHOWN_PER_KIND)
    counts = f"{counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}"
    print(f"{folder.name}: {counts if findings else 'no problem found'}")
    return 1 if errors else 0


def _show(findings: list, limit: int | None) -> None:
    shown: dict[tuple[str, str], int] = {}
    for finding in findings:
        key = (finding.severity, finding.kind)
        shown[key] = shown.get(key, 0) + 1
        if limit is None or shown[key] <= limit:
            print(f"{finding.severity}: {finding.message}")
    for (severity, kind), count in shown.items():
        if limit is not None and count > limit:
            print(f"{severity}: {kind}: {count - limit} more; --all prints them.")
