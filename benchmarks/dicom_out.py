"""Time, memory and size of DICOM SEG and SR of a 512 x 512 x 600 CT.

    PYTHONPATH=tests/io:tests/report python benchmarks/dicom_out.py [--slices 600] [--lesions 20] [--folder FOLDER]

Writes a synthetic series (noise; 320 MB), reads it, and gives it a liver of 200 slices with round lesions. The peak
is that of writing alone (Linux: the kernel's counter is reset before); the result itself is held all the time.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from dicom_samples import FRAME_OF_REFERENCE, PROVENANCE, STRUCTURES, like
from io_samples import dicom_slices, save_slices

from nnunet_livseg.data.dicom import read_series
from nnunet_livseg.patient.segmentation import Diameter, Lesion, Measurements, Segmentation, StructureSize
from nnunet_livseg.report.dicom_seg import write_seg
from nnunet_livseg.report.dicom_sr import write_sr

SPACING_MM = (1.0, 0.8, 0.8)


def segmented(folder: Path, slices: int, count: int) -> Segmentation:
    rng = np.random.default_rng(0)
    shape = (slices, 512, 512)
    noise = rng.integers(-100, 200, shape, np.int16)
    save_slices(dicom_slices(noise, spacing_mm=SPACING_MM, FrameOfReferenceUID=FRAME_OF_REFERENCE), folder)
    image, info = read_series(folder)
    z, y, x = np.ogrid[:slices, :512, :512]
    middle = np.array([slices * 0.6, 220, 180])
    labels = (((z - middle[0]) / 100) ** 2 + ((y - 220) / 130) ** 2 + ((x - 180) / 120) ** 2 < 1).astype(np.uint8)
    lesions = np.zeros(shape, np.uint8)
    for number in range(1, count + 1):
        at, radius = middle + rng.uniform(-60, 60, 3), rng.uniform(4, 15)
        ball = (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 < radius**2
        lesions[ball & (lesions == 0)] = number
    labels[lesions > 0] = 2
    line = Diameter(10.0, ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)), int(middle[0]))
    box = (slice(0, 1),) * 3
    found = tuple(Lesion(n, 1.0, line, line, 50.0, 9.0, (0.0, 0.0, 0.0), box) for n in range(1, count + 1))
    measured = Measurements({name: StructureSize(1.0, 50.0, 9.0) for name in STRUCTURES}, found)
    return Segmentation(
        "case", image, like(image, labels), STRUCTURES, like(image, lesions), measured, PROVENANCE, series=info
    )


def memory_gb(field: str) -> float:
    """VmRSS (now) or VmHWM (highest since the last reset) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20


def measure(name: str, write, path: Path) -> None:
    Path("/proc/self/clear_refs").write_text("5")
    held, wall, cpu = memory_gb("VmRSS"), time.perf_counter(), time.process_time()
    write()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = path.stat().st_size / 2**20
    print(f"| {name} | {wall:.1f} | {cpu:.1f} | {held:.2f} | {memory_gb('VmHWM'):.2f} | {size:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--lesions", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = segmented(Path(folder) / "series", options.slices, options.lesions)
        seg, sr = Path(folder) / "seg.dcm", Path(folder) / "sr.dcm"
        print("| object | wall s | CPU s | GB held before | peak GB | MiB |\n|---|---:|---:|---:|---:|---:|")
        measure("DICOM SEG", lambda: write_seg(result, seg), seg)
        measure("TID 1500 report", lambda: write_sr(result, sr, seg=seg), sr)


if __name__ == "__main__":
    main()
