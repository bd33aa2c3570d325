"""Checks of ``dataset.json`` and of which files there are; no image is opened."""

import json
from collections.abc import Iterator

from nnunet_livseg.core.findings import Finding, error, warning
from nnunet_livseg.core.names import is_dataset_name
from nnunet_livseg.data.raw_dataset import RawCase, RawDataset

FOLDS = 5  # of nnU-Net's default cross-validation
FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")  # that nnU-Net reads
_OTHER_SCHEMES = {
    "nonorm": "nnU-Net would not normalise at all",
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
    labels = dataset.labels
    if all(str(name).isdigit() for name in labels):
        yield error(
            "labels",
            "labels in dataset.json maps values to names, as nnU-Net v1 did.\n"
            '  Turn it round: {"background": 0, "liver": 1, "tumor": 2}.',
        )
        return
    wrong = [name for name, value in labels.items() if not _is_label(value)]
    if wrong:
        yield error(
            "labels",
            f"label {wrong[0]!r} has the value {json.dumps(labels[wrong[0]])}; nnU-Net wants a whole number from 0,"
            " or a list of them for a region.\n  Correct labels in dataset.json.",
        )
        return
    if labels.get("background") != 0:
        yield error(
            "labels",
            "labels has no background with the value 0, and nnU-Net will not start without.\n"
            '  Add "background": 0 to labels in dataset.json.',
        )
    yield from _check_values(dataset)
    yield from _check_regions(dataset)
    for structure, values in (("liver", dataset.liver_values), ("tumor", dataset.tumor_values)):
        if not values:
            yield warning(
                f"no {structure} label",
                f"no label is named {structure} (there are {', '.join(labels)}): training works, but weights per class"
                f" and the evaluation of the {structure} need to know it.\n"
                f"  Name the label {structure!r} in dataset.json, if there is one.",
            )


def _is_label(value: object) -> bool:
    values = value if isinstance(value, list) and value else [value]
    return all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values)


def declared_values(dataset: RawDataset) -> list[int]:
    """All label values of ``dataset.json``, sorted, with the ignore label; skips what is no number."""
    values: set[int] = set()
    for value in dataset.labels.values():
        values.update(v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int))
    return sorted(values)


def _check_values(dataset: RawDataset) -> Iterator[Finding]:
    values = declared_values(dataset)
    if values != list(range(len(values))):
        yield error(
            "labels",
            f"the label values are {', '.join(map(str, values))}; nnU-Net wants 0, 1, 2, ... without gaps.\n"
            "  Renumber them in dataset.json and in the label maps.",
        )
    ignore = dataset.ignore_label
    if ignore is not None and ignore != max(values):
        yield error(
            "ignore label",
            f"the ignore label is {json.dumps(ignore)}; nnU-Net wants it to be the highest value, {max(values)}.\n"
            "  Renumber the labels in dataset.json and in the label maps.",
        )


def _check_regions(dataset: RawDataset) -> Iterator[Finding]:
    if not dataset.has_regions:
        return
    regions = [name for name, value in dataset.labels.items() if name not in ("background", "ignore") and value != 0]
    order = dataset.json.get("regions_class_order")
    given = "is missing" if order is None else f"is {json.dumps(order)}"
    known = declared_values(dataset)
    if not isinstance(order, list) or len(order) != len(regions) or any(value not in known for value in order):
        yield error(
            "regions",
            f"regions_class_order {given}, but nnU-Net needs one label value for each of the {len(regions)} regions"
            f" {', '.join(regions)}: the value to write, later ones over earlier ones.\n"
            '  For {"liver": [1, 2], "tumor": 2} add "regions_class_order": [1, 2] to dataset.json.',
        )


def check_files(dataset: RawDataset, cases: list[RawCase]) -> Iterator[Finding]:
    """Which images and label maps there are, against each other and against ``dataset.json``."""
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
    if len(cases) < FOLDS:
        there = "is 1 case" if len(cases) == 1 else f"are {len(cases)} cases"
        yield warning(
            "few cases",
            f"there {there}, fewer than the {FOLDS} folds of nnU-Net's cross-validation.\n"
            "  Train with fold all: nnUNetv2_train DATASET CONFIGURATION all",
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
        f"{folder} holds no image named CASE_0000{dataset.file_ending}; {there}.\n"
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
