"""Checks of one case's voxels: geometry, intensities, label values."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.findings import Finding, error, warning
from nnunet_livseg.data.raw_dataset import RawCase
from nnunet_livseg.imaging.grid import GridDifference, ImageGrid, grid_differences
from nnunet_livseg.imaging.hounsfield import AIR_BELOW_HU, judge_hounsfield
from nnunet_livseg.imaging.images import UnreadableError, content_kind, load_image
from nnunet_livseg.imaging.nifti import not_finite

LIVER_MEAN_HU = (-30.0, 260.0)  # from fatty to late enhancement, with iron
NNUNET_SPACING = 1e-5  # relative: where nnUNetv2_plan_and_preprocess --verify_dataset_integrity stops


@dataclass(frozen=True)
class Rules:
    """What the voxels of a dataset are checked against.

    Args:
        values: Declared label values, with the ignore label.
        liver, tumor: Their label values; empty if unknown.
        ignore: Value of voxels that are not annotated.
        ct: Per channel, whether it is named CT.
    """

    values: tuple[int, ...]
    liver: frozenset[int]
    tumor: frozenset[int]
    ignore: int | None
    ct: tuple[bool, ...]


@dataclass(frozen=True)
class _Volume:
    path: Path
    array: np.ndarray
    grid: ImageGrid


def check_case(case: RawCase, rules: Rules) -> tuple[list[Finding], int | None]:
    """Check one case; returns the findings and a checksum of the first channel, by which copies are recognized.

    Files that are missing are left to ``check_description``. Memory: one channel and the label map at a time.
    """
    findings: list[Finding] = []
    label = _read(case, case.label, findings)
    first: _Volume | None = None
    checksum = None
    for channel, path in enumerate(case.images):
        volume = _read(case, path, findings)
        if volume is None:
            continue
        findings += _check_intensities(case, volume, ct=rules.ct[channel] if channel < len(rules.ct) else False)
        if first is None:
            checksum = zlib.crc32(np.ascontiguousarray(volume.array).data)
            findings += _check_liver(case, volume, label, rules)
            first = _Volume(volume.path, np.empty(volume.array.shape, bool), volume.grid)
        else:
            findings += _check_geometry(case, first, volume)
    if label is not None:
        if first is not None:
            findings += _check_geometry(case, first, label)
        findings += _check_label(case, label, rules)
    return findings, checksum


def _read(case: RawCase, path: Path, findings: list[Finding]) -> _Volume | None:
    import SimpleITK as sitk

    if not path.is_file():
        return None
    remedy = "\n  Copy or export the file again, or remove the case."
    try:
        if not path.stat().st_size:
            raise UnreadableError("", "it is damaged (0 bytes)")
        image, notes = load_image(path)
    except UnreadableError as failure:
        message = f"{path.name}: {failure.reason}. nnU-Net would stop, or train on what is left of it.{remedy}"
        findings.append(error("unreadable file", f"{case.name}: {message}", case.name))
        return None
    except UserError as rejected:  # the header
        findings.append(error("header", f"{case.name}: {rejected}", case.name))
        return None
    for note in notes:
        findings.append(
            warning(
                "header",
                f"{case.name}: {path.name}: {note}. nnU-Net's reader may take it otherwise.\n"
                "  Write the file again, for example with livseg convert.",
                case.name,
            )
        )
    array = sitk.GetArrayViewFromImage(image).copy()
    if image.GetNumberOfComponentsPerPixel() > 1 or array.ndim not in (2, 3):
        kind = f"{image.GetNumberOfComponentsPerPixel()} values per voxel, {image.GetDimension()} dimensions"
        findings.append(
            error(
                "several scans",
                f"{case.name}: {path.name} has {kind}; nnU-Net wants one gray-valued scan per file.\n"
                "  Save each phase as its own file: CASE_0000, CASE_0001, ...",
                case.name,
            )
        )
        return None
    return _Volume(path, array, ImageGrid.of(image))


def _check_geometry(case: RawCase, first: _Volume, other: _Volume) -> Iterator[Finding]:
    """Shape, spacing, origin and direction of ``other`` against the first channel."""
    names = f"{case.name}: {other.path.name} and {first.path.name}"
    if first.array.shape != other.array.shape:
        yield error(
            "shape",
            f"{names} have different shapes, {_text(other.array.shape)} and {_text(first.array.shape)} voxels"
            " (z, y, x), so they cannot belong together.\n  Resample one to the other's grid, or export it again.",
            case.name,
        )
        return
    differences = {one.part: one for one in grid_differences(other.grid, first.grid)}
    spacings = other.grid.spacing_mm, first.grid.spacing_mm
    if not np.allclose(*spacings, rtol=NNUNET_SPACING, atol=0):
        differences.setdefault("spacing", GridDifference("spacing", *spacings))
    for one in differences.values():
        theirs, mine = one.values()
        yield error(
            one.part,
            f"{names} differ in {one.part}: {theirs} and {mine} {'(by rows)' if one.part == 'direction' else 'mm'}"
            f"{'' if one.part == 'direction' else ' (x, y, z)'}. nnU-Net goes by voxel index:"
            " if the headers are right, it would train on shifted labels or phases.\n"
            "  Look at both in a viewer. If they fit there, resample one to the other; if they fit only by index,"
            " copy the right header.",
            case.name,
        )


def _voxels(count: int) -> str:
    return f"{int(count):,} voxel{'' if count == 1 else 's'}"


def _text(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{float(v):.6g}" for v in values) + ")"


def _check_intensities(case: RawCase, volume: _Volume, *, ct: bool) -> Iterator[Finding]:
    array, name = volume.array, f"{case.name}: {volume.path.name}"
    if bad := not_finite(volume.path, array):
        yield error(
            "NaN",
            f"{name} contains {_voxels(bad)} that are NaN or infinite; they would make the loss NaN, or, where"
            " SimpleITK reads the file, become 0 HU unnoticed.\n  Replace them, outside the body by -1024.",
            case.name,
        )
        array = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if low == high:
        yield error(
            "empty image",
            f"{name} is empty: all voxels are {low:g}, so there is nothing to learn from.\n"
            "  Export the image again, or remove the case.",
            case.name,
        )
    elif ct and (problem := judge_hounsfield(array, remedy="it with livseg convert --offset -1024").problem):
        # gray values are all that a picture can hold: whoever made a dataset of pictures has chosen so
        severity = warning if content_kind(volume.path) == "picture" else error
        yield severity("HU range", f"{name}: {problem}", case.name)
    elif ct and low > AIR_BELOW_HU:
        yield warning(
            "HU range",
            f"{name} has no voxel below {low:g} (highest {high:g}), so neither air nor fat. It was windowed, or stored"
            " without the offset of -1024. Results will not carry over to other CTs.\n"
            "  Export it in Hounsfield units (rescale slope and intercept applied).",
            case.name,
        )


def _check_liver(case: RawCase, volume: _Volume, label: _Volume | None, rules: Rules) -> Iterator[Finding]:
    """Whether the liver has the HU of a liver: finds wrong offsets, swapped files and labels that lie elsewhere."""
    if label is None or not rules.liver or not rules.ct[0] or label.array.shape != volume.array.shape:
        return
    inside = np.isin(label.array, list(rules.liver - rules.tumor or rules.liver))
    mean = float(np.mean(volume.array[inside], dtype=np.float64)) if inside.any() else np.nan
    if np.isfinite(mean) and not LIVER_MEAN_HU[0] <= mean <= LIVER_MEAN_HU[1]:
        yield warning(
            "liver HU",
            f"{case.name}: the mean over the liver is {mean:.0f} HU, outside {LIVER_MEAN_HU[0]:g} to"
            f" {LIVER_MEAN_HU[1]:g}: the offset of -1024 is missing, or label and image do not belong together.\n"
            "  Look at both in a viewer.",
            case.name,
        )


def _check_label(case: RawCase, label: _Volume, rules: Rules) -> Iterator[Finding]:
    name = f"{case.name}: {label.path.name}"
    if bad := not_finite(label.path, label.array):
        yield error(
            "label values",
            f"{name} contains {_voxels(bad)} that are NaN or infinite; as labels they have no meaning.\n"
            "  Export the label map again, as integers.",
            case.name,
        )
    values, counts = np.unique(label.array[np.isfinite(label.array)], return_counts=True)
    whole = values == np.round(values)
    if not whole.all():
        yield error(
            "label values",
            f"{name} contains {_voxels(counts[~whole].sum())} with a value that is not a whole number, for example"
            f" {float(values[~whole][0]):g}; it was probably resampled with interpolation.\n"
            "  Resample label maps with nearest neighbor, and save them as integers.",
            case.name,
        )
    found = dict(zip(values[whole].astype(int).tolist(), counts[whole].tolist(), strict=True))
    yield from _check_values(case, name, found, rules)
    yield from _check_tumors_in_liver(case, label.array, rules)


def _check_values(case: RawCase, name: str, found: dict[int, int], rules: Rules) -> Iterator[Finding]:
    """Label values (with their number of voxels) against the declared ones."""
    for value, count in found.items():
        if value not in rules.values:
            yield error(
                "label values",
                f"{name} contains the value {value} in {_voxels(count)}, which dataset.json does not declare"
                f" (there are {', '.join(map(str, rules.values))}), and nnU-Net would stop.\n"
                "  Declare it in labels, or correct the label map.",
                case.name,
            )
    if not found.keys() - {0, rules.ignore}:
        yield warning(
            "empty label",
            f"{name} is all background: fine for a scan without liver, otherwise the annotation is missing.\n"
            "  Check the file.",
            case.name,
        )


def _check_tumors_in_liver(case: RawCase, label: np.ndarray, rules: Rules) -> Iterator[Finding]:
    """Tumors that nowhere touch the liver: swapped labels, or findings of other organs."""
    liver_values = rules.liver - rules.tumor
    if not liver_values or not rules.tumor:
        return
    tumor = np.isin(label, list(rules.tumor))
    if not tumor.any():
        return
    (tight,) = ndimage.find_objects(tumor.astype(np.uint8))
    box = tuple(slice(max(side.start - 2, 0), side.stop + 2) for side in tight)
    tumor, liver = tumor[box], np.isin(label[box], [*liver_values, *({rules.ignore} - {None})])
    components, count = ndimage.label(tumor, np.ones((3,) * label.ndim))
    touching = set(np.unique(components[ndimage.binary_dilation(liver, iterations=2)]).tolist())
    outside = [number for number in range(1, count + 1) if number not in touching]
    if outside:
        voxels = int(np.isin(components, outside).sum())
        yield warning(
            "tumor outside the liver",
            f"{case.name}: {len(outside)} of {count} tumors ({_voxels(voxels)}) touch no liver.\n"
            "  Check that the values of liver and tumor are not swapped.",
            case.name,
        )
