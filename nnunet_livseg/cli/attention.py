"""show what a trained network attends to in one case: maps as NIfTI, vectors as CSV, a sheet of pictures

IMAGE is one file per channel of the model (NIfTI, NRRD, MetaImage), or a DICOM folder or zip. The network runs on one
patch, around the middle of the largest tumor that it predicts (else the liver), or around --point. docs/attention.md
says what is shown for which network. Opening a model runs code stored in it: take models only from people you trust.

examples:
  livseg attention CT.nii.gz -m nnUNet_results/Dataset003_Liver/DPCNetTrainer__DPCNetPlans__3d_fullres -o OUT
  livseg attention VENOUS.nii.gz ARTERIAL.nii.gz -m MODEL -o OUT --point 60 210 180
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg attention``."""
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="one per channel of the model, in order")
    parser.add_argument(
        "-m", "--model", type=Path, required=True, metavar="FOLDER", help="TRAINER__PLANS__CONFIGURATION in results"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="folder for all files")
    parser.add_argument("--point", type=int, nargs=3, metavar=("Z", "Y", "X"), help="voxel of IMAGE, counted from 0")
    parser.add_argument("-f", "--fold", metavar="F", help="a number or all (default: the first that is trained)")
    parser.add_argument("-chk", "--checkpoint", default="checkpoint_final.pth", metavar="FILE", help="weights")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), help="default: the best that is here")


def run(args: argparse.Namespace) -> None:
    """Make all files and say where they are."""
    import warnings

    from nnunet_livseg.inference.attention_files import SHEET, TABLE, write_attention
    from nnunet_livseg.inference.attention_maps import attention_maps
    from nnunet_livseg.inference.trained_model import TrainedModel

    warnings.filterwarnings("ignore", module="pydicom")  # remarks on harmless slips of exporters, one per file
    folds = None if args.fold is None else (args.fold,)
    model = TrainedModel.open(args.model, folds=folds, checkpoint=args.checkpoint)
    case = attention_maps(args.images, model, point=args.point, device=args.device)
    write_attention(case, args.out)
    print(f"looked at voxel {' '.join(map(str, case.point))} (z y x): {case.reason}")
    print(f"{len(case.maps)} maps in {args.out}; look at {SHEET}, what each file is stands in {TABLE}")
