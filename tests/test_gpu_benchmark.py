"""benchmarks/gpu.py in miniature on a CPU: every part, and what a second call does."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.phantom import write_dataset

from .matrix.nnunet import Workplace as QuickWorkplace
from .test_results import script

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    return script(SCRIPT)


@pytest.fixture
def settings(gpu):
    return gpu.Settings(
        device="cpu",
        rows=("sfan", "sfan-unet"),
        patch_3d=(32, 32, 32),
        patch_2d=(32, 32),
        batch=1,
        batch_2d=1,
        repeats=1,
        spacing=(14.0, 12.0, 12.0),
        patch=(16, 16, 16),
        features=(2, 4, 6),
        validation=2,
        epochs=1,
        again=0,
        steps=2,
    )


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "Dataset901_Phantom"
    return write_dataset(path, cases=4, size=(16, 24, 24), spacing_mm=(14.0, 12.0, 12.0), progress=False)


@pytest.fixture
def quick(gpu, monkeypatch, tmp_path):
    """Commands are forked from this process, without the seconds of imports; returns what was run."""
    said = []

    def run(words, *, env, **_):
        said.append([Path(words[0]).name, *words[1:]])
        QuickWorkplace(tmp_path).run(*said[-1], **{name: value for name, value in env.items() if "nnUNet_" in name})
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(sys.modules["workplace"].subprocess, "run", run)
    return said


class Answers:
    """In lieu of the process that measures: what it would answer, and what it was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __call__(self, *job):
        self.asked.append(job)
        return self.answer(*job)

    def close(self):
        pass


@pytest.fixture
def run(gpu, settings, source, tmp_path):
    return gpu.Run(source, tmp_path / "work", settings, minutes=25, call_minutes=9)


def test_a_failed_row_has_its_message_and_the_next_one_is_measured(gpu, run):
    def answer(job, network, settings):
        if network.dim == 3:
            return {"error": "OutOfMemoryError: CUDA out of memory | 3 GiB"}
        cost = {
            "name": network.row,
            "parameters": 1,
            "flops": 1.0,
            "memory_mib": 1.0,
            "step_s": 2.0,
            "inference_s": 1.0,
        }
        setup = {"patch": [32, 32], "batch": 1, "device": "cuda", "device_name": "H", "repeats": 1, "threads": 1}
        stock = cost | {"name": "nnU-Net", "step_s": 1.0}
        setting = setup | {"compiled": network.compiled, "torch": "2"}
        return {"setting": setting, "networks": [{"stock": stock, "variant": cost}]}

    run.measurer = Answers(answer)
    first, others = gpu.networks(run)
    gpu.measure_networks(run, [*first, *others])
    text = run.file.with_suffix(".md").read_text()
    assert "| sfan | OutOfMemoryError: CUDA out of memory / 3 GiB |" in text
    assert "| sfan-unet | 0.00M (1.00x) | 0.0 G (1.00x) | 2000 ms (2.00x) |" in text
    gpu.measure_networks(run, first)
    assert len(run.measurer.asked) == 4, "measured twice"


def test_the_systems_come_first_and_twice_on_a_gpu(gpu, settings, source, tmp_path):
    on_gpu = replace(settings, device="cuda", rows=gpu.rows_of([]))
    first, others = gpu.networks(gpu.Run(source, tmp_path, on_gpu, minutes=25, call_minutes=9))
    assert [one.row for one in first[:5]] == ["dpcnet", "sfan", "mpunet", "mfcnet", "sam-urim"]
    assert [one.compiled for one in first] == [False] * 10 + [True] * 10
    assert not any(one.compiled for one in others)
    assert {one.row for one in [*first, *others]} == set(on_gpu.rows)


def test_a_part_without_time_is_left_to_the_next_call(gpu, run):
    run.measurer = Answers(lambda *job: {"error": "none"})
    run._call_minutes = 0.1
    with pytest.raises(gpu.OutOfTime):
        gpu.measure_networks(run, gpu.networks(run)[0])
    assert not run.measurer.asked and run.left_s(calls=True) > 1000
    later = gpu.Run(run.source, run.place.folder, run.settings, minutes=25, call_minutes=9)
    run._spent = 24 * 60
    run.save()
    later = gpu.Run(run.source, run.place.folder, run.settings, minutes=25, call_minutes=9)
    assert 0 < later.left_s() < 61, "the minutes count over all calls"


def test_all_trainings_together_fill_the_time(gpu, run, monkeypatch):
    """A pilot of 70 s with two epochs of 20 and 10 s: 40 s around the steps, and half a second for a step."""
    run.settings = replace(run.settings, steps=None, epochs=10)
    run.measurer = Answers(lambda job, system, settings: {"sfan": 1.5}.get(system, 0.1))
    monkeypatch.setattr(gpu, "write_stock_plans", lambda *_: None)
    monkeypatch.setattr(gpu, "_epoch_seconds", lambda folder: [20.0, 10.0])
    run.place.steps["pilot"] = {"wall_s": 70.0}
    found = gpu.steps_that_fit(run, gpu.trainings(run))
    steps = found["epochs"] * found["iterations"]
    assert found["seconds"] == {"nnunet": 40 + 0.5 * steps, "sfan": 40 + 1.5 * steps}
    assert sum(found["seconds"].values()) == pytest.approx(25 * 60 - gpu.AFTER_TRAINING_S, abs=10 * 2.0 + 5)


def test_a_process_that_dies_or_fails_is_a_message(gpu, monkeypatch):
    measurer = gpu.Measurer()
    assert measurer("nothing") == {"error": "KeyError: 'nothing'"}
    measurer._process.kill()
    measurer._process.join()
    assert measurer("nothing") == {"error": "KeyError: 'nothing'"}, "there is no new process"
    monkeypatch.setattr(gpu, "PATIENCE_S", 0)
    assert measurer("nothing") == {"error": "it did not end within 0 s"}
    measurer.close()


def test_equal_labels_are_counted(gpu, tmp_path):
    labels = np.zeros((2, 3, 5), np.uint8)
    labels[0, 0, :4] = 1
    for name, seconds in (("device", 1.0), ("cpu", 9.0)):
        (tmp_path / name).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(labels), tmp_path / name / "segmentation.nii.gz")
        made = {"made_with": {"seconds": seconds}}
        (tmp_path / name / "measurements.json").write_text(json.dumps(made))
        labels[0, 0, :2] = 2, 0
    found = gpu.agreement(tmp_path / "device", tmp_path / "cpu")
    assert found == {"voxels": 30, "different": 2, "dice": 6 / 7, "device_s": 1.0, "cpu_s": 9.0}
    assert "93.3333% (2 differ) | 0.85714 | 1.0 s | 9.0 s" in gpu.segment_table({"ct": found})[-1]


def test_a_smaller_copy_has_the_labels_of_half_of_the_pixels(gpu, tmp_path):
    labels = np.zeros((1, 2, 4), np.uint8)
    labels[0, 0, 0], labels[0, :, 2], labels[0, 0, 3] = 1, 2, 1  # one of four; two tumor and one liver
    for kind, name, array in (("imagesTr", "a_0000", 100 * labels.astype(np.int16)), ("labelsTr", "a", labels)):
        (tmp_path / "in" / kind).mkdir(parents=True)
        sitk.WriteImage(sitk.GetImageFromArray(array), tmp_path / "in" / kind / f"{name}.nii.gz")
    (tmp_path / "in" / "dataset.json").write_text("{}")
    gpu.shrink(tmp_path / "in", tmp_path / "out")
    made = [sitk.ReadImage(tmp_path / "out" / name) for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")]
    assert [sitk.GetArrayFromImage(image).tolist() for image in made] == [[[[25, 125]]], [[[0, 2]]]]
    assert made[1].GetPixelID() == sitk.sitkUInt8 and made[0].GetSpacing() == (2, 2, 1)


def test_no_image_is_written_into_the_repository(gpu, settings, source):
    with pytest.raises(UserError, match="lies inside the repository"):
        gpu.everything(source, SCRIPT.parent / "gpu", settings, cts=[], minutes=1)


@pytest.mark.long  # has not been seen to its end yet: run it by hand before you rely on part 2 and 3
def test_everything_once(gpu, settings, source, quick, tmp_path):
    ct = next((source / "imagesTr").iterdir())
    work = tmp_path / "work"
    found = gpu.everything(source, work, settings, cts=[ct], minutes=600)

    assert {name: list(table) for name, table in found["networks"].items()} == {
        "3D, eager": ["sfan", "sfan-unet"],
        "2D, eager": ["sfan", "sfan-unet"],
    }
    (segmented,) = found["segment"].values()
    assert segmented["different"] == 0 and segmented["voxels"] == 16 * 24 * 24
    assert list(found["trainings"]) == ["nnunet", "sfan"]
    assert all(set(one["dice"]) == {"liver", "tumor"} for one in found["trainings"].values()), found["trainings"]
    text = (work / "gpu.md").read_text()
    assert text.startswith("device ") and "driver none, torch " in text.splitlines()[0]
    assert "error" not in text and text.count("| sfan | ") == 3
    assert json.loads((work / "gpu.json").read_text()) == found

    quick.clear()
    assert gpu.everything(source, work, settings, cts=[ct], minutes=600)["trainings"] == found["trainings"]
    assert not quick, "finished steps were repeated"
