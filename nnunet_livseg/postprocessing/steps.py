"""The rules of postprocessing: each is a small record that can be written down and that changes a label map.

A step joins by one class and one entry of ``STEPS``. Different from nnU-Net's own postprocessing, which keeps the
largest part of the foreground or of a label: lesions may be many, so theirs are judged by size and place.
"""

# Shapes: *S spatial sizes (z, y, x) or (y, x)

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER, TUMOR, Structures, mask_of
from nnunet_livseg.core.names import did_you_mean
from nnunet_livseg.imaging.masks import border_areas, box_with_rim, label_components, only_largest, voxel_counts

LESION_NEIGHBORS = 6  # a lesion hangs together through faces, as in the evaluation and in reports
LIVER_NEIGHBORS = 26  # as nnU-Net's own: a thin bridge of corners keeps a lobe


@dataclass(frozen=True)
class LargestLiver:
    """Only the largest connected part of the liver stays; smaller parts, with the tumors in them, become background."""

    name: ClassVar[str] = "largest-liver"
    needs: ClassVar[tuple[str, ...]] = (LIVER,)

    def change(self, labels: np.ndarray, structures: Structures, spacing_mm: tuple[float, ...]) -> str:
        """Change ``labels (*S)`` in place; returns what was changed, empty for nothing."""
        parts, count = label_components(mask_of(labels, structures.values[LIVER]), neighbors=LIVER_NEIGHBORS)
        if count < 2:
            return ""
        removed = (parts > 0) & ~only_largest(parts, count)
        labels[removed] = 0
        return f"{_many(count - 1, 'smaller part')} of the liver became background ({_voxels(removed)})"


@dataclass(frozen=True)
class TumorInLiver:
    """Tumors that do not lie in the liver become background.

    A tumor lies in the liver if it touches healthy liver of the largest part of the liver (tumors included), and if
    that makes up at least ``share`` of its surface. Where no healthy liver was predicted, nothing can be said.

    Args:
        share: 0 (touching is enough) to 1 (healthy liver all around).
    """

    share: float = 0.0
    name: ClassVar[str] = "tumor-in-liver"
    needs: ClassVar[tuple[str, ...]] = (LIVER, TUMOR)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UserError(f"{self.name}: the share of the surface is {self.share:g}; give a number from 0 to 1.")

    def change(self, labels: np.ndarray, structures: Structures, spacing_mm: tuple[float, ...]) -> str:
        """Change ``labels (*S)`` in place; returns what was changed, empty for nothing."""
        tumor = mask_of(labels, structures.values[TUMOR])
        organ = only_largest(*label_components(mask_of(labels, structures.values[LIVER]), neighbors=LIVER_NEIGHBORS))
        organ &= ~tumor
        if not organ.any():
            return ""
        box = box_with_rim(tumor)
        parts, count = label_components(tumor[box], neighbors=LESION_NEIGHBORS)
        touching = border_areas(parts, count, organ[box], spacing_mm=spacing_mm)
        surface = border_areas(parts, count, parts == 0, spacing_mm=spacing_mm)
        outside = (touching == 0) | (touching < self.share * surface)
        outside[0] = False
        if not outside.any():
            return ""
        removed = outside[parts]
        labels[box][removed] = 0
        return f"{_many(int(outside.sum()), 'tumor')} outside the liver became background ({_voxels(removed)})"


@dataclass(frozen=True)
class SmallestLesion:
    """Lesions below a volume become what they border most: healthy liver, background only where they border none.

    Args:
        volume_mm3: Lesions of this volume stay; mm2 for 2D images, pixels for images without a spacing.
    """

    volume_mm3: float
    name: ClassVar[str] = "smallest-lesion"
    needs: ClassVar[tuple[str, ...]] = (TUMOR,)

    def __post_init__(self) -> None:
        if not (self.volume_mm3 > 0 and math.isfinite(self.volume_mm3)):
            raise UserError(f"{self.name}: the volume is {self.volume_mm3:g} mm3; give a number above 0.")

    def change(self, labels: np.ndarray, structures: Structures, spacing_mm: tuple[float, ...]) -> str:
        """Change ``labels (*S)`` in place; returns what was changed, empty for nothing."""
        tumor = mask_of(labels, structures.values[TUMOR])
        box = box_with_rim(tumor)
        parts, count = label_components(tumor[box], neighbors=LESION_NEIGHBORS)
        small = voxel_counts(parts, count) * math.prod(spacing_mm) < self.volume_mm3
        small[0] = False
        if not small.any():
            return ""
        becomes = _bordering_values(parts, count, labels[box], structures, spacing_mm)
        removed = small[parts]
        labels[box][removed] = becomes[parts[removed]]
        n_liver = int((becomes[small] != 0).sum())
        made = {"liver": n_liver, "background": int(small.sum()) - n_liver}
        text = " and ".join(f"{_many(n, 'lesion')} became {what}" for what, n in made.items() if n)
        return f"of less than {self.volume_mm3:g} mm3, {text} ({_voxels(removed)})"


Step = LargestLiver | TumorInLiver | SmallestLesion
STEPS: dict[str, type[Step]] = {kind.name: kind for kind in (LargestLiver, TumorInLiver, SmallestLesion)}


def _bordering_values(
    parts: np.ndarray, count: int, labels: np.ndarray, structures: Structures, spacing_mm: tuple[float, ...]
) -> np.ndarray:
    """Per part, the value of healthy liver that it borders most, 0 where it borders none; ``(N + 1,)``."""
    healthy = [v for v in structures.values.get(LIVER, ()) if v not in structures.values[TUMOR]]
    values, most = np.zeros(count + 1, dtype=labels.dtype), np.zeros(count + 1)
    for value in healthy:
        areas = border_areas(parts, count, labels == value, spacing_mm=spacing_mm)
        values[areas > most] = value
        most = np.maximum(most, areas)
    return values


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _voxels(mask: np.ndarray) -> str:
    return f"{_many(int(np.count_nonzero(mask)), 'voxel')}"


def apply(
    labels: np.ndarray, spacing_mm: Sequence[float], structures: Structures, steps: Sequence[Step]
) -> tuple[np.ndarray, list[str]]:
    """A label map after ``steps``, in their order, and what each of them changed.

    Args:
        labels: Label map ``(z, y, x)`` or ``(y, x)``, integers; it is not changed.
        spacing_mm: Per axis of ``labels``; ones where the unit is pixels.
        structures: Which values are liver and tumor (``core.labels.structures_from_labels``).
        steps: What to do.

    Raises:
        UserError: A step needs a structure that these labels do not have.
    """
    for step in steps:
        require_structures(step, structures)
    spacing_mm = tuple(float(s) for s in spacing_mm)
    values = sorted({value for name in (LIVER, TUMOR) for value in structures.values.get(name, ())})
    box = box_with_rim(mask_of(labels, tuple(values)))
    changed, changes = labels.copy(), []
    for step in steps:
        text = step.change(changed[box], structures, spacing_mm)
        changes += [f"{as_text(step)}: {text}"] if text else []
    return changed, changes


def require_structures(step: Step, structures: Structures) -> None:
    """Reject a step that these labels have no structure for."""
    missing = [name for name in step.needs if name not in structures.values]
    if missing:
        raise UserError(
            f"the rule {step.name} needs a label for {' and '.join(missing)}, but {structures.source or 'the labels'} "
            f"only has {', '.join(structures.values) or 'none'}.\n  Remove the rule, or correct the labels."
        )


def as_text(step: Step) -> str:
    """A step as people type it: ``largest-liver``, ``smallest-lesion=30``."""
    return "=".join([step.name, *(f"{value:g}" for value in asdict(step).values())])


def as_dict(step: Step) -> dict:
    """A step as JSON types."""
    return {"step": step.name, **asdict(step)}


def from_dict(content: Mapping) -> Step:
    """The reverse of ``as_dict``.

    Raises:
        UserError: If there is no such step, or it has other parameters.
    """
    parameters = {name: value for name, value in content.items() if name != "step"}
    kind = _kind(str(content.get("step")))
    wanted = [field.name for field in fields(kind)]
    wrong = sorted(parameters.keys() ^ set(wanted))
    numbers = all(isinstance(value, (int, float)) for value in parameters.values())
    if wrong or not numbers:
        takes = f"the number {', '.join(wanted)}" if wanted else "no parameters"
        raise UserError(f"the rule {kind.name} takes {takes}, but was given {parameters}.")
    return kind(**parameters)


def parse_step(text: str) -> Step:
    """A step from what people type: ``largest-liver``, ``tumor-in-liver`` (touching), ``smallest-lesion=30``.

    Raises:
        UserError: If there is no such step, or its number is missing, not a number or out of range.
    """
    name, _, value = text.partition("=")
    kind = _kind(name)
    wanted = [field.name for field in fields(kind)]
    try:
        return kind(**dict(zip(wanted, [float(value)], strict=True))) if value else kind()
    except UserError:
        raise
    except (TypeError, ValueError):
        form = f"{name}=NUMBER ({wanted[0]})" if wanted else f"{name}, without a number"
        raise UserError(f"the rule {text!r} cannot be read.\n  Write {form}.") from None


def _kind(name: str) -> type[Step]:
    if name not in STEPS:
        raise UserError(f"there is no rule {name!r}.{did_you_mean(name, STEPS)}\n  Rules: {', '.join(STEPS)}.")
    return STEPS[name]
