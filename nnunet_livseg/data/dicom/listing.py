"""The series of a study: what each is, whether it can be a volume, and why not."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import as_size
from nnunet_livseg.data.dicom import contrast_phase
from nnunet_livseg.data.dicom.geometry import SAME_PLANE, Stack, stack
from nnunet_livseg.data.dicom.headers import CT, ENHANCED_CT, Slice, read_slices

ONE_SLICE = "only 1 slice, not a volume"
_READERS = 8  # reading headers waits for the disk
_SAME_SPACING = 1e-3  # relative


@dataclass(frozen=True)
class Series:
    """One stack of a study. A DICOM series that holds several (two phases under one number) is listed as several.

    Args:
        key: What to type to choose it: the series number, or ``3b`` where a number is there more than once.
        slices: Its images, in the order of their files.
        phase: ``native``, ``arterial``, ``portal venous``, ``delayed`` or empty.
        phase_reason: Why this phase.
        problem: Why it cannot become a volume; empty if it can.
        stack: Its geometry; None where there is a problem.
        unreadable: Files of the study that are damaged DICOM: they may be slices of this series.
    """

    key: str
    slices: tuple[Slice, ...]
    phase: str = ""
    phase_reason: str = ""
    problem: str = ""
    stack: Stack | None = None
    unreadable: tuple[Path, ...] = ()

    @property
    def uid(self) -> str:
        return self.slices[0].text("SeriesInstanceUID")

    @property
    def description(self) -> str:
        return self.slices[0].text("SeriesDescription")

    @property
    def modality(self) -> str:
        return self.slices[0].text("Modality")

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Slice, row and column distance; None without a geometry."""
        return self.stack.spacing_mm if self.stack else None


def list_series(files: Iterable[Path]) -> list[Series]:
    """All series of the files, ordered by number; skips files that are not DICOM images.

    Raises:
        UserError: Not one of the files is DICOM.
    """
    files = list(files)
    with ThreadPoolExecutor(_READERS) as pool:
        per_file = list(pool.map(read_slices, files))
    slices = [found for one in per_file for found in one]
    if not slices:
        raise UserError(
            f"none of the {len(files)} files is a DICOM image (the first: {files[0].name}).\n"
            "  Give the folder or zip that the scanner or PACS exported."
        )
    groups = sorted(_grouped(slices), key=lambda group: (_number(group[0]), _time_s(group[0]) or 0.0))
    numbers = [_number(group[0]) for group in groups]
    series = []
    for index, group in enumerate(groups):
        twin = numbers[:index].count(numbers[index])
        letter = chr(ord("a") + twin % 26) * (1 + twin // 26) if numbers.count(numbers[index]) > 1 else ""
        series.append(_described(f"{numbers[index]}{letter}", group))
    lost = [file for file, found in zip(files, per_file, strict=True) if not found]
    suffixes = {one.path.suffix for one in slices}
    unreadable = tuple(file for file in lost if _is_damaged(file, suffixes))
    return [replace(one, unreadable=unreadable) for one in _phased(series)]


def _is_damaged(file: Path, suffixes: Collection[str]) -> bool:
    """Whether a file that gave no image is DICOM all the same, or an empty one that is named as the others are."""
    with file.open("rb") as opened:
        start = opened.read(132)
    return start[128:] == b"DICM" or (not start and file.suffix in suffixes and file.name[0] != ".")


def choose(series: list[Series], wanted: str | int | None = None) -> Series:
    """The wanted series (key or SeriesInstanceUID), or the only one that can be a volume.

    Raises:
        UserError: No such series, several and none named, or none that can be a volume.
    """
    table = "\n".join(f"  {line}" for line in lines(series))
    if wanted is not None:
        wanted = str(wanted)
        found = [one for one in series if wanted in (one.key, one.uid)]
        if not found:
            raise UserError(f"there is no series {wanted!r}. There are:\n{table}")
        if len(found) > 1:
            raise UserError(f"series {wanted!r} contains {len(found)} stacks; name one of them by its number:\n{table}")
        return found[0]
    usable = [one for one in series if not one.problem]
    if not usable:
        raise UserError(f"no series here can be read as a CT volume:\n{table}")
    if len(usable) > 1:
        raise UserError(f"there are {len(usable)} CT series; choose one with --series:\n{table}")
    return usable[0]


def lines(series: list[Series]) -> list[str]:
    """The series as a table, one line each below a heading; no patient data."""
    rows = [("series", "modality", "slices", "spacing z y x (mm)", "phase", "description")]
    for one in series:
        spacing = as_size(one.spacing_mm, ".3g") if one.spacing_mm else "-"
        rows.append((one.key, one.modality or "-", str(len(one.slices)), spacing, one.phase or "-", one.description))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for line, one in enumerate(series, start=1):
        table[line] += f"  [not usable: {one.problem.splitlines()[0]}]" if one.problem else ""
    if series and (lost := series[0].unreadable):
        shown = ", ".join(path.name for path in lost[:5]) + (", ..." if len(lost) > 5 else "")
        table.append(f"{_count(lost)} and may be slices that are missing above: {shown}")
    return table


def unreadable_note(series: Series) -> list[str]:
    """A remark on files that may be missing slices. Without their names, which may be the patient's."""
    return [f"{_count(series.unreadable)}; slices may be missing at the ends"] if series.unreadable else []


def _count(files: tuple[Path, ...]) -> str:
    return "1 DICOM file is damaged" if len(files) == 1 else f"{len(files)} DICOM files are damaged"


def _grouped(slices: list[Slice]) -> list[list[Slice]]:
    """Images of one series and one plane; then one group per phase where positions repeat."""
    kinds = defaultdict(list)
    for one in slices:
        kinds[one.text("SeriesInstanceUID"), one.text("SOPClassUID"), one.is_localizer].append(one)
    return [group for kind in kinds.values() for plane in _planes(kind) for group in _by_phase(plane)]


def _planes(slices: list[Slice]) -> list[list[Slice]]:
    """Images of one size and orientation together."""
    planes, lost = [], []
    for one in slices:
        if one.axes is None or one.spacing_mm is None:
            lost.append(one)
        elif plane := next((plane for plane in planes if _same_plane(plane[0], one)), None):
            plane.append(one)
        else:
            planes.append([one])
    if lost and planes:  # they belong to their series' largest plane, and are named there as what is wrong with it
        max(planes, key=len).extend(lost)
    return planes or [lost]


def _same_plane(one: Slice, other: Slice) -> bool:
    """By tolerance, because rounding to a key would part two headers that jitter about a rounding edge."""
    return (
        all(one.get(side) == other.get(side) for side in ("Rows", "Columns"))
        and np.allclose(one.spacing_mm, other.spacing_mm, rtol=_SAME_SPACING, atol=0)
        and np.abs(one.axes - other.axes).max() <= 2 * SAME_PLANE  # two that one mean may hold are so far apart
    )


def _by_phase(plane: list[Slice]) -> list[list[Slice]]:
    """Split a stack whose positions repeat by the first attribute that makes every part free of repetition."""
    if not _repeats(plane):
        return [plane]
    for keyword in ("AcquisitionNumber", "TemporalPositionIdentifier", "AcquisitionTime"):
        parts = defaultdict(list)
        for one in plane:
            parts[one.text(keyword)].append(one)
        if 1 < len(parts) <= len(plane) // 2 and not any(_repeats(part) for part in parts.values()):
            return list(parts.values())
    return [plane]  # repeated images: dropped or rejected when the pixels can be compared


def _repeats(plane: list[Slice]) -> bool:
    positions = [tuple(np.round(one.position_mm, 2)) for one in plane if one.position_mm is not None]
    return len(set(positions)) < len(positions)


def _described(key: str, group: list[Slice]) -> Series:
    series = Series(key, tuple(group))
    problem = _not_a_ct(series)
    if not problem:
        try:
            return replace(series, stack=stack(group))
        except UserError as error:
            problem = str(error)
    return replace(series, problem=problem)


def _not_a_ct(series: Series) -> str:
    first = series.slices[0]
    if first.text("SOPClassUID") not in (CT, *ENHANCED_CT) and first.text("Modality") != "CT":
        return f"modality {series.modality or 'not stated'}, not CT"
    if not first.get("Rows"):
        return "contains no image"
    if first.is_localizer:
        return "localizer (scout view)"
    if int(first.number("SamplesPerPixel") or 1) != 1:
        return "color picture, not Hounsfield units (secondary capture)"
    if first.text("SOPClassUID") not in (CT, *ENHANCED_CT):
        return "secondary capture or derived object, not a CT image"
    if len(series.slices) < 3:
        frames = int(first.number("NumberOfFrames") or 1)
        if frames > 1 and first.text("SOPClassUID") not in ENHANCED_CT:
            return f"{frames} frames without positions in one file (old multi-frame, not an enhanced CT)"
        return ONE_SLICE if len(series.slices) == 1 else f"only {len(series.slices)} slices, not a volume"
    return ""


def _phased(series: list[Series]) -> list[Series]:
    """Add the phase guesses; those by order need all series of the study."""
    guessed = []
    for one in series:
        first = one.slices[0]
        guess = contrast_phase.from_description(one.description, first.text("ProtocolName"))
        injected, acquired = contrast_phase.seconds(first.text("ContrastBolusStartTime")), _time_s(first)
        delay_s = acquired - injected if injected is not None and acquired is not None else None
        guess = guess if guess[0] else contrast_phase.from_injection(delay_s)
        guessed.append(replace(one, phase=guess[0], phase_reason=guess[1]) if not one.problem else one)
    unknown = [one for one in guessed if not one.problem and not one.phase and one.slices[0].get("ContrastBolusAgent")]
    ordered = contrast_phase.from_order([_time_s(one.slices[0]) for one in unknown])
    by_order = {one.key: guess for one, guess in zip(unknown, ordered, strict=True)}
    return [
        replace(one, phase=by_order[one.key][0], phase_reason=by_order[one.key][1]) if one.key in by_order else one
        for one in guessed
    ]


def _number(one: Slice) -> int:
    return int(one.number("SeriesNumber") or 0)


def _time_s(one: Slice) -> float | None:
    times = (
        contrast_phase.seconds(one.text(keyword))
        for keyword in ("AcquisitionTime", "AcquisitionDateTime", "SeriesTime")
    )
    return next((time for time in times if time is not None), None)
