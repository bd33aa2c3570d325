"""Study files, nnU-Net's folders for them, and the real command in fresh processes."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.data.phantom import write_dataset

DATASET = "Dataset901_Phantom"
SIZE, SPACING_MM = (32, 48, 48), (7.5, 7.3, 7.3)  # as in the demo
TINY = """
device = "cpu"
[settings]
epochs = 3
iterations = 3
validation_iterations = 1
learning_rate = 3e-3
batch = 2
features = [8, 16, 24, 32]
"""
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class Place:
    """nnU-Net's folders below one, and ``livseg study`` there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = os.environ | {name: str(folder / name) for name in FOLDERS}
        self.env |= {"OMP_WAIT_POLICY": "passive", "CUDA_VISIBLE_DEVICES": "", "MATPLOTLIBRC": str(folder / "rc")}
        self.env.pop("nnUNet_extTrainer", None)
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "rc").write_text("figure.dpi: 10\n")  # nnU-Net draws the progress of every epoch in 16 megapixels

    def phantoms(self, cases: int = 8, test_cases: int = 0):
        counts = {"cases": cases, "test_cases": test_cases}
        write_dataset(
            self.folder / "nnUNet_raw" / DATASET,
            **counts, size=SIZE, spacing_mm=SPACING_MM, tumor_diameter_mm=(25, 60), progress=False)  # fmt: skip
        return self

    def study(self, text: str, name: str = "study.toml") -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def start(self, *words: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "nnunet_livseg.cli", "study", *map(str, words)]
        return subprocess.Popen(
            command, env=self.env, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *words: object, status: int = 0) -> str:
        process = self.start(*words)
        output, _ = process.communicate(timeout=3600)
        assert process.returncode == status, output[-4000:]
        return output

    def fold(self, model: str, fold: object = 0) -> Path:
        return self.folder / "nnUNet_results" / DATASET / model / f"fold_{fold}"


def dataset_of(place: Place, cases: int) -> None:
    """A raw dataset of so many cases, without their images."""
    content = {"labels": {"background": 0, "liver": 1, "tumor": 2}, "channel_names": {"0": "CT"}}
    content |= {"numTraining": cases, "file_ending": ".nii.gz"}
    folder = place.folder / "nnUNet_raw" / DATASET
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


def finish(training) -> None:
    """As a training looks that has ended; its predictions are not made."""
    (training.folder / "validation").mkdir(parents=True, exist_ok=True)
    (training.folder / "checkpoint_final.pth").touch()
    (training.folder / "validation" / "summary.json").write_text(json.dumps({"mean": {}}, indent=4))


def write(path: Path, labels) -> None:
    """Write a label map; a number fills a small one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.full((6, 16, 16), labels) if np.isscalar(labels) else labels
    image = sitk.GetImageFromArray(labels.astype(np.uint8))
    image.SetSpacing((1.0, 1.0, 2.0))
    sitk.WriteImage(image, str(path))


def jobs_below(place: Place) -> list[int]:
    """Process ids of jobs whose study file lies in ``place``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"job" in words and any(word.startswith(str(place.folder).encode()) for word in words):
            found.append(int(path.parent.name))
    return found


def kill(process: int) -> None:
    """As the kernel kills, and only what is still there."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Empty folders of nnU-Net, which this process uses as well."""
    found = Place(tmp_path)
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path / name))
    return found
