"""benchmarks/starter_model.py in miniature: each call does what is left, and nothing in the repository."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from nnunet_livseg import segment
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.phantom import write_dataset
from nnunet_livseg.inference import starter_model as starter
from nnunet_livseg.inference.safe_weights import SafeWeights
from nnunet_livseg.reference_networks import build

from .matrix.nnunet import forked_run
from .test_results import script

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "starter_model.py"
TINY = "--epochs 1 --iterations 1 --validation-iterations 1 --patch 16 16 16 --spacing 16 16 16 --features 2 4 6"


def command_line(source, work, *folds, options=()):
    words = ["--work", work, "--threads", 1, "--folds", *folds, *options, "--", *TINY.split()]
    return [str(word) for word in (SCRIPT, source, *words)]


def call(source, work):
    return subprocess.run([sys.executable, *command_line(source, work)], capture_output=True, text=True, timeout=600)


@pytest.fixture
def quick(monkeypatch, capsys):
    """The script here, its commands forked; returns what it printed."""
    starter_model = script(SCRIPT)
    monkeypatch.setattr(sys.modules["workplace"], "subprocess", SimpleNamespace(run=forked_run))

    def run(*arguments, **options):
        monkeypatch.setattr(sys, "argv", command_line(*arguments, **options))
        starter_model.main()
        return capsys.readouterr().out

    return run


def test_no_image_is_written_into_the_repository(tmp_path):
    said = call(tmp_path, SCRIPT.parent / "starter")
    assert said.returncode == 1
    assert "lies inside the repository, where no patient's image may be written" in said.stderr
    assert not (SCRIPT.parent / "starter").exists()


def test_a_source_that_is_no_dataset(tmp_path):
    said = call(tmp_path, tmp_path / "work")
    assert said.returncode == 1 and "there is no dataset.json in" in said.stderr


def test_the_mean_of_two_trainings_keeps_tensors_with_several_names():
    first, second = torch.zeros(2), torch.full((2,), 3.0)
    made = [SafeWeights({"a": one, "b": one, "c": one + 1}, "T", "2d", None) for one in (first, second)]
    mean = script(SCRIPT).mean_weights(*made)
    assert [values.tolist() for values in mean.parameters.values()] == [[1.5, 1.5], [1.5, 1.5], [2.5, 2.5]]
    assert mean.parameters["a"] is mean.parameters["b"] and mean.trainer == "T"


@pytest.mark.slow
def test_made_from_nothing_and_continued(tmp_path, quick, monkeypatch):
    source = write_dataset(tmp_path / "Dataset901_Phantom", cases=5, size=(16, 24, 24), spacing_mm=(14.0, 12.0, 12.0))
    work, liver = tmp_path / "work", ("--stages", "liver")
    first = quick(source, work, options=liver)  # cut off before the training
    assert " nnUNetv2_preprocess " in first and "train_on_cpu" not in first
    second = quick(source, work, "0", options=liver)
    assert "train_on_cpu" in second and "preprocess" not in second.partition("\non ")[0]
    assert "fold_0: 1 epochs in 0." in second and "on cpu " in second
    (model,) = (work / "nnUNet_results").glob("*/*")
    weights = load_file(next((model / "fold_0" / "weights").glob("*.safetensors")))
    plans = json.loads((model / "plans.json").read_text())
    network = build(plans["configurations"]["3d_fullres"])
    assert not network.load_state_dict(weights, strict=False).unexpected_keys
    trained = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    torch.testing.assert_close(dict(network.state_dict()), dict(trained))
    with pytest.raises(UserError, match="--init: there is no file"):
        quick(source, work, "all", options=("--init", tmp_path / "missing.safetensors"))
    with pytest.raises(UserError, match="--average: there is no file"):
        quick(source, work, "0", options=("--average", tmp_path / "missing.pth"))
    scores = tmp_path / "scores"
    third = quick(source, work, "0", "all", options=("--ship", tmp_path / "starter", "--scores", scores))
    commands = [line for line in third.splitlines() if " -tr " in line]
    trained = [line.partition("train_on_cpu.py --threads 1 ")[2].split()[:3:2] for line in commands]
    assert trained == [["811", "all"], ["812", "0"], ["812", "all"]], "fold 0 of the liver was trained again"
    assert "Initial weights from" in (work / "logs" / "DPCNetUNetStarterInitPlans_fold_all.log").read_text()
    folder = tmp_path / "starter"
    assert {path.suffix for path in folder.rglob("*.*")} == {".json", ".safetensors"}
    assert not [path for path in folder.rglob("*.json") if str(tmp_path) in path.read_text()]
    monkeypatch.setattr(starter, "FOLDER", folder)
    shipped = [starter.starter_liver_model(), starter.starter_model()]
    plans = [json.loads((model / "plans.json").read_text())["configurations"]["3d_fullres"] for model in shipped]
    assert ["torch" in one["resampling_fn_data"] for one in plans] == [True, False]
    image = next((source / "imagesTr").iterdir())
    found = segment(image, shipped[0], device="cpu")
    again = segment(
        image, work / "nnUNet_results" / "Dataset811_LiTSWindow" / shipped[0].name, folds="all", device="cpu"
    )
    assert found.labels.GetSize() == again.labels.GetSize()
    both = segment(image, device="cpu")  # finds no liver so early, or looks into its box
    assert both.provenance.model.endswith(shipped[1].name)
    assert both.provenance.settings["liver first"].startswith(f"starter/{shipped[0].name}, crop, 30 mm")
    assert [path.name for path in scores.iterdir()] == ["starter_fold_0.json.gz"]
    (work / "starter_model.json").unlink()
    quick(source, work, options=("--scores", scores))  # as on a day without a training
    found = json.loads((work / "starter_model.json").read_text())["scores"]
    (patient,) = json.loads(next((work / "nnUNet_preprocessed").glob("*/splits_final.json")).read_text())[0]["val"]
    assert found["fold_of_patient"] == {patient: "0"} and found["trainings"][0]["epochs"] == 1
    assert found["dice_of_patient"][patient].keys() == {"liver", "tumor"}
    assert found["tumor_ml_of_patient"][patient]["reference"] > 0
    init = shipped[0] / "fold_all" / "checkpoint_final.safetensors"
    quick(source, tmp_path / "more", "all", options=(*liver, "--init", init))  # a shipped model is trained on
    plans = json.loads(next((tmp_path / "more" / "nnUNet_preprocessed").glob("*/*Init*Plans.json")).read_text())
    assert plans["configurations"]["3d_fullres"]["livseg"]["recipe"]["init"] == str(init)
    described = json.loads((shipped[1] / "dataset.json").read_text())["livseg"]
    assert described["two_stage"] == {"mode": "crop", "margin_mm": 30}, "where patients' livers lie was shipped"
