"""check a raw dataset before hours are spent on it

Looks at dataset.json (channel names, labels, regions), at the files of every case, and into every image and label map:
geometry, NaN, empty images, Hounsfield range, label values, damaged files. All problems are listed; the exit status is
1 if there is an error, 0 if there are warnings only or nothing.

examples:
  livseg check 3
  livseg check nnUNet_raw/Dataset003_Liver -np 4 --json findings.json
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

FORMAT = 1
SHOWN_PER_KIND = 5


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of ``livseg check``."""
    add = parser.add_argument
    add("dataset", help="folder of a raw dataset, or its name or id in nnUNet_raw")
    add("-np", "--processes", type=int, default=2, help="cases read at the same time (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="also write all findings to FILE")
    add("--all", action="store_true", help=f"print all findings, not only {SHOWN_PER_KIND} of each kind")


def run(args: Namespace) -> int:
    """Check, print, and return 1 if there is an error."""
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.core.files import write_json
    from nnunet_livseg.data.check_dataset import ERROR, check_dataset
    from nnunet_livseg.data.raw_dataset import find_raw_folder

    if args.processes < 1:
        raise UserError(f"{args.processes} processes were asked for; give at least 1.")
    folder = find_raw_folder(args.dataset)
    findings = check_dataset(folder, processes=args.processes, progress=sys.stderr.isatty())
    errors = sum(finding.severity == ERROR for finding in findings)
    if args.json:
        content = {"format": FORMAT, "folder": str(folder), "errors": errors, "warnings": len(findings) - errors}
        write_json(args.json, {**content, "findings": [finding.as_dict() for finding in findings]})
    _show(findings, None if args.all else SHOWN_PER_KIND)
    counts = f"{_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}"
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
