"""nnU-Net's real commands in fresh processes, on phantoms that are prepared once."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.data.phantom import write_dataset

SHORT = {"epochs": 2, "iterations": 2, "validation_iterations": 1}
SIZE, SPACING_MM = (32, 48, 64), (7.0, 6.0, 6.0)


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/nnunet" in item.nodeid:
            item.add_marker(pytest.mark.slow)


@dataclass
class Workplace:
    """nnU-Net's three folders below one, and a way to run commands there."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("raw", "preprocessed", "results"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.env = {
            **os.environ,
            **{f"nnUNet_{name}": str(self.folder / name) for name in ("raw", "preprocessed", "results")},
            "nnUNet_n_proc_DA": "2",
            "nnUNet_def_n_proc": "2",
            "OMP_WAIT_POLICY": "passive",  # tiny networks on few cores: waiting threads must not spin
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.env.pop("nnUNet_extTrainer", None)  # the start-up file must set it in the child

    @property
    def raw(self):
        return self.folder / "raw"

    @property
    def preprocessed(self):
        return self.folder / "preprocessed"

    @property
    def results(self):
        return self.folder / "results"

    def start(self, command, *args, **options):
        program = Path(sys.executable).with_name(command)
        arguments = [str(program), *map(str, args)]
        return subprocess.Popen(
            arguments, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )

    def run(self, command, *args, status=0):
        """Run a command of the environment; returns what it printed."""
        process = self.start(command, *args)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == status, f"{command} {' '.join(map(str, args))}\n{output[-4000:]}"
        return output

    def shorten(self, dataset, **recipe):
        """Make the stock plans small and give them a short recipe; the network in them stays nnU-Net's."""

        def change(configuration):
            configuration["livseg"] = {"recipe": SHORT | recipe}
            if "architecture" in configuration:
                configuration["batch_size"] = 2
                kwargs = configuration["architecture"]["arch_kwargs"]
                kwargs["features_per_stage"] = [min(width, 16) for width in kwargs["features_per_stage"]]

        self._change_stock_plans(dataset, change)

    def without_recipe(self, dataset):
        """Take the recipe out of the stock plans again, for livseg plan to start from."""
        self._change_stock_plans(dataset, lambda configuration: configuration.pop("livseg"))

    def _change_stock_plans(self, dataset, change):
        path = self.preprocessed / dataset / "nnUNetPlans.json"
        content = json.loads(path.read_text())
        for configuration in content["configurations"].values():
            change(configuration)
        path.write_text(json.dumps(content))

    def with_dataset(self, other, dataset):
        """Copy a dataset's raw and preprocessed data from another workplace."""
        for part in ("raw", "preprocessed"):
            shutil.copytree(other.folder / part / dataset, self.folder / part / dataset)
        return self


def prepare(folder, dataset, **phantom):
    """A phantom dataset, planned and preprocessed by nnU-Net."""
    place = Workplace(folder)
    write_dataset(
        place.raw / dataset,
        **{"cases": 5, "test_cases": 1, "size": SIZE, "spacing_mm": SPACING_MM, "progress": False, **phantom},
    )
    identifier = str(int(dataset[7:10]))
    place.run("nnUNetv2_plan_and_preprocess", "-d", identifier, "-np", 2, "-npfp", 2, "--verify_dataset_integrity")
    return place


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Dataset901_Phantom, with stock plans that train in seconds."""
    place = prepare(tmp_path_factory.mktemp("nnunet"), "Dataset901_Phantom")
    place.shorten("Dataset901_Phantom")
    return place


@pytest.fixture
def workplace(prepared, tmp_path):
    """A workplace of its own with Dataset901_Phantom in it."""
    return Workplace(tmp_path / "work").with_dataset(prepared, "Dataset901_Phantom")


def assert_segment_agrees(place, model, images, predicted, out):
    """``livseg segment`` in its standard quality writes the label map that nnU-Net has predicted, voxel for voxel."""
    place.run("livseg", "segment", *images, "--channels", "-m", model, "-o", out, "-device", "cpu", "--no-report")
    ours, theirs = (sitk.GetArrayFromImage(sitk.ReadImage(path)) for path in (out / "segmentation.nii.gz", predicted))
    assert np.array_equal(ours, theirs)
    assert len(np.unique(theirs)) > 1  # two empty label maps would agree too
