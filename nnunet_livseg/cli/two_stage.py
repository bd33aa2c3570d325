"""segment the liver first, then tumors in its region: data for the second model, and prediction with both

data      cuts every case of a raw dataset to its liver and writes a new raw dataset, which nnU-Net plans, preprocesses
          and trains as any other. Livers come from the labels, or from a liver model's predictions (--livers).
predict   runs the liver model, cuts, runs the tumor model, and writes segmentations on the grid of the images.

--crop-mode crop keeps the liver's box (SFAN), --crop-mode mask also blanks everything outside the liver (SAM + URIM).

examples:
  livseg two-stage data -d 3 -o nnUNet_raw/Dataset103_InLiver
  livseg two-stage data -d 3 -o nnUNet_raw/Dataset104_Masked --crop-mode mask --livers PREDICTED
  livseg two-stage predict -i IMAGES -o OUT --liver-model LIVER_MODEL -m TUMOR_MODEL
"""

import argparse

from nnunet_livseg.cli.shared_options import DONE_BUT, add

STEP = "predict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of both steps."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="data|predict")
    data = steps.add_parser("data", help="write the dataset of the tumor model")
    add(data, "dataset", "out", required=True)
    data.add_argument(
        "--crop-mode", choices=("crop", "mask"), default="crop",
        help="mask sets voxels outside the liver to background too (default: crop)")  # fmt: skip
    data.add_argument(
        "--margin", type=float, default=10.0, metavar="MM", help="margin around the liver in mm (default: 10)"
    )
    predict = steps.add_parser("predict", help="segment images with both models")
    add(predict, "input", "out", "model", required=True)
    add(predict, "folds", says="all trained folds")
    add(predict, "liver_model", says="none")
    predict.add_argument(
        "--liver-folds", nargs="+", metavar="F", help="folds of the liver model (default: all trained folds)"
    )
    add(data, "livers", says="the labels")
    add(data, "quiet")
    add(predict, "livers", says="none")
    add(predict, "scales", default=[1.0], says="1, nnU-Net's own")
    add(predict, "disable_tta")
    add(predict, "step_size", default=0.5)
    add(predict, "device", says="the best available")


def run(args: argparse.Namespace) -> int | None:
    """Run the step."""
    return _data(args) if args.step == "data" else _predict(args)


def _data(args: argparse.Namespace) -> int:
    from nnunet_livseg.core.names import dataset_id
    from nnunet_livseg.data.liver_crop_dataset import write_region_dataset
    from nnunet_livseg.data.raw_dataset import find_raw_dataset
    from nnunet_livseg.imaging.liver_crop import LiverCrop

    source = find_raw_dataset(args.dataset)
    crop = LiverCrop(args.crop_mode, args.margin)
    without = write_region_dataset(source, args.out, cutting=crop, livers=args.livers, progress=not args.quiet)
    print(f"wrote {args.out}")
    if without:
        print(f"skipped, because no liver was found: {', '.join(without)}")
    print(f"next:\n  nnUNetv2_plan_and_preprocess -d {dataset_id(args.out.name)} --verify_dataset_integrity")
    return DONE_BUT if without else 0


def _predict(args: argparse.Namespace) -> int:
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.inference.folder_prediction import LiverFiles, predict_folder
    from nnunet_livseg.inference.quality import quality_of
    from nnunet_livseg.inference.segmenter import NOTHING_SEGMENTED, Segmenter

    if (args.liver_model is None) == (args.livers is None):
        raise UserError("give either --liver-model or --livers: the first stage needs one way to find the liver.")
    options = {
        "quality": quality_of(mirroring=not args.disable_tta, step_size=args.step_size),
        "device": args.device,
    }
    if args.livers:
        liver = LiverFiles(args.livers, args.model)
    else:
        liver = Segmenter(args.liver_model, folds=args.liver_folds, **options)
    segmenter = Segmenter(args.model, folds=args.folds, scales=args.scales, liver_model=liver, **options)
    notes = predict_folder(args.input, args.out, segmenter)
    print(f"wrote {args.out}")
    without = [name for name, found in notes.items() if NOTHING_SEGMENTED in found]
    if without:
        print(f"no liver found, so written as background: {', '.join(without)}")
    return DONE_BUT if without else 0
