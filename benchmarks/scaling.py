"""How the time of ``livseg segment`` grows with slices and with lesions; draws docs/images/scaling.png.

    python benchmarks/scaling.py CT --work DIR [--json docs/evidence/scaling.json]

CT is a real one that holds a liver. It is resampled to 512 x 512 pixels and each number of slices, and segmented by the
starter model in a fresh process on the CPU; seconds are those of its stage clock. Then balls of 6 mm, 10 mm apart, are
drawn as tumors into the liver of the CT with 300 slices, measured, and written as after a prediction. Rows in the JSON
file are not measured again.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk
import torch

matplotlib.use("agg")
import matplotlib.pyplot as plt
from fast_lane import Record, rounded  # beside this script
from segment import SEGMENT, enlarge, measured

from nnunet_livseg.core.clock import stage, stage_clock
from nnunet_livseg.core.labels import LIVER, TUMOR, mask_of
from nnunet_livseg.diagnostics.machine import processor_name
from nnunet_livseg.imaging.grid import spacing_of
from nnunet_livseg.imaging.images import on_grid
from nnunet_livseg.inference.segmenter import Segmenter
from nnunet_livseg.inference.starter_model import starter_liver_model
from nnunet_livseg.patient.measure import measure
from nnunet_livseg.patient.segmentation import Segmentation
from nnunet_livseg.report.result_folder import RECORD, write_result

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "scaling.png"
SLICES, LESIONS = (50, 100, 200, 300, 450, 600), (0, 1, 10, 100, 1000)
IN_PLANE, SLICES_WITH_LESIONS = 512, 300
APART_MM, RADIUS_MM = 10.0, 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="CTs and results are written below this folder")
    parser.add_argument("--json", type=Path, default=PICTURE.parents[1] / "evidence" / "scaling.json")
    args = parser.parse_args()
    record = Record(args.json)
    measure_all(args.ct, args.work, record)
    draw(record.content["rows"], PICTURE)


def measure_all(
    ct: Path, work: Path, record: Record, *, slices: Sequence[int] = SLICES, lesions: Sequence[int] = LESIONS
) -> None:
    """Everything that the record lacks; the last CT of ``slices`` up to 300 gets the lesions."""
    work.mkdir(parents=True, exist_ok=True)
    record.keep("machine", {"name": processor_name(), "threads": torch.get_num_threads(), "torch": torch.__version__})
    paths = {count: work / f"ct{count}.nii.gz" for count in slices}
    for count, path in paths.items():
        if not path.exists():
            enlarge(sitk.ReadImage(str(ct)), (count, IN_PLANE, IN_PLANE), path)
        if not record.row("slices", count):
            options = [option for option in SEGMENT if option != "--no-report"]
            peak, _ = measured("livseg", *options, path, "-o", work / "result", "--overwrite")
            record.add({"peak_gib": round(peak / 2**30, 2), "stages": stages_of(work / "result")}, "slices", count)
    missing = [count for count in lesions if not record.row("lesions", count)]
    if missing:
        middle = max(count for count in slices if count <= SLICES_WITH_LESIONS)
        found = Segmenter(starter_liver_model(), device="cpu").segment(paths[middle])
        for count, stages in zip(missing, with_lesions(found, missing, work / "drawn"), strict=True):
            record.add({"stages": stages}, "lesions", count)


def with_lesions(found: Segmentation, counts: Sequence[int], folder: Path) -> Iterator[dict[str, float]]:
    """Seconds of the stages after a prediction, for each number of drawn lesions.

    Raises:
        ValueError: The liver has no room for so many.
    """
    values = sitk.GetArrayFromImage(found.labels)
    liver = mask_of(values, found.structures[LIVER])
    spacing_mm = np.array(spacing_of(found.image))
    apart, reach = np.ceil(APART_MM / spacing_mm).astype(int), np.ceil(RADIUS_MM / spacing_mm).astype(int)
    inside = np.argwhere(liver[tuple(slice(None, None, step) for step in apart)]) * apart
    inside = inside[((inside >= reach) & (inside < np.array(liver.shape) - reach)).all(1)]
    offsets = np.argwhere(np.ones(2 * reach + 1)) - reach
    offsets = offsets[np.linalg.norm(offsets * spacing_mm, axis=1) <= RADIUS_MM]
    if len(inside) < max(counts):
        raise ValueError(f"the liver has room for {len(inside)} lesions, not {max(counts)}")
    order = np.random.default_rng(0).permutation(len(inside))
    for count in counts:
        drawn = np.where(liver, found.structures[LIVER][0], 0).astype(values.dtype)
        for center in inside[order[:count]]:
            drawn[tuple((center + offsets).T)] = found.structures[TUMOR][0]
        labels = on_grid(drawn, found.image)
        with stage_clock() as stages, stage("measure"):
            measurements, lesions = measure(found.image, labels, found.structures)
        assert len(measurements.lesions) == count
        provenance = replace(found.provenance, stages=stages)
        result = replace(found, labels=labels, measurements=measurements, lesions=lesions, provenance=provenance)
        write_result(result, folder)
        yield stages_of(folder)


def stages_of(folder: Path) -> dict[str, float]:
    """What the stage clock says about a result."""
    return rounded(json.loads((folder / RECORD).read_text())["made_with"]["seconds_by_stage"])


def draw(rows: Mapping[str, Mapping], path: Path) -> None:
    """Stacked bars of the stages over slices and over lesions."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    names = dict.fromkeys(name for row in rows.values() for name in row["stages"])
    colors = {name: f"C{number}" for number, name in enumerate(names)}
    titles = {"slices": "slices of 512 x 512 pixels, starter model", "lesions": "drawn lesions, 300 slices"}
    for ax, (kind, title) in zip(axes, titles.items(), strict=True):
        found = {key.split(" | ")[1]: row["stages"] for key, row in rows.items() if key.startswith(f"{kind} |")}
        low = np.zeros(len(found))
        for name in (name for name in names if any(name in stages for stages in found.values())):
            heights = np.array([stages.get(name, 0.0) for stages in found.values()])
            ax.bar(list(found), heights, bottom=low, label=name, color=colors[name])
            low = low + heights
        ax.set(xlabel=title, ylabel="seconds")
        ax.legend(fontsize=8, frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
