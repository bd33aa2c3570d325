"""Segmentations that say what each segment is: by what rule names become label values, on which grid.

A name decides, not a number: numbers of segments are those of a drawing session, names are for people. What a file
calls a segment is its label and, where it has one, its coded meaning.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.labels import LIVER, TUMOR, role_of_name
from nnunet_livseg.imaging.grid import ImageGrid

_TARGET = re.compile(r"gtv[\s_-]*\d*", re.IGNORECASE)  # a gross tumor volume; "Liver-GTV" is a liver without it


@dataclass(frozen=True)
class NamedSegments:
    """The segments of one file.

    Args:
        path: The file.
        names: By number, what the file calls a segment: its label first, then its coded meaning.
        mask: Takes a number and a grid; the segment as mask ``(z, y, x)``. A file of voxels knows its own grid only.
        grid: Where its voxels lie, or the image's that it was drawn on; None for contours without their series.
        numbered: Whether the numbers are label values, to fall back on where no name says liver or tumor.
        notes: What a reader of the results should know.
    """

    path: Path
    names: Mapping[int, tuple[str, ...]]
    mask: Callable[[int, ImageGrid], np.ndarray] = field(repr=False)
    grid: ImageGrid | None = None
    numbered: bool = False
    notes: tuple[str, ...] = ()

    def role(self, number: int) -> str:
        """``liver``, ``tumor`` or neither, ``""``, by the first of the segment's names that says one."""
        found = (TUMOR if _TARGET.fullmatch(name.strip()) else role_of_name(name) for name in self.names[number])
        return next(filter(None, found), "")

    def label(self, number: int) -> str:
        return self.names[number][0]

    def listed(self, role: str, *, shown: int = 3) -> str:
        """The labels of the segments of one role, the first few."""
        found = [repr(self.label(number)) for number in self.names if self.role(number) == role]
        return ", ".join(found[:shown]) + (f" and {len(found) - shown} more" if len(found) > shown else "")

    def values(
        self, structures: Mapping[str, tuple[int, ...]], given: Mapping[str, int] | None = None
    ) -> tuple[dict[int, int], list[int]]:
        """The label value of every segment in the order of painting (the tumor last), and those without one.

        Args:
            structures: Values of each structure; the liver includes the tumor's.
            given: Values that a person gives to labels of segments, in any case; they come first.

        A label that is a structure's own name has its value; else what it says decides: liver or tumor. Where no
        segment has a value so and numbers are label values, each has its own.
        """
        given = {name.lower(): value for name, value in (given or {}).items()}
        tumor = tuple(structures.get(TUMOR, ()))
        by_role = {LIVER: [v for v in structures.get(LIVER, ()) if v not in tumor], TUMOR: list(tumor)}
        by_name = {name.lower(): values for name, values in structures.items() if name not in (LIVER, TUMOR)}
        found = {}
        for number in self.names:
            label, role = self.label(number).lower(), self.role(number)
            if label in given:
                found[number] = given[label]
            elif values := by_name.get(label) or by_role.get(role):
                found[number] = values[0]
        if not found and self.numbered:
            return {number: number for number in self.names}, []
        layers = [by_role[LIVER], by_role[TUMOR]]  # whatever is in none of them is painted first
        ordered = sorted(found, key=lambda number: [found[number] in values for values in layers[::-1]])
        return {number: found[number] for number in ordered}, [n for n in self.names if n not in found]

    def label_map(self, values: Mapping[int, int], grid: ImageGrid) -> sitk.Image:
        """The segments painted one over the other in the order of ``values``."""
        largest = max(values.values(), default=0)
        labels = np.zeros(grid.size[::-1], np.uint8 if largest < 256 else np.uint16)
        for number, value in values.items():
            labels[self.mask(number, grid)] = value
        return grid.image(labels)
