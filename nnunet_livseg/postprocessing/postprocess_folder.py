"""Postprocessing of a folder of label maps: geometry and pixel type stay, finished files are kept."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import SimpleITK as sitk
from tqdm import tqdm

from nnunet_livseg import __version__
from nnunet_livseg.core.errors import UserError, explain_case
from nnunet_livseg.core.files import atomic_path
from nnunet_livseg.core.labels import Structures, require_known
from nnunet_livseg.core.output_folder import RunRecord, require_folder
from nnunet_livseg.core.workers import run_jobs, worker_count
from nnunet_livseg.evaluation.results import SkippedCase
from nnunet_livseg.imaging.images import case_memory_bytes, on_grid, write_volume
from nnunet_livseg.imaging.label_maps import label_map_ending, read_label_map
from nnunet_livseg.postprocessing.steps import Step, apply, as_dict, as_text, require_structures

RECORD = "postprocessed.json"
_KEPT_BESIDE = ("dataset.json", "plans.json")  # what nnU-Net writes beside predictions and later commands read


@dataclass
class FolderChanges:
    """The changes to a folder.

    Args:
        changes: File name to what was changed in it, finished files of an earlier call included.
        problems: Files that could not be processed, and why.
        n_reused: Files that were finished before.
    """

    changes: dict[str, list[str]]
    problems: list[SkippedCase] = field(default_factory=list)
    n_reused: int = 0


def apply_to_folder(
    predictions: str | Path,
    out: str | Path,
    *,
    steps: Sequence[Step],
    structures: Structures,
    workers: int | None = 1,
    progress: bool = False,
) -> FolderChanges:
    """Apply ``steps`` to every label map of a folder.

    ``out/postprocessed.json`` keeps the steps, the structures and what was changed in each file. A finished file is
    skipped by the next call as long as its prediction stays the same.

    Args:
        predictions: Folder of label maps.
        out: Another folder; made where missing.
        steps: What to do, in this order.
        structures: Which values are liver and tumor.
        workers: Processes at most; by processors and free memory where ``None``.
        progress: Show a bar.

    Raises:
        UserError: A folder does not fit, ``out`` holds results of other steps or structures, or a step does not fit
            the labels.
    """
    predictions, out = Path(predictions), Path(out)
    for step in steps:
        require_structures(step, structures)
    files = _label_maps(predictions)
    require_folder(out, inputs=[predictions])
    record = _open_record(out, steps, structures)
    todo = [path for path in files if not _is_done(record, path)]
    done = FolderChanges({}, n_reused=len(files) - len(todo))
    out.mkdir(parents=True, exist_ok=True)
    for name in _KEPT_BESIDE:
        if (predictions / name).is_file():
            with atomic_path(out / name) as temporary:
                shutil.copyfile(predictions / name, temporary)
    work = partial(apply_to_file, out=out, steps=tuple(steps), structures=structures)
    n_workers = worker_count(len(todo), max(map(case_memory_bytes, todo), default=1), workers=workers)
    with tqdm(total=len(files), initial=done.n_reused, desc="postprocess", unit="case", disable=not progress) as bar:
        for path, result in run_jobs(work, todo, workers=n_workers):
            bar.update()
            if isinstance(result, Exception):
                done.problems.append(SkippedCase(path.name, explain_case(result)))
            else:
                record.add(path.name, {"prediction": _stamp(path), "changes": result})
    record.save()  # also where there was nothing to do
    done.changes = {path.name: record.entries[path.name]["changes"] for path in files if _is_done(record, path)}
    return done


def apply_to_file(path: Path, out: Path, *, steps: Sequence[Step], structures: Structures) -> list[str]:
    """Apply ``steps`` to one label map and write it to ``out`` under its name; returns what was changed.

    Raises:
        UserError: If the file is damaged or not a label map.
    """
    found = read_label_map(path)
    require_known(found.labels, structures, "prediction")
    stored_as = sitk.GetArrayViewFromImage(found.image).dtype
    changed, changes = apply(found.labels, found.spacing_mm, structures, steps)
    write_volume(on_grid(changed.astype(stored_as, copy=False), found.image), out / path.name)
    return changes


def _label_maps(predictions: Path) -> list[Path]:
    if not predictions.is_dir():
        raise UserError(f"{predictions} is not a folder.\n  Give the folder of predicted label maps with -i.")
    names = (path for path in sorted(predictions.iterdir()) if path.is_file() and not path.name.startswith("."))
    files = [path for path in names if label_map_ending(path.name)]
    if not files:
        raise UserError(f"there is no label map in {predictions}.\n  Give the folder of predicted label maps with -i.")
    return files


def _open_record(out: Path, steps: Sequence[Step], structures: Structures) -> RunRecord:
    """``postprocessed.json``: steps, structures, and per file its prediction's size and time and what was changed."""
    wanted = {"steps": [as_dict(step) for step in steps], "structures": structures.as_dict()["values"]}
    record = RunRecord.open(
        out / RECORD,
        {"created_with": f"nnunet-livseg {__version__}", **wanted},
        key="files",
        remedy="Delete it to process every file again.",
    )
    differing = record.differing(wanted)
    if "steps" in differing:
        raise _mixed(out, f"after other steps than {' '.join(map(as_text, steps)) or 'none'}")
    if differing:
        values = ", ".join(f"{name} {' '.join(map(str, found))}" for name, found in structures.values.items())
        raise _mixed(out, f"made with other label values than {values}")
    return record


def _is_done(record: RunRecord, prediction: Path) -> bool:
    name = prediction.name
    if not record.is_done(name, [record.path.with_name(name)]):
        return False
    return (record.entries[name] or {}).get("prediction") == _stamp(prediction)


def _mixed(out: Path, how: str) -> UserError:
    return UserError(
        f"{out} contains label maps {how} ({RECORD} names them), which could not be told apart from the new ones.\n"
        "  Choose another folder with -o, or delete this one."
    )


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
