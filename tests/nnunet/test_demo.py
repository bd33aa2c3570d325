"""livseg demo as a user runs it, shortened, and what it does when it is run again or interrupted."""

import json
import re
import time

import pytest

from nnunet_livseg.diagnostics import demo
from nnunet_livseg.variants import find_variant


def test_demo_ends_with_dice_and_pictures_and_goes_on_where_it_stopped(workplace, tmp_path):
    folder = tmp_path / "demo"
    command = ("livseg", "demo", "--out", folder, "--cases", 2, "--epochs", 1, "--iterations", 2, "-device", "cpu")
    said = workplace.quick(*command)
    assert re.search(r"a training step takes [\d.]+ s here: about \d+ min in all", said)
    rows = re.findall(r"\| unseen_00\d \| (0\.\d+) \| (0\.\d+|nan) \|", said)
    assert len(rows) == 2
    assert f"everything is in {folder}" in said
    report = (folder / "evaluation" / "report.html").read_text()
    assert report.count('aria-label="axial slice') == report.count('aria-label="coronal slice') == 2
    assert report.count('href="data:image/png;base64,') == 4, "the CT must lie behind the outlines"
    assert (folder / "dice.md").read_text().strip() in said
    model = folder / "nnUNet_results/Dataset901_Phantom/DPCNetTrainer__DPCNetPlans__3d_fullres/fold_all"
    plans = json.loads((model.parent / "plans.json").read_text())["configurations"]["3d_fullres"]
    trained_one = (plans["patch_size"], plans["batch_size"], plans["architecture"]["arch_kwargs"]["features_per_stage"])
    assert trained_one == (list(demo.SIZE), demo.BATCH, list(demo.FEATURES)), "the forecast measures another network"
    trained = (model / "checkpoint_final.pth").stat().st_mtime_ns
    assert len(re.findall(r"\| unseen_00\d \|", workplace.quick(*command))) == 2
    assert (model / "checkpoint_final.pth").stat().st_mtime_ns == trained, "a finished training must not run again"


def test_demo_shows_why_a_step_failed(workplace, tmp_path):
    folder = tmp_path / "demo"
    workplace.env["nnUNet_n_proc_DA"] = "none"  # nnU-Net cannot read this as a number
    command = ("livseg", "demo", "--out", folder, "--cases", 2, "--epochs", 1, "--iterations", 1, "-device", "cpu")
    said = workplace.run(*command, status=1)
    assert re.search(r"livseg demo: nnUNetv2_plan_and_preprocess failed \(exit status 1\)", said)
    assert "ValueError" in said and f"{folder / 'logs' / 'preprocess.log'}" in said


def test_a_demo_that_is_told_to_end_ends_its_command(tmp_path):
    """Its training was waited for until its end."""

    class ToldToEnd(KeyboardInterrupt):
        pass

    def end(_):
        raise ToldToEnd

    one = demo.Demo(tmp_path, find_variant("dpcnet"), device="cpu")
    began = time.monotonic()
    with pytest.raises(ToldToEnd):
        one._call("step", "python", "-c", "import time; print('begins', flush=True); time.sleep(60)", follow=end)
    assert time.monotonic() - began < 30


def test_the_forecast_grows_with_steps_and_with_their_time():
    assert demo.seconds_in_all(1.0, 100) > 100
    assert demo.seconds_in_all(2.0, 100) == 2 * demo.seconds_in_all(1.0, 100)
    assert demo.seconds_in_all(1.0, 200) > 1.5 * demo.seconds_in_all(1.0, 100)
    assert demo.seconds_in_all(0.001, 100) == demo.LEAST_S  # a GPU's steps; the commands still have to start
