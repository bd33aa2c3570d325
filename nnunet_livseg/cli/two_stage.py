"""segment the liver first, then tumors in its region: data for the second model, and prediction with both

data      cuts every case of a raw dataset to its liver and writes a new raw dataset, which nnU-Net plans, preprocesses
          and trains as any other. Livers come from the labels, or from a liver model's predictions (--livers).
predict   runs the liver model, cuts, runs the tumor model, and writes segmentations on the grid of the images.

--mode crop keeps the liver's box (SFAN), --mode mask also blanks everything outside the liver (SAM + URIM).

examples:
  livseg two-stage data -d 3 --out nnUNet_raw/Dataset103_InLiver
  livseg two-stage data -d 3 --out nnUNet_raw/Dataset104_Masked --mode mask --livers PREDICTED
  livseg two-stage predict -i IMAGES -o OUT --liver-model LIVER_MODEL --tumor-model TUMOR_MODEL
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of both steps."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="data|predict")
    data = steps.add_parser("data", help="write the tumor model's dataset")
    data.add_argument("-d", "--dataset", required=True, help="id, name or folder of the raw dataset")
    data.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder DatasetNNN_Name")
    data.add_argument("--mode", default="crop", help="crop or mask (default: %(default)s)")
    data.add_argument("--margin", type=float, default=10.0, metavar="MM", help="around the liver (default: 10 mm)")
    data.add_argument("--livers", type=Path, metavar="FOLDER", help="predicted livers (default: those of the labels)")
    predict = steps.add_parser("predict", help="segment images with both models")
    predict.add_argument("-i", "--images", type=Path, required=True, help="folder with images, as for nnUNetv2_predict")
    predict.add_argument("-o", "--out", type=Path, required=True, help="folder for the segmentations")
    predict.add_argument("--liver-model", type=Path, metavar="FOLDER", help="TRAINER__PLANS__CONFIGURATION in results")
    predict.add_argument("--livers", type=Path, metavar="FOLDER", help="predicted livers, instead of a liver model")
    predict.add_argument("--tumor-model", type=Path, required=True, metavar="FOLDER", help="as --liver-model")
    predict.add_argument(
        "--liver-folds", nargs="+", metavar="F", help="folds of the liver model (default: all trained)"
    )
    predict.add_argument(
        "--tumor-folds", nargs="+", metavar="F", help="folds of the tumor model (default: all trained)"
    )
    predict.add_argument("--scales", type=float, nargs="+", default=[1.0], metavar="S", help="see livseg predict")
    predict.add_argument("--disable_tta", action="store_true", help="no mirroring: faster, less accurate")
    predict.add_argument("-step_size", type=float, default=0.5, help="of the sliding window (default: 0.5)")
    predict.add_argument("-device", choices=("cuda", "cpu", "mps"), help="default: the best that is here")


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    _data(args) if args.step == "data" else _predict(args)


def _data(args: argparse.Namespace) -> None:
    from nnunet_livseg.core.names import dataset_id
    from nnunet_livseg.data.liver_crop_dataset import write_region_dataset
    from nnunet_livseg.data.raw_dataset import find_raw_dataset
    from nnunet_livseg.imaging.liver_crop import LiverCrop

    source = find_raw_dataset(args.dataset)
    without = write_region_dataset(source, args.out, cutting=LiverCrop(args.mode, args.margin), livers=args.livers)
    print(f"wrote {args.out}")
    if without:
        print(f"left out, because no liver was found: {', '.join(without)}")
    print(f"next:\n  nnUNetv2_plan_and_preprocess -d {dataset_id(args.out.name)} --verify_dataset_integrity")


def _predict(args: argparse.Namespace) -> None:
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
        liver = LiverFiles(args.livers, args.tumor_model)
    else:
        liver = Segmenter(args.liver_model, folds=args.liver_folds, **options)
    segmenter = Segmenter(args.tumor_model, folds=args.tumor_folds, scales=args.scales, liver_model=liver, **options)
    notes = predict_folder(args.images, args.out, segmenter)
    print(f"wrote {args.out}")
    if without := [name for name, found in notes.items() if NOTHING_SEGMENTED in found]:
        print(f"no liver found, so written as background: {', '.join(without)}")
