"""convert LiTS, MSD Task03, 3D-IRCADb-01 or your own files into an nnU-Net raw dataset

Writes <nnUNet_raw>/DatasetXXX_Name with images, labels (liver 1, tumor 2), dataset.json, cases.csv (a table of all
cases), conversion.json (what was done to each case) and splits_final.json (splits by patient; nnU-Net's planning copies
it to <nnUNet_preprocessed>/DatasetXXX_Name, where its trainer reads it). The same command resumes an interrupted
conversion.

examples:
  livseg convert lits Task/LiTS --id 3 --cv-folds 4
  livseg convert folder cases.csv --id 5 --name OurLivers --copy
"""

import argparse
import os
import shlex
from pathlib import Path

from nnunet_livseg.cli.shared_options import add, counted

STEP = "data in"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg convert``."""
    parser.add_argument("kind", choices=("lits", "msd", "ircadb", "folder"), help="what SOURCE is")
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="folder of the source; for `folder` also a CSV table image,label,...",
    )
    add(parser, "id", required=True)
    add(parser, "name", says="by source, e.g. LiTS")
    add(parser, "out", says="the variable nnUNet_raw")
    divided = parser.add_mutually_exclusive_group()
    add(divided, "cv_folds", says="5, or one per patient")
    divided.add_argument(
        "--split", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"),
        help="numbers of patients, e.g. 88 22 20 (default: cross-validation)")  # fmt: skip
    add(parser, "seed", default=0)
    parser.add_argument(
        "--exclude", nargs="+", default=(), metavar="CASE", help="cases that are not converted (default: none)"
    )
    parser.add_argument(
        "--copy", action="store_true", help="copy files instead of linking them, so that the source can be deleted"
    )
    parser.add_argument(
        "--map",
        nargs="+",
        default=(),
        metavar="OLD=NEW",
        help="label values or names of segments to change, e.g. 3=2 (default: none)",
    )
    parser.add_argument(
        "--offset", type=float, default=0.0, metavar="HU",
        help="HU to add to images whose intercept is lost (default: 0)")  # fmt: skip
    add(parser, "workers", says="half the processors, at most 4")


def run(args: argparse.Namespace) -> None:
    """Convert and tell what was done and what comes next."""
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.data import convert
    from nnunet_livseg.data.convert.conversion import SplitOptions, default_workers
    from nnunet_livseg.data.convert.dataset_files import dataset_folder

    label_map = _label_map(args.map)
    if not args.source.exists():
        raise UserError(f"{args.source} does not exist. Correct the path.")
    if not args.source.is_dir() and args.kind != "folder":
        raise UserError(f"{args.source} is not a folder. Unpack the dataset, and give its folder.")
    source = convert.SOURCES[args.kind](args.source)
    folder = dataset_folder(args.out, args.id, args.name or source.default_name)
    done = convert.convert(
        source,
        folder,
        settings=convert.ConversionOptions(not args.copy, args.offset, label_map),
        division=SplitOptions(args.cv_folds, tuple(args.split) if args.split else None, args.seed, tuple(args.exclude)),
        workers=args.workers or default_workers(),
    )
    print(_summary(done, args.id, source.remarks))


def _label_map(pairs: list[str]) -> dict[int | str, int]:
    from nnunet_livseg.core.errors import UserError

    try:
        parts = [pair.rsplit("=", 1) for pair in pairs]
        mapping = {int(old) if old.isdigit() else old: int(new) for old, new in parts}
    except ValueError as error:
        raise UserError(f"--map {' '.join(pairs)}: write pairs such as --map 3=2 4=1, or --map 'Cyst=0'.") from error
    wrong = [new for new in mapping.values() if new not in (0, 1, 2)]
    if wrong:
        raise UserError(f"--map: {wrong[0]} is not a label of the dataset; use 0 (background), 1 (liver) or 2 (tumor).")
    return mapping


def _summary(done, dataset_id: int, remarks: tuple[str, ...]) -> str:
    noted = [record for record in done.records if record["notes"]]
    how = [record["image"]["how"] for record in done.records]
    tests = sum(record["part"] == "Ts" for record in done.records)
    lines = [
        f"{done.folder}: {counted(len(done.records), 'case')}, {tests} of them for testing"
        + (f"; {done.kept} were finished before" if done.kept else ""),
        "  images: " + ", ".join(f"{how.count(kind)} {kind}" for kind in dict.fromkeys(how)),
    ]
    lines += [f"  {record['case']}: {'; '.join(record['notes'])}" for record in noted[:5]]
    lines += [f"  ... notes on {len(noted) - 5} more cases in cases.csv"] if len(noted) > 5 else []
    lines += [f"  {remark}" for remark in remarks]
    if done.splits_conflict:
        lines.append(
            f"Other splits are in {done.splits_conflict}, and nnU-Net's trainer reads that file.\n"
            f"  Copy {done.folder / 'splits_final.json'} over it, unless trainings on the old splits are still needed."
        )
    raw = done.folder.parent.absolute()
    if Path(os.environ.get("nnUNet_raw", "")).absolute() != raw:  # noqa: SIM112 - nnU-Net's own name
        lines.append(f"Next: export nnUNet_raw={shlex.quote(str(raw))}")
    lines.append(f"Next: nnUNetv2_plan_and_preprocess -d {dataset_id} --verify_dataset_integrity")
    if not (done.folder / "splits_final.json").is_file():
        lines.append(
            f"Train with fold all, as there is one patient: nnUNetv2_train {dataset_id} 3d_fullres all -tr TRAINER"
        )
    return "\n".join(lines)
