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

from nnunet_livseg.cli.shared_options import add

STEP = "predict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg attention``."""
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="one per channel of the model, in order")
    add(parser, "model", "out", required=True)
    parser.add_argument(
        "--point", type=int, nargs=3, metavar=("Z", "Y", "X"),
        help="voxel of IMAGE to look at, counted from 0 (default: the largest predicted tumor)")  # fmt: skip
    add(parser, "folds", nargs=1, says="the first trained fold")
    add(parser, "checkpoint", default="checkpoint_final.pth")
    add(parser, "device", says="the best available")


def run(args: argparse.Namespace) -> None:
    """Make all files and say where they are."""
    import warnings

    from nnunet_livseg.inference.attention_files import SHEET, TABLE, write_attention
    from nnunet_livseg.inference.attention_maps import attention_maps
    from nnunet_livseg.inference.trained_model import TrainedModel

    warnings.filterwarnings("ignore", module="pydicom")  # remarks on harmless slips of exporters, one per file
    model = TrainedModel.open(args.model, folds=args.folds, checkpoint=args.checkpoint)
    case = attention_maps(args.images, model, point=args.point, device=args.device)
    write_attention(case, args.out)
    print(f"looked at voxel {' '.join(map(str, case.point))} (z y x): {case.reason}")
    print(f"{len(case.maps)} maps in {args.out}; look at {SHEET}. {TABLE} says what each file is")
