"""export a trained model as ONNX, JSON and weights without pickle, and compare engines with torch

MODEL is a folder TRAINER__PLANS__CONFIGURATION of nnUNet_results, of any nnU-Net training. FOLDER is a model folder for
livseg segment -m that holds no pickle, so that loading it runs no code of strangers:

  fold_F/checkpoint_final.safetensors   weights, for torch
  fold_F/network.onnx                   the network with its weights, for OpenVINO, ONNX Runtime and other programs
  plans.json, dataset.json              what nnU-Net reads
  export.json                           input shape, HU windows, labels, and how well each engine agrees with torch

Every engine that is installed is compared with torch on a random patch and on one of a CT. An engine that does not give
torch's labels is named with the reason, and livseg segment does not take it for this folder.

examples:
  livseg export MODEL -o EXPORTED
  livseg export MODEL -o EXPORTED --ct ct.nii.gz
  livseg segment ct.nii.gz -m EXPORTED --engine openvino -o RESULT
"""

import argparse
from pathlib import Path

from nnunet_livseg.cli.shared_options import add, finish

STEP = "more"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg export``."""
    own = parser.add_argument
    own("model", type=Path, metavar="MODEL", help="model folder: TRAINER__PLANS__CONFIGURATION in nnUNet_results")
    add(parser, "out", required=True)
    add(parser, "folds", says="all trained folds")
    add(parser, "checkpoint", default="checkpoint_final.pth")
    own("--ct", nargs="+", metavar="CT",
        help="real CT to compare engines on, one image per channel (default: a synthetic CT)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Export the model."""
    from nnunet_livseg.inference.ct_input import read_ct, require_model_input
    from nnunet_livseg.inference.export_model import export_model
    from nnunet_livseg.inference.trained_model import TrainedModel

    model = TrainedModel.open(args.model, folds=args.folds and tuple(args.folds), checkpoint=args.checkpoint)
    images = ()
    if args.ct:
        ct = read_ct(args.ct if len(args.ct) > 1 else args.ct[0])
        require_model_input(ct, model)
        images = ct.images
    record = export_model(model, args.out, ct=images)
    for fold, engines in record["parity"].items():
        for engine, patches in engines.items():
            for patch, parity in patches.items():
                print(
                    f"fold {fold}, {engine}, {patch} patch: largest difference {parity['largest_difference']:.2g} of"
                    f" {parity['largest_logit']:.3g}, {parity['equal_labels']:.4%} of the labels equal"
                )
    return finish([f"{engine}: {reason}" for engine, reason in record["not_exported"].items()], args.out)
