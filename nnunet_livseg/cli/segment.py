"""segment CTs with a trained model: label map, measurements, report, DICOM objects

INPUT is a DICOM folder or zip, or a volume file (NIfTI, NRRD, MetaImage). The model is a folder
TRAINER__PLANS__CONFIGURATION of nnUNet_results, of any nnU-Net training. Without -m, the small starter model of the
package is used, which misses many tumors. Everything is for research only. One INPUT is written to OUT itself, several
to OUT/NAME each. The same command skips what is finished.

--quality fast      first fold, no mirroring, larger steps, only the liver's box (--crop), --torch-resampling,
                    --batches, --fit-patch
--quality balanced  the same shortcuts, but with all folds, mirroring and nnU-Net's steps (default without -m)
--quality standard  all folds, mirroring: equals nnUNetv2_predict (default with -m)
--quality best      as standard, with patches that overlap more

--engine torch              as nnU-Net (default)
--engine torch-bfloat16     faster on a CPU with bfloat16, but rounds to 8 bits of precision; try it on labeled CTs
--engine onnxruntime        float32 on the CPU; needs a folder of livseg export
--engine openvino           the same, faster
--engine openvino-bfloat16  the same, rounded

--formats seg       DICOM SEG over the slices of a DICOM input
--formats sr        its DICOM structured report (TID 1500)
--formats rtstruct  DICOM RT structure set: contours for radiotherapy, of a DICOM input
--formats nrrd      segmentation.seg.nrrd for 3D Slicer, with names, colors and codes
--formats itksnap   names and colors of the label map for ITK-SNAP
--formats none      label map, measurements and report only

Results contain no patient identifiers unless --identifiers is given. Nothing leaves this machine.

examples:
  livseg segment ct.nii.gz -o RESULT
  livseg segment study.zip -m MODEL -o RESULT
  livseg segment ct1.nii.gz ct2.nii.gz -m MODEL -o RESULTS --quality fast --uncertainty
  livseg segment study.zip -o RESULT --formats seg sr rtstruct nrrd itksnap
  livseg segment portal.nii.gz arterial.nii.gz --channels -m TWO_PHASE_MODEL -o RESULT
"""

import argparse
from pathlib import Path

from nnunet_livseg.cli.shared_options import add

STEP = "predict"
ENGINES = ("torch", "torch-bfloat16", "onnxruntime", "openvino", "openvino-bfloat16")
FORMATS = ("seg", "sr", "rtstruct", "nrrd", "itksnap", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg segment``."""
    own = parser.add_argument
    own("inputs", type=Path, nargs="+", metavar="INPUT", help="DICOM folder or zip, or a volume file")
    add(parser, "model", says="the starter model")
    add(parser, "out", required=True)
    own("--channels", action="store_true", help="the INPUTs are the channels (contrast phases) of one CT")
    add(parser, "series", says="the only CT series")
    add(parser, "interpolate")
    add(parser, "intercept", says="from the series; usually -1024 if it is lost")
    add(parser, "name", says="the input's file name; for DICOM, a hash of the series UID")
    own("--quality", choices=("fast", "balanced", "standard", "best"),
        help="time against accuracy, as above (default: standard; without -m: balanced)")  # fmt: skip
    add(parser, "folds", "step_size", says="set by --quality")
    add(parser, "checkpoint", default="checkpoint_final.pth")
    add(parser, "disable_tta")
    add(parser, "liver_model", says="none, MODEL looks at the whole CT")
    own("--crop", action=argparse.BooleanOptionalAction,
        help="look only at the liver's box, which the starter model finds (default: set by --quality)")  # fmt: skip
    own("--torch-resampling", action=argparse.BooleanOptionalAction,
        help="resample the output by torch, not by the plans' function (default: set by --quality)")  # fmt: skip
    own("--batches", action=argparse.BooleanOptionalAction,
        help="give the network several small patches at a time (default: set by --quality)")  # fmt: skip
    own("--fit-patch", action=argparse.BooleanOptionalAction,
        help="enlarge the patch to fit the CT, for models that allow it (default: set by --quality)")  # fmt: skip
    own("--probabilities", action="store_true", help="write a probability map for each structure")
    own("--uncertainty", action="store_true", help="write an uncertainty map, and the agreement for each lesion")
    own("--postprocess", action="store_true", help="apply the rules that livseg postprocess tune selected")
    own("--formats", nargs="+", default=("seg", "sr"), choices=FORMATS,
        help="files beside label map and measurements, as above (default: seg sr)")  # fmt: skip
    add(parser, "no_report", "identifiers")
    own("--overwrite", action="store_true", help="segment finished inputs again; replace another CT's result in OUT")
    add(parser, "device", says="the best available")
    own("--engine", default="torch", choices=ENGINES,
        help="engine that runs the network, as above (default: torch)")  # fmt: skip
    add(parser, "quiet")


def run(args: argparse.Namespace) -> None:
    """Segment the inputs."""
    import sys
    import warnings

    warnings.filterwarnings("ignore", module="pydicom")  # remarks on harmless slips of exporters, one per file
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.core.output_folder import require_folder
    from nnunet_livseg.inference.quality import default_quality, quality_of
    from nnunet_livseg.inference.segment_jobs import segment_all
    from nnunet_livseg.inference.segmenter import Segmenter
    from nnunet_livseg.report.result_folder import ResultFiles

    inputs = [tuple(args.inputs)] if args.channels else args.inputs
    if args.name and len(inputs) > 1:
        raise UserError(f"--name names one result, but there are {len(inputs)} inputs. Omit it.")
    if "none" in args.formats and len(args.formats) > 1:
        raise UserError("--formats none cannot be combined with other formats. Omit none, or the others.")
    formats = tuple(name for name in args.formats if name != "none")
    files = ResultFiles(report=not args.no_report, formats=formats, identifiers=args.identifiers)
    require_folder(args.out)
    segmenter = Segmenter(
        args.model,
        folds=args.folds,
        checkpoint=args.checkpoint,
        quality=quality_of(
            args.quality or default_quality(args.model),
            mirroring=False if args.disable_tta else None,
            step_size=args.step_size,
            torch_resampling=args.torch_resampling,
            in_batches=args.batches,
            fits_patch=args.fit_patch,
        ),
        device=args.device,
        engine=args.engine,
        liver_model=args.liver_model,
        crop=args.crop,
        progress=not args.quiet and sys.stderr.isatty(),
        probabilities=args.probabilities,
        uncertainty=args.uncertainty,
        postprocess=args.postprocess,
    )
    segment_all(
        inputs,
        segmenter,
        args.out,
        files=files,
        overwrite=args.overwrite,
        name=args.name,
        series=args.series,
        interpolate=args.interpolate,
        intercept=args.intercept,
    )
