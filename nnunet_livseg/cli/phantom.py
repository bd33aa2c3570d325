"""make synthetic CTs with liver and tumors as an nnU-Net raw dataset

Writes images, labels, dataset.json and cases.csv (type, size and position of every tumor). The same arguments give the
same voxels. Run again after an interruption, it makes only what is missing.

example:
  livseg phantom --out nnUNet_raw/Dataset901_Phantom --cases 8 --test-cases 2 --size 40 64 64
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of ``livseg phantom``."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="FOLDER", help="dataset folder, named DatasetNNN_Name")
    add("--cases", type=int, default=8, help="training cases (default: %(default)s)")
    add("--test-cases", type=int, default=0, help="unseen cases in imagesTs and labelsTs (default: %(default)s)")
    add(
        "--size",
        type=int,
        nargs=3,
        default=(96, 192, 192),
        metavar=("Z", "Y", "X"),
        help="voxels (default: 96 192 192)",
    )
    add("--spacing", type=float, nargs=3, metavar=("Z", "Y", "X"), help="mm (default: covers the upper abdomen)")
    add("--phases", type=int, default=1, choices=(1, 2), help="1: portal venous; 2: also arterial, as channel 1")
    add("--seed", type=int, default=0, help="another seed gives other patients (default: %(default)s)")
    add("--labels", default="lesions", choices=("lesions", "regions", "ignore"),
        help="liver and tumor as labels, as regions, or with an ignore label on every third slice")  # fmt: skip
    add("--tumors", type=int, nargs=2, default=(2, 5), metavar=("MIN", "MAX"), help="tumors per case (default: 2 5)")
    add("--types", nargs="+", metavar="TYPE", help="of cyst FNH hemangioma HCC metastasis (default: all)")
    add("--diameter", type=float, nargs=2, default=(12.0, 50.0), metavar=("MIN", "MAX"),
        help="of tumors, mm (default: 12 50)")  # fmt: skip
    add("--arterial-only", type=float, default=0.0, metavar="SHARE",
        help="share of tumors that only the arterial phase shows, 0 to 1 (default: %(default)g)")  # fmt: skip
    add("--noise", type=float, default=11.0, metavar="HU", help="image noise of a 5 mm slice (default: %(default)g)")
    add("-np", "--processes", type=int, default=1, help="cases made at the same time (default: %(default)s)")


def run(args: Namespace) -> int:
    """Write the dataset and say where it is."""
    from nnunet_livseg.data.phantom import TUMOR_TYPES, write_dataset

    folder = write_dataset(
        args.out,
        cases=args.cases,
        test_cases=args.test_cases,
        size=tuple(args.size),
        spacing_mm=None if args.spacing is None else tuple(args.spacing),
        phases=args.phases,
        seed=args.seed,
        label_style=args.labels,
        tumors=tuple(args.tumors),
        tumor_types=tuple(args.types or TUMOR_TYPES),
        tumor_diameter_mm=tuple(args.diameter),
        arterial_only=args.arterial_only,
        noise_hu=args.noise,
        processes=args.processes,
    )
    print(f"{args.cases} training and {args.test_cases} test cases in {folder}")
    print(f"truth of every tumor: {folder / 'cases.csv'}")
    return 0
