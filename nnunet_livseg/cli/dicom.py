"""list the series of a DICOM study, or convert one CT series to a volume file

PATH is a folder, a zip, or a multi-frame file; several series may be mixed and files be in any order. `list` shows no
patient data. `convert` writes Hounsfield units in the series' own geometry, and beside the volume a JSON file that says
what was found and done. UIDs are written only with --identifiers.

examples:
  livseg dicom list study.zip
  livseg dicom convert study.zip --series 6 -o ct.nii.gz
"""

import argparse
from pathlib import Path

from nnunet_livseg.cli.shared_options import STANDARD_OUTPUT, add, put_json

STEP = "data in"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``livseg dicom list`` and ``livseg dicom convert``."""
    actions = parser.add_subparsers(dest="step", required=True, metavar="list|convert")
    listing = actions.add_parser("list", help="show the series of a study")
    convert = actions.add_parser("convert", help="write one series as a volume")
    for action in (listing, convert):
        action.add_argument("path", type=Path, metavar="PATH", help="folder, zip or file of the study")
    add(listing, "json", says="text")
    add(convert, "out", required=True)
    add(convert, "series", says="the only CT series")
    add(convert, "interpolate")
    add(convert, "intercept", says="from the series; usually -1024 if it is lost")
    convert.add_argument("--keep-padding", action="store_true", help="keep padding below -1024 HU as stored")
    add(convert, "identifiers", "quiet")


def run(args: argparse.Namespace) -> None:
    """Run the chosen action."""
    import warnings

    warnings.filterwarnings("ignore", module="pydicom")  # remarks on harmless slips of exporters, one per file
    (_list if args.step == "list" else _convert)(args)


def _list(args: argparse.Namespace) -> None:
    from nnunet_livseg.data.dicom import dicom_files, list_series
    from nnunet_livseg.data.dicom.listing import lines

    with dicom_files(args.path) as files:
        series = list_series(files)
        if args.json:
            put_json(args.json, [_as_dict(one) for one in series])
        if args.json != STANDARD_OUTPUT:
            print("\n".join(lines(series)))


def _as_dict(one) -> dict:
    return {
        "series": one.key,
        "modality": one.modality,
        "slices": len(one.slices),
        "spacing_mm": one.spacing_mm,
        "phase": one.phase,
        "phase_reason": one.phase_reason,
        "description": one.description,
        "problem": one.problem,
        "needs_interpolation": one.stack.irregular if one.stack else "",
    }


def _convert(args: argparse.Namespace) -> None:
    from nnunet_livseg.core.files import write_json
    from nnunet_livseg.core.names import as_size, stem
    from nnunet_livseg.core.output_folder import require_volume_name
    from nnunet_livseg.data.dicom import read_series
    from nnunet_livseg.imaging.hounsfield import AIR_HU
    from nnunet_livseg.imaging.images import write_volume

    require_volume_name(args.out)
    image, info = read_series(
        args.path,
        args.series,
        interpolate=args.interpolate,
        intercept=args.intercept,
        padding_hu=None if args.keep_padding else AIR_HU,
        progress=not args.quiet,
    )
    write_volume(image, args.out)
    record = {
        "series": info.key,
        "description": info.description,
        "phase": info.phase,
        "phase_reason": info.phase_reason,
        "shape": list(image.GetSize()[::-1]),
        "spacing_mm": list(image.GetSpacing()[::-1]),
        "resampled": info.resampled,
        "notes": list(info.notes),
    }
    if args.identifiers:
        record |= {"study_uid": info.study_uid, "series_uid": info.series_uid, "instances": info.instances}
    write_json(args.out.with_name(f"{stem(args.out)}.json"), record)
    size = as_size(record["shape"])
    spacing = as_size(record["spacing_mm"], ".3g")
    print(f"{args.out}: series {info.key}, {size} voxels of {spacing} mm (z y x)")
    for note in info.notes:
        print(f"  {note}")
