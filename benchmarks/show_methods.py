"""All trained methods of real_tumors.py on the same slices of a CT that may be shown: where they go wrong.

    python benchmarks/show_methods.py WORK CT OUT.png --slices Z [Z ...]

WORK is the folder of ``real_tumors.py`` with its trainings. Their models see CT (in HU, clipped to the window of their
training) in the liver's box of the starter model. Liver with tumors magenta, tumors yellow; radiological display.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk
from PIL import Image
from real_tumors import DATASET, model_of  # beside this script
from short_trainings import STOCK, Job, all_jobs
from workplace import Workplace

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path
from nnunet_livseg.imaging.masks import bounding_box
from nnunet_livseg.inference.starter_model import starter_liver_model

matplotlib.use("agg")
import matplotlib.pyplot as plt

WINDOW_HU = (-40, 160)  # of lits_window
ACROSS = 5  # methods in a row of the sheet, at most
AROUND = 12  # pixels around what any method takes for liver


def segmented(place: Workplace, job: Job, ct: Path) -> np.ndarray:
    """Labels ``(Z, Y, X)`` that a method's folds give together, towards head, back and left."""
    out = place.folder / "shown" / job.name
    model = place.model(model_of(job))
    words = ("--liver-model", starter_liver_model(), "--disable_tta", "--formats", "none", "--no-report", "--quiet")
    place.call(f"shown/{job.name}", "livseg", "segment", ct, "-m", model, "-o", out, *words)
    return sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(out / "segmentation.nii.gz"), "LPS"))


def title_of(job: Job) -> str:
    """What stands over a method's pictures."""
    system = "nnU-Net" if job.system == STOCK else job.trainer.removesuffix("Trainer")
    return f"{system}, {job.recipe}" + (f", {job.repeat + 1}" if job.repeat else "")


def draw(image: np.ndarray, found: dict[str, np.ndarray], slices: Sequence[int], out: Path) -> None:
    """The sheet: a block of pictures per method, one picture per slice."""
    liver = np.any([labels[list(slices)] > 0 for labels in found.values()], axis=0)
    _, *box = bounding_box(liver)
    part = tuple(slice(max(0, side.start - AROUND), side.stop + AROUND) for side in box)
    blocks = -(-len(found) // ACROSS)
    rows, across = blocks * len(slices), -(-len(found) // blocks)
    figure, axes = plt.subplots(rows, across, figsize=(2.2 * across, 1.62 * rows), facecolor="black")
    for axis in axes.flat:
        axis.axis("off")
    for number, (title, labels) in enumerate(found.items()):
        for index, z in enumerate(slices):
            axis = axes[number // across * len(slices) + index, number % across]
            axis.imshow(image[z][part], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            for mask, color in ((labels[z][part] > 0, "#ff3df2"), (labels[z][part] == 2, "#ffd23d")):
                if mask.any():
                    axis.contour(mask, levels=[0.5], colors=color, linewidths=0.9)
            if not index:
                axis.set_title(title, color="white", fontsize=7)
    figure.tight_layout(pad=0.6)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80, facecolor="black")
    with atomic_path(out) as temporary:  # less than half of the size with 256 colors
        Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(
            temporary, format="png", optimize=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of real_tumors.py with its trainings")
    parser.add_argument("ct", type=Path, help="CT in HU that may be shown")
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--slices", type=int, nargs="+", required=True, help="axial, counted from the feet from 0")
    args = parser.parse_args()
    work = args.work.resolve()
    place = Workplace.opened(work, DATASET, script="real_tumors.py")
    clipped = work / "clipped.nii.gz"
    image = sitk.ReadImage(args.ct)
    with atomic_path(clipped) as temporary:
        sitk.WriteImage(sitk.Cast(sitk.Clamp(image, sitk.sitkInt16, *WINDOW_HU), sitk.sitkInt16), temporary)
    trained = [job for job in all_jobs() if any(place.model(model_of(job)).glob("fold_*/checkpoint_final.pth"))]
    found = {title_of(job): segmented(place, job, clipped) for job in trained}
    draw(sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS")), found, args.slices, args.out)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"show_methods: {error}")
