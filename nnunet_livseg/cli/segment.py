"""segment CTs with a trained model: label map, measurements, report, DICOM objects

INPUT is a DICOM folder or zip, or a volume file (NIfTI, NRRD, MetaImage). The model is a folder
TRAINER__PLANS__CONFIGURATION of nnUNet_results, of any nnU-Net training; without -m the small starter model of the
package is used (research only, see docs/starter_model.md). One INPUT is written to OUT itself, several to OUT/NAME
each, with the model loaded once; finished ones are kept when the same command runs again.

--quality fast      first fold, no mirroring, larger steps, and only the liver's box (--crop)
--quality standard  all folds, mirroring: equals nnUNetv2_predict (default)
--quality best      as standard, with patches that overlap more

Results hold no patient identifiers unless --identifiers is given, and nothing leaves this machine.

examples:
  livseg segment ct.nii.gz -o RESULT
  livseg segment study.zip -m MODEL -o RESULT
  livseg segment ct1.nii.gz ct2.nii.gz -m MODEL -o RESULTS --quality fast --uncertainty
  livseg segment portal.nii.gz arterial.nii.gz --channels -m TWO_PHASE_MODEL -o RESULT
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg segment``."""
    parser.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="DICOM folder or zip, or a volume file")
    parser.add_argument("-m", "--model", type=Path, metavar="FOLDER", help="trained model (default: the starter model)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="folder for the results")
    parser.add_argument("--channels", action="store_true", help="the INPUTs are the channels (phases) of one CT")
    parser.add_argument("--series", help="which DICOM series, as `livseg dicom list` shows it")
    parser.add_argument("--interpolate", action="store_true", help="fill missing DICOM slices, even out distances")
    parser.add_argument("--intercept", type=float, metavar="HU", help="of a DICOM series that lost it: -1024")
    parser.add_argument("--name", help="of the result (default: the file's name; of DICOM a digest)")
    parser.add_argument("--quality", default="standard", help="fast, standard or best (default: standard)")
    parser.add_argument("-f", "--folds", nargs="+", metavar="F", help="folds (default: what the quality says)")
    parser.add_argument("-chk", "--checkpoint", default="checkpoint_final.pth", metavar="FILE", help="weights")
    parser.add_argument("-step_size", type=float, metavar="S", help="step of the sliding window, not the quality's")
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring, whatever the quality says")
    parser.add_argument("--liver-model", type=Path, metavar="FOLDER", help="finds the liver; MODEL looks only there")
    parser.add_argument(
        "--crop",
        action=argparse.BooleanOptionalAction,
        help="look only at the liver's box, which the starter model finds (default: as the quality says)",
    )
    parser.add_argument("--probabilities", action="store_true", help="write a probability map per structure")
    parser.add_argument("--uncertainty", action="store_true", help="write a map of uncertainty; agreement per lesion")
    parser.add_argument("--postprocess", action="store_true", help="what `livseg postprocess tune` found to help")
    parser.add_argument("--no-dicom", action="store_true", help="no DICOM SEG and structured report of a DICOM input")
    parser.add_argument("--no-report", action="store_true", help="no HTML report and no preview")
    parser.add_argument("--identifiers", action="store_true", help="carry the DICOM input's patient identifiers")
    parser.add_argument("--overwrite", action="store_true", help="segment again what is finished")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), help="default: the best that is here")


def run(args: argparse.Namespace) -> None:
    """Segment the inputs."""
    import warnings

    warnings.filterwarnings("ignore", module="pydicom")  # remarks on harmless slips of exporters, one per file
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.imaging.images import require_place
    from nnunet_livseg.inference.quality import quality_of
    from nnunet_livseg.inference.segment_jobs import segment_all
    from nnunet_livseg.inference.segmenter import Segmenter
    from nnunet_livseg.report.result_folder import ResultFiles

    inputs = [tuple(args.inputs)] if args.channels else args.inputs
    if args.name and len(inputs) > 1:
        raise UserError(f"--name names one result, but there are {len(inputs)} inputs. Leave it out.")
    require_place(args.out)
    segmenter = Segmenter(
        args.model,
        folds=args.folds,
        checkpoint=args.checkpoint,
        quality=quality_of(args.quality, mirroring=False if args.disable_tta else None, step_size=args.step_size),
        device=args.device,
        liver_model=args.liver_model,
        crop=args.crop,
        progress=True,
        probabilities=args.probabilities,
        uncertainty=args.uncertainty,
        postprocess=args.postprocess,
    )
    files = ResultFiles(report=not args.no_report, dicom=not args.no_dicom, identifiers=args.identifiers)
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
