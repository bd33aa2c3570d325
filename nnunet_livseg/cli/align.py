"""register contrast phases to the primary phase, for one case or as a multi-channel nnU-Net dataset

  livseg align venous.nii.gz arterial.nii.gz -o OUT   one case: OUT/venous_0000.nii.gz, _0001.nii.gz, numbers, picture
  livseg align phases.csv --id 4                      a dataset; columns: case,patient,venous,arterial,label,mask

Registration does not use reference labels. You may give liver masks that a model has predicted: --mask (or the column
`mask`) for the primary phase, and --other-masks (or the columns `mask_<phase>`) for the others, which
--method deformable-livers needs. Only --method tumor-center, the alignment of Zhang et al. 2021, USES REFERENCE LABELS:
use it to replicate the paper and for nothing else.
"""

import argparse
from pathlib import Path

from nnunet_livseg.cli.shared_options import add

STEP = "data in"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg align``."""
    parser.add_argument(
        "inputs", type=Path, nargs="+", metavar="INPUT", help="primary phase and the others, or one CSV table"
    )
    methods = ("none", "rigid", "deformable", "deformable-livers", "tumor-center")
    parser.add_argument("--method", default="rigid", choices=methods, help="kind of registration (default: rigid)")
    single = parser.add_argument_group("one case")
    add(single, "out")
    single.add_argument("--mask", type=Path, metavar="FILE", help="liver mask on the primary phase (default: none)")
    single.add_argument(
        "--other-masks", type=Path, nargs="+", default=(), metavar="FILE",
        help="liver masks on the other phases, with --mask (default: none)")  # fmt: skip
    single.add_argument(
        "--labels", type=Path, nargs="+", default=(), metavar="FILE",
        help="label maps of all phases, for tumor-center (default: none)")  # fmt: skip
    dataset = parser.add_argument_group("a dataset")
    add(dataset, "id")
    add(dataset, "name", says="LiverPhases")
    add(dataset, "raw", says="the variable nnUNet_raw")
    dataset.add_argument("--primary", metavar="COLUMN", help="column of the primary phase (default: the first)")
    add(dataset, "cv_folds", says="5, or one per patient")
    add(dataset, "seed", default=0)
    add(dataset, "workers", default=1)


def run(args: argparse.Namespace) -> None:
    """Align one case or a table of cases."""
    from nnunet_livseg.core.errors import UserError

    if len(args.inputs) == 1 and args.inputs[0].suffix.lower() == ".csv":
        if args.id is None:
            raise UserError("a table of cases becomes a dataset: give its number with --id.")
        _dataset(args)
        return
    if len(args.inputs) < 2:
        raise UserError("give the primary phase and at least one other, or one CSV table.")
    if args.out is None:
        raise UserError("give the folder for the aligned case with -o.")
    _single(args)


def _dataset(args: argparse.Namespace) -> None:
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.data.convert import phase_table
    from nnunet_livseg.data.convert.conversion import ConversionOptions, SplitOptions, convert
    from nnunet_livseg.data.convert.dataset_files import dataset_folder

    if not args.inputs[0].is_file():
        raise UserError(f"{args.inputs[0]} does not exist. Correct the path.")
    source = phase_table.find(args.inputs[0], args.primary)
    folder = dataset_folder(args.raw, args.id, args.name or source.default_name)
    done = convert(
        source,
        folder,
        settings=ConversionOptions(align=args.method),
        division=SplitOptions(args.cv_folds, seed=args.seed),
        workers=args.workers,
    )
    print(f"{done.folder}: {len(done.records)} cases with the phases {', '.join(source.phases)}")
    for record in done.records:
        for channel in range(1, len(source.phases)):
            print(f"  {record['case']}, {source.phases[channel]}: {_spelled(record[f'phase_{channel}'])}")
    print(f"Look at the pictures in {done.folder / 'alignment'}.")
    print(f"Next: nnUNetv2_plan_and_preprocess -d {args.id} --verify_dataset_integrity")


def _single(args: argparse.Namespace) -> None:
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.core.files import write_json
    from nnunet_livseg.core.names import stem
    from nnunet_livseg.core.output_folder import require_folder
    from nnunet_livseg.data.align import align
    from nnunet_livseg.data.align.agreement import picture
    from nnunet_livseg.data.convert.convert_case import in_hounsfield
    from nnunet_livseg.imaging.images import read_volume, write_volume

    for option, given, wanted in (("--labels", args.labels, 0), ("--other-masks", args.other_masks, 1)):
        if given and len(given) != len(args.inputs) - wanted:
            raise UserError(f"{option}: {len(given)} files for {len(args.inputs) - wanted} phases; give one for each.")
    if args.other_masks and not args.mask:
        raise UserError("--other-masks needs the liver on the primary phase too: give it with --mask.")
    name = stem(args.inputs[0]).removesuffix("_0000")
    written = [args.out / f"{name}_{channel:04d}.nii.gz" for channel in range(len(args.inputs))]
    given = [*args.inputs, *([args.mask] if args.mask else []), *args.other_masks, *args.labels]
    require_folder(args.out, inputs=given, writes=[path.name for path in written])
    images = [in_hounsfield(read_volume(path).image, 0.0, path)[0] for path in args.inputs]
    masks = [read_volume(path).image for path in ([args.mask] if args.mask else []) + list(args.other_masks)]
    labels = [read_volume(path).image for path in args.labels]
    record = {"primary": args.inputs[0].name, "phases": []}
    results = [
        align(
            images[0],
            image,
            method=args.method,
            mask=masks[0] if args.mask else None,
            other_mask=masks[channel] if args.other_masks else None,
            labels=(labels[0], labels[channel]) if labels else None,
        )
        for channel, image in enumerate(images[1:], start=1)
    ]
    write_volume(images[0], written[0])
    for channel, aligned in enumerate(results, start=1):
        write_volume(aligned.image, written[channel])
        region_picture = args.out / f"{name}_{channel:04d}.png"
        picture(images[0], aligned.unaligned, aligned.image, aligned.region, region_picture)
        numbers = {"file": args.inputs[channel].name, **aligned.numbers(), "notes": list(aligned.notes)}
        record["phases"].append(numbers)
        print(f"{args.inputs[channel].name}: {_spelled(numbers)}")
        for note in aligned.notes:
            print(f"  {note}")
    write_json(args.out / f"{name}_alignment.json", record)
    print(f"Look at the pictures {args.out / name}_*.png.")


def _spelled(numbers: dict) -> str:
    before, after = numbers["before"], numbers["after"]
    pairs = (f"{name.replace('_', ' ')} {before[name]:.3f} -> {after[name]:.3f}" for name in before)
    truth = " (uses reference labels)" if numbers["uses_ground_truth"] else ""
    return f"{numbers['method']}{truth}, moved by {numbers['mean_shift_mm']:.1f} mm on average; {', '.join(pairs)}"
