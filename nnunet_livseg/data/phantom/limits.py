"""Arguments of the phantom: limits, with the reason in the message."""

from collections.abc import Sequence
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import as_size, is_dataset_name, suggest_dataset_name
from nnunet_livseg.data.phantom.tissues import TUMOR_TYPES

FIELD_OF_VIEW_MM = (230.0, 265.0, 370.0)  # (z, y, x) of a scan of the upper abdomen
SMALLEST_SIZE = (16, 24, 24)
SMALLEST_VIEW_MM = (60.0, 120.0, 120.0)
LARGEST_SPACING_MM = 16.0


def default_spacing_mm(size: tuple[int, int, int]) -> tuple[float, float, float]:
    """Spacing (z, y, x) at which ``size`` voxels cover the upper abdomen; equal in y and x."""
    _check_size(size)
    z = FIELD_OF_VIEW_MM[0] / size[0]
    in_plane = max(FIELD_OF_VIEW_MM[1] / size[1], FIELD_OF_VIEW_MM[2] / size[2])
    return round(z, 3), round(in_plane, 3), round(in_plane, 3)


def check_options(
    *,
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    phases: int,
    tumors: tuple[int, int],
    tumor_types: Sequence[str],
    tumor_diameter_mm: tuple[float, float],
    arterial_only: float,
    noise_hu: float,
) -> None:
    """Reject arguments of ``make_case`` that cannot give a CT.

    Raises:
        UserError: With the argument, its value and the limit.
    """
    _check_size(size)
    _check_spacing(size, spacing_mm)
    if phases not in (1, 2):
        raise UserError(f"{phases} phases were asked for; the phantom has 1 (portal venous) or 2 (and arterial).")
    if not 0 <= tumors[0] <= tumors[1] <= 40:
        raise UserError(f"the number of tumors is {tumors[0]} to {tumors[1]}; give a range from 0 to 40.")
    unknown = [name for name in tumor_types if name not in TUMOR_TYPES]
    if unknown or not tumor_types:
        named = f"there is no tumor type {unknown[0]!r}" if unknown else "no tumor type is named"
        raise UserError(f"{named}. The phantom has {', '.join(TUMOR_TYPES)}.")
    if not 4 <= tumor_diameter_mm[0] <= tumor_diameter_mm[1] <= 120:
        raise UserError(f"tumor diameters are {tumor_diameter_mm} mm; give a range between 4 and 120 mm.")
    if not 0 <= arterial_only <= 1:
        raise UserError(f"the share of arterial-only tumors is {arterial_only}; give a number from 0 to 1.")
    if not 0 <= noise_hu <= 200:
        raise UserError(f"the noise is {noise_hu} HU; give a number from 0 to 200.")


def _check_size(size: tuple[int, int, int]) -> None:
    if len(size) != 3 or any(n < least for n, least in zip(size, SMALLEST_SIZE, strict=True)):
        least = as_size(SMALLEST_SIZE)
        raise UserError(
            f"the size is {tuple(size)} voxels (Z, Y, X), too small to show a liver.\n  Give at least {least}."
        )


def _check_spacing(size: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
    given = tuple(float(s) for s in spacing_mm)
    if len(given) != 3 or not all(0 < s <= LARGEST_SPACING_MM for s in given):
        raise UserError(
            f"the spacing is {given} mm (z, y, x), but each must be above 0 and at most {LARGEST_SPACING_MM:g} mm."
            "\n  Organs would fall between larger voxels."
        )
    covered = [n * s for n, s in zip(size, given, strict=True)]
    if any(c < least for c, least in zip(covered, SMALLEST_VIEW_MM, strict=True)):
        seen = as_size(covered, ".0f")
        least = as_size(SMALLEST_VIEW_MM, ".0f")
        raise UserError(
            f"{tuple(size)} voxels of {given} mm cover {seen} mm, too little to hold a liver with tumors.\n"
            f"  Cover at least {least} mm, or omit the spacing. The phantom then covers the upper abdomen."
        )


def check_dataset_folder_name(folder: Path) -> None:
    """nnU-Net finds datasets by their folder's name.

    Raises:
        UserError: nnU-Net does not find this name.
    """
    if not is_dataset_name(folder.name):
        example = folder.parent / suggest_dataset_name(folder.name)
        raise UserError(
            f"the folder {folder.name!r} is not named as nnU-Net wants it (Dataset, at least three digits, _Name),"
            f" so nnU-Net would not find it.\n  Use for example --out {example}"
        )
