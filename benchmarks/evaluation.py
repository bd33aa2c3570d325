"""Time and memory of the evaluation on one large case, beside MedPy and MONAI in the same run.

    python benchmarks/evaluation.py [--out docs/evidence/evaluation_speed.md]

A synthetic liver with tumors (512 x 512 x 500 voxels of 0.74 x 0.74 x 0.8 mm) and an imperfect prediction of it are
written to files; then every candidate runs in a process of its own, on one thread, pinned to one processor where the
system can do that. MedPy and MONAI come with `pip install "nnunet-livseg[oracles]"`; what is missing is left out.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

SHAPE, SPACING_MM = (500, 512, 512), (0.8, 0.74, 0.74)
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1"
)


def phantom(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Reference and prediction (z, y, x): a bumpy liver of 3.7 l with 12 tumors of 3 to 22 mm radius, some missed."""
    rng = np.random.default_rng(seed)
    z, y, x = (np.arange(n, dtype=np.float32) for n in SHAPE)
    shell = (
        ((z / 130 - 250 / 130) ** 2)[:, None, None] + ((y / 110 - 240 / 110) ** 2)[:, None] + (x / 140 - 180 / 140) ** 2
    )
    shell += 0.10 * _bumps(rng, 40)
    reference = (shell < 1).astype(np.uint8)
    predicted = (shell + 0.03 * _bumps(rng, 30) + 0.01 * _bumps(rng, 6) < 1).astype(np.uint8)
    for number in range(12):
        center, radius = np.array([250, 240, 180]) + rng.uniform(-70, 70, 3), rng.uniform(4, 30)
        _ball(reference, center, radius)
        if number % 4:
            _ball(predicted, center + np.array([1, 2, 0]), radius * rng.uniform(0.8, 1.1))
    return predicted, reference


def _bumps(rng: np.random.Generator, size: int) -> np.ndarray:
    from scipy import ndimage

    coarse = rng.standard_normal([max(2, n // size) for n in SHAPE]).astype(np.float32)
    return ndimage.zoom(coarse, [n / m for n, m in zip(SHAPE, coarse.shape, strict=True)], order=1)


def _ball(labels: np.ndarray, center: np.ndarray, radius: float) -> None:
    low = np.maximum(np.floor(center - radius).astype(int), 0)
    box = tuple(slice(start, start + int(2 * radius) + 3) for start in low)
    part = labels[box]
    grid = np.indices(part.shape) + low[:, None, None, None]
    part[(np.square(grid - center[:, None, None, None]).sum(0) < radius**2) & (part > 0)] = 2


# ---- candidates: each returns the numbers it found, for both structures


def ours_everything(folder: Path) -> dict:
    """Files in, every metric of liver and tumor and all lesions out."""
    from nnunet_livseg.evaluation import evaluate_case

    result = evaluate_case(folder / "predicted.nii.gz", folder / "reference.nii.gz")
    return {name: {key: scores[key] for key in ("assd", "hd95", "hd")} for name, scores in result.structures.items()}


def ours_distances(masks: dict) -> dict:
    from nnunet_livseg.evaluation.mask_pair import MaskPair
    from nnunet_livseg.evaluation.surface_distances import SurfaceDistances

    found = {}
    for name, (predicted, reference) in masks.items():
        d = SurfaceDistances.of(MaskPair.of(predicted, reference, SPACING_MM))
        found[name] = {"assd": d.assd_mm(), "hd95": d.hd95_mm(), "hd": d.hd_mm()}
    return found


def monai_distances(masks: dict) -> dict:
    import torch
    from monai import metrics

    torch.set_num_threads(1)
    found = {}
    for name, pair in masks.items():
        a, b = (torch.from_numpy(mask)[None, None] for mask in pair)
        kw = {"include_background": True, "spacing": SPACING_MM}
        found[name] = {
            "assd": metrics.compute_average_surface_distance(a, b, symmetric=True, **kw).item(),
            "hd95": metrics.compute_hausdorff_distance(a, b, percentile=95, **kw).item(),
            "hd": metrics.compute_hausdorff_distance(a, b, **kw).item(),
        }
    return found


def medpy_distances(masks: dict) -> dict:
    """MedPy's HD95 pools both directions and its ASSD averages two means: other definitions of the same distances."""
    from medpy.metric import binary

    kw = {"voxelspacing": SPACING_MM, "connectivity": 1}
    return {
        name: {key: float(getattr(binary, key)(*pair, **kw)) for key in ("assd", "hd95", "hd")}
        for name, pair in masks.items()
    }


CANDIDATES = {
    "nnunet_livseg: every metric, files to result": (ours_everything, None),
    "nnunet_livseg: ASSD, HD95, HD": (ours_distances, None),
    "MONAI: ASSD, HD95, HD": (monai_distances, "monai"),
    "MedPy: ASSD, HD95, HD": (medpy_distances, "medpy"),
}


def run_one(name: str, folder: Path) -> None:
    """In a child process: run a candidate and print its time, peak memory and numbers as JSON."""
    function, _ = CANDIDATES[name]
    if function is ours_everything:
        argument: object = folder
        import nnunet_livseg.evaluation  # noqa: F401 - importing is not what is timed
    else:
        predicted, reference = np.load(folder / "predicted.npy"), np.load(folder / "reference.npy")
        argument = {"liver": (predicted > 0, reference > 0), "tumor": (predicted == 2, reference == 2)}
    start, cpu = time.perf_counter(), time.process_time()
    found = function(argument)
    print(json.dumps({
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform != "darwin" else 1) / 1e9,
        "found": found,
    }))  # fmt: skip


def measure(name: str, folder: Path, repeats: int) -> dict:
    """The fastest of some runs in fresh processes."""
    runs = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--candidate", name, "--folder", str(folder)]
        done = subprocess.run(
            command, env=os.environ | ONE_THREAD, capture_output=True, text=True, preexec_fn=_one_core
        )
        if done.returncode:
            why = f"killed by signal {-done.returncode}" if done.returncode < 0 else done.stderr
            raise SystemExit(f"{name} failed: {why}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return min(runs, key=lambda run: run["seconds"])


def _one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def write_case(folder: Path) -> None:
    import SimpleITK as sitk

    for name, labels in zip(("predicted", "reference"), phantom(), strict=True):
        np.save(folder / f"{name}.npy", labels)
        image = sitk.GetImageFromArray(labels)
        image.SetSpacing(SPACING_MM[::-1])
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))


def report(runs: dict[str, dict]) -> str:
    """A Markdown table with the distances found, so that everybody sees what was compared."""
    base = runs["nnunet_livseg: ASSD, HD95, HD"]
    lines = [
        "| candidate | wall s | CPU s | peak GB | CPU / ours | liver ASSD / HD95 / HD mm | tumor ASSD / HD95 / HD mm |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, run in runs.items():
        values = (" / ".join(f"{run['found'][s][m]:.4f}" for m in ("assd", "hd95", "hd")) for s in ("liver", "tumor"))
        ratio = f"{run['cpu_seconds'] / base['cpu_seconds']:.1f}" if "every metric" not in name else "-"
        figures = f"{run['seconds']:.1f} | {run['cpu_seconds']:.1f} | {run['peak_gb']:.2f} | {ratio}"
        lines.append(f"| {name} | {figures} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each candidate; the fastest counts")
    parser.add_argument("--candidate", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.candidate:
        run_one(args.candidate, args.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        write_case(Path(name))
        present = {key: need for key, (_, need) in CANDIDATES.items() if need is None or find_spec(need)}
        runs = {key: measure(key, Path(name), args.repeats) for key in present}
    text = report(runs)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
