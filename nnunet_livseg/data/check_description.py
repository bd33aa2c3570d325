"""Check ``dataset.json`` and the list of files, without opening an image."""

import json
from collections.abc import Iterator

from nnunet_livseg.core.dataset_json import label_problems
from nnunet_livseg.core.findings import Finding, error, warning
from nnunet_livseg.core.labels import LIVER, TUMOR
from nnunet_livseg.core.names import dataset_number, is_dataset_name
from nnunet_livseg.data.raw_dataset import RawCase, RawDataset

FOLDS = 5  # of nnU-Net's default cross-validation
FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")  # that nnU-Net reads
_OTHER_SCHEMES = {
    "nonorm": "nnU-Net would not normalize at all",
    "zscore": "nnU-Net would z-score each scan and lose the Hounsfield scale",
    "rescale_to_0_1": "nnU-Net would stretch each scan to 0..1 and lose the Hounsfield scale",
    "rgb_to_0_1": "nnU-Net would divide by 255 as for photographs",
}


def check_description(dataset: RawDataset) -> Iterator[Finding]:
    """Channels, labels and counts of ``dataset.json``."""
    if not is_dataset_name(dataset.name):
        yield warning(
            "name",
            f"the folder {dataset.name} is not named DatasetNNN_Name, so nnU-Net's commands will not find it.\n"
            "  Rename it, for example to Dataset003_Liver, and put it into the folder nnUNet_raw.",
        )
    yield from _check_channels(dataset)
    yield from _check_labels(dataset)
    if dataset.file_ending not in FILE_ENDINGS:
        yield error(
            "file ending",
            f"file_ending is {dataset.file_ending!r}, which nnU-Net has no reader for.\n"
            f"  Use one of {' '.join(FILE_ENDINGS)} (with the dot) in dataset.json.",
        )


def _check_channels(dataset: RawDataset) -> Iterator[Finding]:
    given = sorted(dataset.json["channel_names"], key=int)
    if given != [str(i) for i in range(len(given))]:
        yield error(
            "channels",
            f"the channels are numbered {', '.join(given)}; nnU-Net counts files from _0000 without gaps.\n"
            '  Number channel_names in dataset.json "0", "1", ...',
        )
    wanted = json.dumps({str(i): "CT" for i in range(len(given))})
    for index, name in enumerate(dataset.channels):
        if name.casefold() == "ct":
            continue
        consequence = _OTHER_SCHEMES.get(name.casefold(), _OTHER_SCHEMES["zscore"])
        message = (
            f"{dataset.name}: channel {index} is named {name!r}, so {consequence}.\n"
            f'  Set "channel_names": {wanted} in <nnUNet_raw>/{dataset.name}/dataset.json\n'
            "  and run nnUNetv2_plan_and_preprocess again."
        )
        chosen = name.casefold() in _OTHER_SCHEMES  # the name of a scheme is written on purpose
        yield warning("channel name", message) if chosen else error("channel name", message)


def _check_labels(dataset: RawDataset) -> Iterator[Finding]:
    problems = list(label_problems(dataset.json))
    yield from (error(kind, message) for kind, message in problems)
    if problems:
        return
    for structure in (LIVER, TUMOR):
        if structure not in dataset.structures.values:
            yield warning(
                f"no {structure} label",
                f"no label is named {structure} (there are {', '.join(dataset.labels)}): training works, but weights"
                f" per class and the evaluation of the {structure} need to know it.\n"
                f"  Name the label {structure!r} in dataset.json, if there is one.",
            )


def check_files(dataset: RawDataset, cases: list[RawCase]) -> Iterator[Finding]:
    """Compare the images and label maps that exist with each other and with ``dataset.json``."""
    for path in [path for part in ("imagesTr", "labelsTr") for path in dataset.hidden_files(part)]:
        yield error(
            "hidden file",
            f"{path.parent.name}/{path.name} is a hidden file of macOS, no image, but nnU-Net would take it for a case."
            "\n  Delete it: find FOLDER -name '._*' -delete",
        )
    if not cases:
        yield _no_cases(dataset)
        return
    declared = dataset.json["numTraining"]
    if declared != len(cases):
        yield error(
            "number of cases",
            f"numTraining in dataset.json is {declared}, but there are images of {len(cases)} cases, and"
            " nnUNetv2_plan_and_preprocess --verify_dataset_integrity stops there.\n"
            f"  Set it to {len(cases)}, or add the missing cases.",
        )
    if len(cases) < FOLDS and not (dataset.folder / "splits_final.json").is_file():  # which planning hands on
        there = "is 1 case" if len(cases) == 1 else f"are {len(cases)} cases"
        yield warning(
            "few cases",
            f"there {there}, fewer than the {FOLDS} folds of nnU-Net's cross-validation.\n"
            f"  Train with fold all: nnUNetv2_train {dataset_number(dataset.name)} 3d_fullres all -tr TRAINER",
        )
    for case in cases:
        yield from _check_case_files(case)
    if "dataset" not in dataset.json:
        yield from _check_strays(dataset, cases)


def _no_cases(dataset: RawDataset) -> Finding:
    folder = dataset.folder / "imagesTr"
    if not folder.is_dir():
        return error(
            "no cases", f"there is no folder {folder}, so there is nothing to train on.\n  Put the images there."
        )
    endings = sorted({"".join(p.suffixes[-2:]) for p in folder.iterdir() if p.is_file()})
    there = f"files there end in {', '.join(endings[:5])}" if endings else "it is empty"
    return error(
        "no cases",
        f"{folder} contains no image named CASE_0000{dataset.file_ending}; {there}.\n"
        "  Correct file_ending in dataset.json, or rename the files.",
    )


def _check_case_files(case: RawCase) -> Iterator[Finding]:
    for channel, path in enumerate(case.images):
        if not path.is_file():
            yield error(
                "missing channel",
                f"{case.name}: the file of channel {channel} is missing, so nnU-Net would stop at this case.\n"
                f"  Add {path}, or remove the case.",
                case.name,
            )
    if not case.label.is_file():
        yield error(
            "missing label",
            f"{case.name}: there is no label map, so nnU-Net would stop at this case.\n"
            f"  Add {case.label}, or move the images to imagesTs.",
            case.name,
        )


def _check_strays(dataset: RawDataset, cases: list[RawCase]) -> Iterator[Finding]:
    names = {case.name for case in cases}
    for path in dataset.files("imagesTr"):
        case, channel = dataset.split_name(path)
        if case is None:
            yield error(
                "file name",
                f"{path.name} in imagesTr has no channel number (CASE_0000{dataset.file_ending}), so nnU-Net would cut"
                " its name in the wrong place.\n  Rename it, or move it away.",
            )
        elif channel >= len(dataset.channels):
            yield error(
                "extra channel",
                f"{case}: {path.name} is channel {channel}, but dataset.json declares {len(dataset.channels)}"
                f" (the first is 0), and nnU-Net stops at such a case.\n"
                "  Declare it in channel_names, or move the file away.",
                case,
            )
    for path in dataset.files("labelsTr"):
        name = path.name.removesuffix(dataset.file_ending)
        if name not in names:
            yield warning(
                "label without image",
                f"{name}: there is a label map but no {name}_0000{dataset.file_ending}, so the case is not used.\n"
                "  Add the image, or remove the label map.",
                name,
            )
