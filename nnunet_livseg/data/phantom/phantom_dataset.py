"""An nnU-Net raw dataset of phantoms: written whole, resumed, and never over something else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import as_read, write_json, write_text
from nnunet_livseg.core.labels import LIVER, LIVER_AND_TUMOR
from nnunet_livseg.core.output_folder import RunRecord, require_folder
from nnunet_livseg.core.tables import csv_text
from nnunet_livseg.core.workers import run_jobs
from nnunet_livseg.data.phantom.fields import Vector
from nnunet_livseg.data.phantom.limits import check_dataset_folder_name, check_options, default_spacing_mm
from nnunet_livseg.data.phantom.phantom_case import PhantomCase, make_case
from nnunet_livseg.data.phantom.tissues import PHASES, TUMOR_TYPES
from nnunet_livseg.imaging.nifti import write_nifti

LABEL_STYLES = {
    "lesions": {"labels": LIVER_AND_TUMOR},
    "regions": {"labels": {**LIVER_AND_TUMOR, LIVER: [1, 2]}, "regions_class_order": [1, 2]},
    "ignore": {"labels": {**LIVER_AND_TUMOR, "ignore": 3}},
}
RECORD = "phantom.json"
FORMAT = 1  # raise it when the same arguments give other voxels
IGNORED_SLICES = slice(2, None, 3)  # label style "ignore": every third slice is not annotated,
IGNORED_PART = 1 / 4  # and this part of every other one, at the back: nnU-Net's 2D loader leaves out whole slices


@dataclass(frozen=True)
class _Job:
    """One case to write."""

    name: str
    seed: tuple[int, int, int]
    images: Path
    labels: Path
    label_style: str
    arguments: dict


def write_dataset(
    folder: str | Path,
    *,
    cases: int = 8,
    test_cases: int = 0,
    size: tuple[int, int, int] = (96, 192, 192),
    spacing_mm: Vector | None = None,
    phases: int = 1,
    seed: int = 0,
    label_style: str = "lesions",
    tumors: tuple[int, int] = (2, 5),
    tumor_types: Sequence[str] = TUMOR_TYPES,
    tumor_diameter_mm: tuple[float, float] = (12.0, 50.0),
    arterial_only: float = 0.0,
    noise_hu: float = 11.0,
    processes: int = 1,
    progress: bool = True,
) -> Path:
    """Write phantoms as the nnU-Net raw dataset ``folder`` (named ``DatasetNNN_Name``); returns the folder.

    Besides nnU-Net's files (``imagesTr``, ``labelsTr``, ``dataset.json``; ``imagesTs`` and ``labelsTs`` for
    ``test_cases``) it holds ``cases.csv``, one row per tumor, and ``phantom.json``, the arguments. Called again with
    the same arguments it makes only what is missing; with more cases it adds them.

    Args:
        folder: Where to; new, empty, or a phantom of the same arguments.
        cases: Training cases.
        test_cases: Unseen cases with reference labels.
        size: Voxels (Z, Y, X).
        spacing_mm: Voxel spacing (z, y, x); by default the scans cover the upper abdomen.
        phases: 1, or 2 for channel 0 portal venous and channel 1 arterial.
        seed: Seed of the dataset, at least 0.
        label_style: ``"lesions"`` (liver 1, tumor 2), ``"regions"`` (liver is 1 and 2) or ``"ignore"`` (every third
            slice has the ignore label 3, and so has the rear quarter of the others).
        tumors, tumor_types, tumor_diameter_mm, arterial_only, noise_hu: As in ``make_case``.
        processes: Cases made at the same time.
        progress: Show a progress bar.

    Raises:
        UserError: An argument is out of range, or the folder holds something else.
    """
    folder = Path(folder)
    spacing_mm = default_spacing_mm(size) if spacing_mm is None else spacing_mm
    arguments = {
        "size": tuple(size),
        "spacing_mm": tuple(float(s) for s in spacing_mm),
        "phases": phases,
        "tumors": tuple(tumors),
        "tumor_types": tuple(tumor_types),
        "tumor_diameter_mm": tuple(float(d) for d in tumor_diameter_mm),
        "arterial_only": float(arterial_only),
        "noise_hu": float(noise_hu),
    }
    check_options(**arguments)
    _check_counts(cases, test_cases, seed, label_style, processes)
    check_dataset_folder_name(folder)
    require_folder(folder, record=RECORD, remedy="Choose another --out.")
    record = _open_record(folder, {"seed": seed, "label_style": label_style, **arguments}, cases, test_cases)
    jobs = _jobs(folder, cases, test_cases, seed, label_style, arguments)
    missing = [job for job in jobs if not record.is_done(job.name, _files(job, phases))]
    results = run_jobs(_write_case, missing, workers=processes)
    silent = not progress or not missing
    for job, result in tqdm(results, total=len(missing), desc="phantom", unit="case", disable=silent):
        if isinstance(result, Exception):
            raise result
        record.add(job.name, result)
    rows = [row for job in jobs for row in record.entries[job.name]]
    write_text(folder / "cases.csv", csv_text(rows) if rows else "")
    write_json(folder / "dataset.json", _dataset_json(cases, label_style, phases))
    return folder


def _check_counts(cases: int, test_cases: int, seed: int, label_style: str, processes: int) -> None:
    if cases < 1 or test_cases < 0:
        raise UserError(f"{cases} training and {test_cases} test cases were asked for; give at least 1 and 0.")
    if seed < 0:
        raise UserError(f"the seed is {seed}; give 0 or a positive number.")
    if label_style not in LABEL_STYLES:
        raise UserError(f"there is no label style {label_style!r}; choose one of {', '.join(LABEL_STYLES)}.")
    if processes < 1:
        raise UserError(f"{processes} processes were asked for; give at least 1.")


def _open_record(folder: Path, arguments: dict, cases: int, test_cases: int) -> RunRecord:
    """``phantom.json``: the arguments, and the finished cases with their rows of the case table.

    Raises:
        UserError: The folder holds a phantom of other arguments, or more cases than asked for.
    """
    remedy = f"It is unknown which cases are finished: remove {folder} and run the command again."
    settings = as_read({"format": FORMAT, "arguments": arguments})
    record = RunRecord.open(folder / RECORD, settings, key="finished", remedy=remedy)
    differing = record.differing(settings)
    if "format" in differing:
        raise UserError(
            f"{folder} was made by another version of the phantom, whose cases differ.\n"
            "  Choose another --out, or remove the folder."
        )
    if differing:
        old, new = record.content["arguments"], settings["arguments"]
        listed = "; ".join(
            f"{key} is {old.get(key)} there and {new[key]} now" for key in new if old.get(key) != new[key]
        )
        raise UserError(
            f"{folder} contains a phantom of other arguments: {listed}.\n"
            "  Nothing was changed. Choose another --out, or remove the folder."
        )
    for kind, wanted, prefix in (("training", cases, "phantom_"), ("test", test_cases, "unseen_")):
        there = sum(name.startswith(prefix) for name in record.entries)
        if there > wanted:
            raise UserError(
                f"{folder} already contains {there} {kind} cases, more than the {wanted} asked for.\n"
                f"  Ask for {there}, or choose another --out."
            )
    if not record.path.is_file():
        record.save()
    return record


def _jobs(folder: Path, cases: int, test_cases: int, seed: int, label_style: str, arguments: dict) -> list[_Job]:
    training = [
        _Job(f"phantom_{i:03d}", (seed, 0, i), folder / "imagesTr", folder / "labelsTr", label_style, arguments)
        for i in range(cases)
    ]
    unseen = [  # references keep liver and tumor everywhere: they are for evaluation
        _Job(f"unseen_{i:03d}", (seed, 1, i), folder / "imagesTs", folder / "labelsTs", "lesions", arguments)
        for i in range(test_cases)
    ]
    return training + unseen


def _files(job: _Job, phases: int) -> list[Path]:
    images = [job.images / f"{job.name}_{phase:04d}.nii.gz" for phase in range(phases)]
    return [*images, job.labels / f"{job.name}.nii.gz"]


def _write_case(job: _Job) -> list[dict]:
    """Make and write one case; returns its rows of the case table."""
    case = make_case(job.seed, **job.arguments)
    *images, label = _files(job, len(case.image))
    geometry = {"spacing_mm": case.grid.spacing_mm, "origin_mm": case.grid.origin_mm}
    for path, image in zip(images, case.image, strict=True):
        write_nifti(path, image, **geometry)
    write_nifti(label, _styled(case, job.label_style), **geometry)
    return [{"case": job.name, **tumor.row()} for tumor in case.tumors]


def _styled(case: PhantomCase, label_style: str) -> np.ndarray:
    label = case.label.copy()
    if label_style == "ignore":
        ignored = LABEL_STYLES["ignore"]["labels"]["ignore"]
        label[IGNORED_SLICES] = ignored
        label[:, round(label.shape[1] * (1 - IGNORED_PART)) :] = ignored
    return label


def _dataset_json(cases: int, label_style: str, phases: int) -> dict:
    return {
        # every channel is named CT: nnU-Net then clips and scales Hounsfield units, whatever the phase
        "channel_names": {str(phase): "CT" for phase in range(phases)},
        **LABEL_STYLES[label_style],
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "name": "synthetic CT of the upper abdomen",
        "phases": list(PHASES[:phases]),
    }
