"""make synthetic CTs with liver and tumors as an nnU-Net raw dataset

OUT is a dataset folder named DatasetNNN_Name. The command writes images, labels, dataset.json and cases.csv (type, size
and position of every tumor). The same arguments give the same voxels. After an interruption, the same command makes
only what is missing.

example:
  livseg phantom -o nnUNet_raw/Dataset901_Phantom --cases 8 --test-cases 2 --size 40 64 64
"""

from argparse import ArgumentParser, Namespace

from nnunet_livseg.cli.shared_options import add

STEP = "data in"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of ``livseg phantom``."""
    own = parser.add_argument
    add(parser, "out", required=True)
    add(parser, "cases", default=8)
    own("--test-cases", type=int, default=0, metavar="N", help="cases in imagesTs and labelsTs (default: 0)")
    own("--size", type=int, nargs=3, default=(96, 192, 192), metavar=("Z", "Y", "X"),
        help="size of the images in voxels (default: 96 192 192)")  # fmt: skip
    add(parser, "spacing", nargs=3, says="covers the upper abdomen")
    own("--phases", type=int, default=1, choices=(1, 2),
        help="1: portal venous; 2: arterial as channel 1 too (default: 1)")  # fmt: skip
    add(parser, "seed", default=0)
    own("--label-style", default="lesions", choices=("lesions", "regions", "ignore"),
        help="liver and tumor as labels, as regions, or with ignored slices (default: lesions)")  # fmt: skip
    own("--tumors-per-case", type=int, nargs=2, default=(2, 5), metavar=("MIN", "MAX"),
        help="number of tumors in a case (default: 2 5)")  # fmt: skip
    own("--tumor-types", nargs="+", metavar="TYPE",
        help="types among cyst, FNH, hemangioma, HCC, metastasis (default: all)")  # fmt: skip
    own("--tumor-diameter", type=float, nargs=2, default=(12.0, 50.0), metavar=("MIN", "MAX"),
        help="diameter of the tumors in mm (default: 12 50)")  # fmt: skip
    own("--arterial-only", type=float, default=0.0, metavar="SHARE",
        help="share of the tumors that only the arterial phase shows, 0 to 1 (default: 0)")  # fmt: skip
    own("--noise", type=float, default=11.0, metavar="HU", help="image noise of a 5 mm slice (default: 11)")
    add(parser, "workers", default=1)
    add(parser, "quiet")


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
        label_style=args.label_style,
        tumors=tuple(args.tumors_per_case),
        tumor_types=tuple(args.tumor_types or TUMOR_TYPES),
        tumor_diameter_mm=tuple(args.tumor_diameter),
        arterial_only=args.arterial_only,
        noise_hu=args.noise,
        processes=args.workers,
        progress=not args.quiet,
    )
    print(f"{args.cases} training and {args.test_cases} test cases in {folder}")
    print(f"type, size and place of every tumor: {folder / 'cases.csv'}")
    return 0
