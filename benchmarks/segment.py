"""What ``livseg segment`` costs, beside nnU-Net's own command, and what its quality presets bring.

    python benchmarks/segment.py memory MODEL CT [--size 600 512 512]     peak memory and time, and differing voxels
    python benchmarks/segment.py presets MODEL IMAGES LABELS [PRESET ...] Dice, time and memory of fast, standard, best
    python benchmarks/segment.py resampling [--size 300 512 512]          logits resampled by the plans and by torch
    python benchmarks/segment.py crop CT LABELS [CT LABELS ...]           what --crop leaves of a CT, and what it loses

With --liver-model MODEL, presets look at the liver's box only.

MODEL is a folder of nnUNet_results; IMAGES and LABELS are folders as in a raw dataset. `memory` first resamples CT to
the size in voxels. Commands run one after the other in fresh processes on the CPU, with the report left out; memory is
the sum over a command's processes (PSS, Linux).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from nnunet_livseg import evaluate_case
from nnunet_livseg.imaging.grid import spacing_of
from nnunet_livseg.imaging.liver_crop import LiverBox, find_liver_box
from nnunet_livseg.inference.case_predictor import CasePredictor
from nnunet_livseg.inference.ct_input import read_ct
from nnunet_livseg.inference.quality import Quality
from nnunet_livseg.inference.segmenter import MARGIN_MM, Segmenter
from nnunet_livseg.inference.starter_model import starter_liver_model
from nnunet_livseg.inference.trained_model import TrainedModel

PRESETS = ("fast", "standard", "best")
SEGMENT = ("segment", "--formats", "none", "-device", "cpu", "--no-report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    memory = parts.add_parser("memory")
    memory.add_argument("model", type=Path)
    memory.add_argument("ct", type=Path)
    memory.add_argument("--size", type=int, nargs=3, default=(600, 512, 512), metavar=("Z", "Y", "X"))
    presets = parts.add_parser("presets")
    for name in ("model", "images", "labels"):
        presets.add_argument(name, type=Path)
    presets.add_argument("presets", nargs="*", default=PRESETS, choices=PRESETS)
    presets.add_argument("--liver-model", type=Path)
    resampling = parts.add_parser("resampling")
    resampling.add_argument("--size", type=int, nargs=3, default=(300, 512, 512), metavar=("Z", "Y", "X"))
    crop = parts.add_parser("crop")
    crop.add_argument("pairs", type=Path, nargs="+", metavar="CT LABELS", help="labels: 1 liver, 2 tumor")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.part == "resampling":
            compare_resampling(tuple(args.size))
        elif args.part == "crop":
            what_crop_loses(args.pairs)
        elif args.part == "memory":
            compare_memory(args.model, args.ct, tuple(args.size), Path(folder))
        else:
            finder = ("--liver-model", args.liver_model) if args.liver_model else ()
            compare_presets(args.model, args.images, args.labels, Path(folder), args.presets, finder)


def compare_memory(model: Path, ct: Path, size: tuple[int, int, int], folder: Path) -> None:
    """Both commands on one CT with all folds, but no mirroring and patches side by side: they only take time."""
    images = folder / "images"
    images.mkdir()
    enlarge(sitk.ReadImage(str(ct)), size, images / "ct_0000.nii.gz")
    folds = sorted(folder.name.removeprefix("fold_") for folder in model.glob("fold_*"))
    plain = ("-f", *folds, "--disable_tta", "-step_size", "1")
    ours = (*SEGMENT, images / "ct_0000.nii.gz", "-m", model, *plain)
    theirs = ("-i", images, "-o", folder / "theirs", "-m", model, "-device", "cpu", "-npp", "1", "-nps", "1", *plain)
    print("| command | peak memory | time |\n|---|---|---|")
    print(row("livseg segment", *measured("livseg", *ours, "-o", folder / "ours")))
    uncertain = measured("livseg", *ours, "-o", folder / "uncertain", "--uncertainty")
    print(row("livseg segment --uncertainty", *uncertain))
    print(row("nnUNetv2_predict", *measured("nnUNetv2_predict_from_modelfolder", *theirs)))
    found, expected = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        for path in (folder / "ours" / "segmentation.nii.gz", folder / "theirs" / "ct.nii.gz")
    )
    print(f"\n{np.count_nonzero(found != expected)} of {found.size:,} voxels differ")


def compare_presets(
    model: Path, images: Path, labels: Path, folder: Path, presets: Sequence[str], options: Sequence[object]
) -> None:
    """Mean Dice over all images, time and memory of the whole command, which loads the model once."""
    cts = sorted(images.glob("*_0000.nii.gz"))
    print("| `--quality` | liver Dice | tumor Dice | seconds per CT | peak memory |\n|---|---|---|---|---|")
    for preset in presets:
        out = folder / preset
        peak, seconds = measured("livseg", *SEGMENT, *cts, "-m", model, "-o", out, "--quality", preset, *options)
        names = [path.name.removesuffix("_0000.nii.gz") for path in cts]
        pairs = [(out / name / "segmentation.nii.gz", labels / f"{name}.nii.gz") for name in names]
        scores = np.array([dice(*pair) for pair in pairs]).mean(axis=0)
        per_ct = np.mean(
            [json.loads((out / n / "measurements.json").read_text())["made_with"]["seconds"] for n in names]
        )
        print(f"| {preset} | {scores[0]:.3f} | {scores[1]:.3f} | {per_ct:.1f} | {peak / 2**30:.1f} GiB |", flush=True)
        print(f"{preset}: {seconds:.0f} s for {len(cts)} CTs with start and loading", file=sys.stderr)


def compare_resampling(size: tuple[int, int, int]) -> None:
    """CPU seconds and memory beside the logits of both ways to labels, on one thread."""
    torch.set_num_threads(1)
    low = torch.randn(1, 3, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    own = tuple(round(n * share) for n, share in zip(size, (0.8, 0.7, 0.7), strict=True))
    logits = torch.nn.functional.interpolate(low, size=own, mode="trilinear")[0].half()
    properties = {"spacing": [1.0] * 3, "shape_after_cropping_and_before_resampling": size}
    model, found = TrainedModel.open(starter_liver_model()), []
    print("| logits resampled | CPU seconds | memory beside the logits |\n|---|---:|---:|")
    for name, by_torch in (("by torch", True), ("by the plans", False)):
        quality = Quality(name, all_folds=False, mirroring=False, step_size=0.5, torch_resampling=by_torch)
        predictor = CasePredictor(model, quality=quality, device="cpu")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, start = memory_in("VmRSS"), time.process_time()
        found.append(predictor._decided(predictor._slabs(logits, properties), properties, set())[0])
        seconds, peak = time.process_time() - start, memory_in("VmHWM") - before
        print(f"| {name} | {seconds:.1f} | {peak / 2**30:.2f} GiB |", flush=True)
    print(f"\n{np.count_nonzero(found[0] != found[1])} of {found[0].size:,} voxels differ")


def what_crop_loses(files: Sequence[Path]) -> None:
    """The box that --crop finds: its share of the CT, and the shares of reference liver and tumor that lie in it."""
    print("| CT | box, share of the CT | liver in the box | tumor in the box |\n|---|---:|---:|---:|")
    for path, reference in zip(files[::2], files[1::2], strict=True):
        box = box_of_crop(path)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(reference)))
        place = (slice(None),) * 3 if box is None else box.slices
        structures = [share_inside(labels >= value, place) for value in (1, 2)]
        shares = [labels[place].size / labels.size, *structures]
        print(f"| {path.name.partition('.')[0]} | {' | '.join(f'{share:.2%}' for share in shares)} |", flush=True)


def share_inside(mask: np.ndarray, place: tuple[slice, ...]) -> float:
    """Which part of a mask lies in a box; NaN without a mask."""
    return np.count_nonzero(mask[place]) / (np.count_nonzero(mask) or np.nan)


def box_of_crop(path: Path) -> LiverBox | None:
    """Where --crop looks in a CT; None: everywhere."""
    ct = read_ct(path)
    finder = Segmenter(starter_liver_model(), quality="fast", device="cpu", crop=False)
    return find_liver_box(finder.find_liver(ct, rough=True), spacing_mm=spacing_of(ct.image), margin_mm=MARGIN_MM)


def memory_in(key: str) -> int:
    """Bytes of this process, by the kernel's name for them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def enlarge(image: sitk.Image, size: tuple[int, int, int], path: Path) -> None:
    """The same patient on a grid of ``size`` (z, y, x) voxels."""
    wanted = size[::-1]
    spacing = [s * (n - 1) / (m - 1) for s, n, m in zip(image.GetSpacing(), image.GetSize(), wanted, strict=True)]
    place = (image.GetOrigin(), spacing, image.GetDirection())
    sitk.WriteImage(sitk.Resample(image, wanted, sitk.Transform(), sitk.sitkLinear, *place), str(path))


def measured(command: str, *args: object) -> tuple[int, float]:
    """Peak memory in bytes and wall time in seconds of a command of this environment."""
    start = time.perf_counter()
    program = Path(sys.executable).with_name(command)
    peak = 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([program, *map(str, args)], stdout=log, stderr=log)
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(0.2)
        log.seek(0)
        if process.returncode:
            sys.exit(f"{command} failed:\n{log.read().decode()[-2000:]}")
    return peak, time.perf_counter() - start


def memory_of(pid: int) -> int:
    """Bytes of a process and all below it; memory that they share counts once."""
    try:
        own = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return 0
    shares = [int(line.split()[1]) * 1024 for line in own.splitlines() if line.startswith("Pss:")]
    return sum(shares) + sum(memory_of(int(child)) for child in children)


def dice(predicted: Path, reference: Path) -> tuple[float, float]:
    scores = evaluate_case(predicted, reference).structures
    return scores["liver"]["dice"], scores["tumor"]["dice"]


def row(name: str, peak: int, seconds: float) -> str:
    return f"| `{name}` | {peak / 2**30:.1f} GiB | {seconds:.0f} s |"


if __name__ == "__main__":
    main()
