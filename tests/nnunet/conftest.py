"""nnU-Net's real commands in fresh processes, on phantoms that are prepared once.

Where a test asks what a network does with labels, stages or scales, and not how a command starts, ``quick`` runs the
same commands without the seconds of imports (``tests/matrix/nnunet.py``).
"""

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
from filelock import FileLock

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.phantom import write_dataset

from ..matrix.nnunet import ENVIRONMENT, PLANNER, CommandFailed
from ..matrix.nnunet import Workplace as QuickWorkplace

SHORT = {"epochs": 2, "iterations": 2, "validation_iterations": 1}
SIZE, SPACING_MM = (32, 48, 64), (7.0, 6.0, 6.0)


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/nnunet" in item.nodeid:
            item.add_marker(pytest.mark.slow)


def for_planner(command):
    """What its planner needs."""
    return PLANNER if command.startswith("nnUNetv2_plan") else {}


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
            **ENVIRONMENT,  # a worker that nnU-Net starts imports torch again, which takes longer than these trainings
            "OMP_WAIT_POLICY": "passive",  # tiny networks on few cores: waiting threads must not spin
            "MATPLOTLIBRC": str(self.folder / "matplotlibrc"),
        }
        # nnU-Net draws the progress of every epoch in 16 megapixels
        (self.folder / "matplotlibrc").write_text("figure.dpi: 10\n")
        del self.env["PYTHONWARNINGS"]
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
            arguments,
            env=self.env | for_planner(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def run(self, command, *args, status=0):
        """Run a command of the environment; returns what it printed."""
        process = self.start(command, *args)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == status, f"{command} {' '.join(map(str, args))}\n{output[-4000:]}"
        return output

    def quick(self, command, *args, statuses=(0,)):
        """Run a command in a process that is forked from this one; returns what it printed."""
        place = QuickWorkplace(self.folder)
        place.log.unlink(missing_ok=True)
        try:
            place.run(command, *args, **for_planner(command))
        except (UserError, CommandFailed) as error:
            if any(str(error).endswith(f"SystemExit: {status}") for status in statuses):
                return place.said()
            raise AssertionError(f"{error}\n{place.log.read_text()[-4000:]}") from error
        return place.said()

    def shorten(self, dataset, **recipe):
        """Make the stock plans small and give them a short recipe; the network in them stays nnU-Net's."""

        def change(configuration):
            configuration["livseg"] = {"recipe": SHORT | recipe}
            if "architecture" in configuration:
                configuration["batch_size"] = 2
                kwargs = configuration["architecture"]["arch_kwargs"]
                kwargs["features_per_stage"] = [min(width, 8) for width in kwargs["features_per_stage"]]
                for name in ("n_conv_per_stage", "n_conv_per_stage_decoder"):
                    kwargs[name] = [1] * len(kwargs[name])

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

    def slow_down(self):
        """Let the epochs of fresh processes last as long as nnU-Net's drawing takes, for tests that interrupt them."""
        del self.env["MATPLOTLIBRC"]

    def with_dataset(self, other, dataset):
        """Copy a dataset's raw and preprocessed data from another workplace."""
        for part in ("raw", "preprocessed"):
            shutil.copytree(other.folder / part / dataset, self.folder / part / dataset)
        return self


def prepare(folder, dataset, *, configurations=("2d", "3d_fullres"), **phantom):
    """A phantom dataset, planned and preprocessed by nnU-Net."""
    place = Workplace(folder)
    write_dataset(
        place.raw / dataset,
        **{"cases": 5, "test_cases": 1, "size": SIZE, "spacing_mm": SPACING_MM, "progress": False, **phantom},
    )
    identifier = str(int(dataset[7:10]))
    few = ("-np", 1, "-npfp", 1, "-c", *configurations)
    place.quick("nnUNetv2_plan_and_preprocess", "-d", identifier, *few, "--verify_dataset_integrity")
    return place


def once_for_all_workers(tmp_path_factory, name, make):
    """A workplace that the first worker of pytest-xdist makes, and the others find."""
    shared = "PYTEST_XDIST_WORKER" in os.environ
    folder = (tmp_path_factory.getbasetemp().parent if shared else tmp_path_factory.getbasetemp()) / name
    with FileLock(f"{folder}.lock"):
        done = folder / "done"
        if not done.exists():
            make(folder)
            done.touch()
    return Workplace(folder)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Dataset901_Phantom, with stock plans that train in seconds."""

    def make(folder):
        prepare(folder, "Dataset901_Phantom").shorten("Dataset901_Phantom")

    return once_for_all_workers(tmp_path_factory, "nnunet", make)


@pytest.fixture(scope="session")
def sfan(prepared, tmp_path_factory):
    """SFAN trained on Dataset901_Phantom, 2D."""

    def make(folder):
        place = Workplace(folder).with_dataset(prepared, "Dataset901_Phantom")
        place.quick("nnUNetv2_train", 901, "2d", 0, "-tr", "SFANTrainer", "-device", "cpu")

    return once_for_all_workers(tmp_path_factory, "sfan", make)


@pytest.fixture
def workplace(prepared, tmp_path):
    """A workplace of its own with Dataset901_Phantom in it."""
    return Workplace(tmp_path / "work").with_dataset(prepared, "Dataset901_Phantom")


def assert_segment_agrees(run, model, images, predicted, out):
    """``livseg segment`` in its standard quality writes the label map that nnU-Net has predicted, voxel for voxel."""
    run("livseg", "segment", *images, "--channels", "-m", model, "-o", out, "-device", "cpu", "--no-report")
    ours, theirs = (sitk.GetArrayFromImage(sitk.ReadImage(path)) for path in (out / "segmentation.nii.gz", predicted))
    assert np.array_equal(ours, theirs)
    assert len(np.unique(theirs)) > 1  # two empty label maps would agree too
