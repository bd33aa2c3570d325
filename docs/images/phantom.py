"""Draw docs/images/phantom.png: run ``python docs/images/phantom.py`` in the project's folder."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from nnunet_livseg.data.phantom import PHASES, PhantomCase, make_case

WINDOW_HU = {"cmap": "gray", "vmin": -160, "vmax": 240}  # level 40, width 400
VIEWS = (("axial", 0, 22.0), ("axial", 0, -36.0), ("coronal", 1, -15.0), ("sagittal", 2, -70.0))


def plane(case: PhantomCase, phase: int, axis: int, at_mm: float) -> tuple[np.ndarray, float]:
    """A slice in radiological display, and the aspect of its pixels."""
    index = round((at_mm - case.grid.origin_mm[axis]) / case.grid.spacing_mm[axis])
    picture = case.image[phase].take(index, axis=axis)
    if axis:  # the head is at the top
        picture = picture[::-1]
    down, across = [s for i, s in enumerate(case.grid.spacing_mm) if i != axis]
    return picture, down / across


def main() -> None:
    """Two phases of one patient, and one tumor of each type in both."""
    case = make_case(10, (115, 288, 288), phases=2, tumors=(5, 5), tumor_diameter_mm=(24, 40))
    figure = plt.figure(figsize=(11, 9), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    slices, tumors = top.subplots(2, len(VIEWS)), bottom.subplots(2, len(case.tumors))
    for phase, name in enumerate(PHASES):
        for ax, (view, axis, at_mm) in zip(slices[phase], VIEWS, strict=True):
            picture, aspect = plane(case, phase, axis, at_mm)
            ax.imshow(picture, aspect=aspect, **WINDOW_HU)
            ax.set_title(f"{view}, {name}", fontsize=8)
        for ax, tumor in zip(tumors[phase], sorted(case.tumors, key=lambda t: t.type), strict=True):
            z, y, x = (round(i) for i in tumor.center_voxel)
            ax.imshow(case.image[phase, z, y - 22 : y + 23, x - 22 : x + 23], **WINDOW_HU)
            ax.set_title(f"{tumor.type}, {name}", fontsize=8)
    for ax in (*slices.flat, *tumors.flat):
        ax.axis("off")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=75)


if __name__ == "__main__":
    main()
