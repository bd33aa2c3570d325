"""Segmented CTs as folders: one call for one patient, or many with one loaded model, resumed after an interruption."""

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_livseg.core.clock import watched_stages
from nnunet_livseg.core.errors import DoneButError, UserError, explain
from nnunet_livseg.core.files import digest, read_json, stamps
from nnunet_livseg.core.names import numbered_names, require_options
from nnunet_livseg.core.output_folder import foreign_files, require_folder, require_nothing_foreign
from nnunet_livseg.imaging.images import WriteError
from nnunet_livseg.inference.ct_input import unpacked
from nnunet_livseg.inference.segmenter import READING, SEGMENTER_OPTIONS, Segmenter
from nnunet_livseg.patient.segmentation import Segmentation
from nnunet_livseg.report.result_folder import LABELS, OURS, RECORD, ResultFiles, is_of_a_result, write_result


def segment(
    given: object, model: str | Path | None = None, *, output: str | Path | None = None, **options
) -> Segmentation:
    """Segment one CT: ``segment("study.zip", MODEL_FOLDER, output="result", quality="fast")``.

    For several CTs make one ``Segmenter`` and call its ``segment``: the model is then loaded once.

    Args:
        given: DICOM folder or zip, volume file, SimpleITK or nibabel image, array; see ``ct_input.read_ct``.
        model: Folder ``TRAINER__PLANS__CONFIGURATION`` of any nnU-Net training; left out, the starter model.
        output: Folder to write; left out, nothing is written.
        options: Those of ``ResultFiles`` (``report``, ``formats``, ``identifiers``) and of ``ct_input.read_ct``
            (``name``, ``spacing_mm``, ``series``, ...); all others are ``Segmenter``'s (``quality``, ...).

    Raises:
        UserError: The model cannot be used, the CT not be read, or the folder not be written.
    """
    of_files = {field.name for field in fields(ResultFiles)}
    require_options("segment", options, READING | SEGMENTER_OPTIONS | of_files)
    reading = {key: options.pop(key) for key in READING if key in options}
    files = ResultFiles(**{name: options.pop(name) for name in of_files if name in options})
    segmenter = Segmenter(model, **options)
    if output is not None:
        _require_nothing_foreign(require_folder(output, inputs=_paths(given), writes=OURS))
    with unpacked(given) as place:
        result = segmenter.segment(place, **reading)
        if output is not None:
            write_result(result, output, files=files)
    return result


def segment_all(
    inputs: Sequence[Path | tuple[Path, ...]],
    segmenter: Segmenter,
    out: Path,
    *,
    files: ResultFiles | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    **reading,
) -> list[Path]:
    """Segment every input and write its folder; if one cannot be read, the others are still segmented.

    Args:
        inputs: Paths; a tuple is one CT with several channels.
        segmenter: The model.
        out: For one input its folder; for several the folder of their folders, which are named as the results are.
        files: What is written beside label map and measurements.
        overwrite: Segment again what the same call has finished before; for one input, replace another's result.
        say: Takes one line of progress.
        reading: Options of ``ct_input.read_ct``.

    Returns:
        Folders of the results, in the order of the inputs; an input that is given twice has one.

    Raises:
        UserError: Nothing can be written to ``out``, or it holds the result of another CT; the only input failed; or,
            after all others were done, which inputs failed and why.
        DoneButError: All is done but for a report, preview or DICOM object.
    """
    alone, files = len(inputs) == 1, files or ResultFiles()
    require_folder(out, inputs=[path for given in inputs for path in _paths(given)], writes=OURS)
    whole = _finished([out] if alone else sorted(out.glob("*/")))
    holders = {folder: record.get("input", "") for folder, record in whole.items()}
    finished = {} if overwrite else {record.get("request"): folder for folder, record in whole.items()}
    folders: list[Path] = []
    failed: list[str] = []
    broken: list[str] = []

    def note_broken(name: str, error: Exception) -> None:
        if not isinstance(error, OSError | UserError):
            traceback.print_exception(error)
        broken.append(f"{folder / name}: {explain(error)}")

    series = reading.get("series")
    wanted = {_mark(given, series): given for given in inputs}  # an input that is given twice counts once
    bar = tqdm(total=len(wanted), desc="segment", unit="CT", disable=not segmenter.progress)
    with bar, watched_stages(bar.set_description):

        def tell(text: str) -> None:
            with tqdm.external_write_mode(file=sys.stdout):
                say(text)
            bar.update()

        for mark, given in wanted.items():
            request = _request(given, segmenter, files, reading)
            if request in finished:
                folders.append(finished[request])
                tell(f"{finished[request]}: finished before; --overwrite segments it again")
                continue
            if alone and not overwrite:
                _require_nothing_foreign(out)
                _require_own(out, mark, holders)
            try:
                with unpacked(given) as place:
                    result = segmenter.segment(place, **reading)
                    folder = out if alone else _place(out / result.name, mark, holders)
                    write_result(result, folder, files=files, request=request, given=mark, on_failure=note_broken)
            except Exception as error:  # a CT can be too large, damaged as no reader expects, or break nnU-Net
                if alone or isinstance(error, WriteError):
                    raise
                failed.append(f"{_shown(given)}: {explain(error)}")
                tell(f"{_shown(given)}: failed; continuing with the next")
                continue
            holders[folder] = mark
            folders.append(folder)
            record = read_json(folder / RECORD, keys=("notes", "made_with"), remedy="Run again with --overwrite.")
            tell("\n  ".join([f"{folder}: {summary(result)}", *record["notes"], _times(record)]))
    lost = "\n".join(["label maps and measurements are written, but these files are not:", *broken])
    if failed:
        texts = [f"{len(failed)} of {len(inputs)} inputs failed.", *failed, *([lost] if broken else [])]
        raise UserError("\n".join(texts))
    if broken:
        raise DoneButError(f"{lost}\n  The same command tries them again. If the disk is not full, please report this.")
    return folders


def summary(result: Segmentation) -> str:
    """One line about what was found."""
    found = result.measurements
    parts = [f"{name} {size.volume_ml:.1f} ml" for name, size in found.structures.items()]
    if found.lesions is not None:
        parts.append(f"{len(found.lesions)} lesion{'' if len(found.lesions) == 1 else 's'}")
    return f"{', '.join(parts)} in {result.provenance.seconds:.0f} s"


def _times(record: Mapping[str, Any]) -> str:
    """A line about where the time went."""
    stages = record["made_with"]["seconds_by_stage"]
    return "seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items())


def _request(given: Path | tuple[Path, ...], segmenter: Segmenter, files: ResultFiles, reading: dict) -> str:
    """Digest of everything that a result depends on. Paths of inputs may name patients, so nothing else is kept."""
    wish = {
        "inputs": [_state(path) for path in _paths(given)],
        "model": [_state(path) for path in segmenter.weights()],
        "settings": segmenter.settings(),
        "files": asdict(files),
        "reading": reading,
    }
    return digest(wish)


def _mark(given: Path | tuple[Path, ...], series: str | int | None) -> str:
    """Digest of the input's place and series, whatever becomes of its content and of all other options."""
    chosen = [] if series is None else [f"series {series}"]
    return digest([str(path.absolute()) for path in _paths(given)] + chosen)


def _require_own(folder: Path, mark: str, holders: Mapping[Path, str]) -> None:
    """Reject the folder of another CT's result; older records do not say whose they are."""
    if holders.get(folder) not in (None, "", mark):
        raise UserError(
            f"{folder} contains the result of another CT, which would be lost.\n"
            "  Choose another folder, or replace that result with --overwrite."
        )


def _require_nothing_foreign(folder: Path) -> None:
    require_nothing_foreign(folder, OURS, record=RECORD, made_before=is_of_a_result(folder))


def _paths(given: object) -> list[Path]:
    """The files and folders of an input, which may have several channels; images and arrays have none."""
    parts = given if isinstance(given, tuple | list) else (given,)
    return [Path(part) for part in parts if isinstance(part, str | Path)]


def _state(path: Path) -> list:
    """What changes when a file or a folder's files change."""
    return stamps(file for file in [path, *sorted(path.rglob("*"))] if file.is_file())


def _finished(folders: Sequence[Path]) -> dict[Path, dict]:
    """Folders with a whole result, and its record."""
    found = {}
    for folder in folders:
        with suppress(UserError):
            record = read_json(folder / RECORD, remedy="")
            if (folder / LABELS).is_file():
                found[folder] = record
    return found


def _place(first: Path, mark: str, holders: Mapping[Path, str]) -> Path:
    """The folder in which the input's last result lies, or a new one: ``first``, numbered where others have it."""
    places = [first.with_name(name) for name in islice(numbered_names(first.name), len(holders) + 1)]
    more = (first.with_name(name) for name in numbered_names(first.name))
    own = [place for place in places if holders.get(place) == mark]
    return own[0] if own else next(place for place in more if place not in holders and not _is_foreign(place))


def _is_foreign(folder: Path) -> bool:
    return bool(foreign_files(folder, OURS, made_before=is_of_a_result(folder)))


def _shown(given: Path | tuple[Path, ...]) -> str:
    return " + ".join(map(str, _paths(given)))
