"""A network of the user's through nnU-Net's commands: planned, trained, continued, predicted."""

import os
from pathlib import Path

import torch

from .conftest import assert_segment_agrees

NETWORKS = Path(__file__).resolve().parents[1] / "networks"


def test_planned_trained_continued_and_predicted(workplace, tmp_path, monkeypatch):
    workplace.without_recipe("Dataset901_Phantom")
    monkeypatch.syspath_prepend(NETWORKS)
    before = workplace.env.get("PYTHONPATH", "")
    workplace.env["PYTHONPATH"] = os.pathsep.join([str(NETWORKS), before])
    short = ("--recipe", "nnunet", "--iterations", 2, "--validation-iterations", 1)
    network = ("--network", "own_networks.MonaiLike", "--option", "width=6", "-c", "2d")
    checked = workplace.quick("livseg", "check-net", *network[1:], "-d", 901, "--patch", 32, 32, "-device", "cpu")
    assert "own_networks.MonaiLike, 2d:" in checked and "ERROR" not in checked
    assert "gradient             all 8 parameters have one" in checked
    said = workplace.run("livseg", "plan", "-d", 901, *network, *short, "--epochs", 1)
    assert "-tr LivSegTrainer -p MonaiLikeNnunetPlans" in said
    model = ("901", "2d", "all", "-tr", "LivSegTrainer", "-p", "MonaiLikeNnunetPlans", "-device", "cpu")
    workplace.run("nnUNetv2_train", *model)
    folder = workplace.results / "Dataset901_Phantom" / "LivSegTrainer__MonaiLikeNnunetPlans__2d"
    checkpoint = torch.load(folder / "fold_all" / "checkpoint_final.pth", weights_only=False)
    weights = checkpoint["network_weights"]
    assert weights["network.coarse_head.weight"].shape == (3, 6, 1, 1)
    say_the_sign(weights)  # two steps may leave nothing but background, which would prove nothing
    torch.save(checkpoint, folder / "fold_all" / "checkpoint_final.pth")
    images = workplace.raw / "Dataset901_Phantom" / "imagesTs"
    predict = ("-d", 901, "-c", "2d", "-f", "all", "-tr", "LivSegTrainer", "-p", "MonaiLikeNnunetPlans")
    workplace.quick("nnUNetv2_predict", "-i", images, "-o", tmp_path / "out", *predict, "-device", "cpu")
    predicted = next((tmp_path / "out").glob("*.nii.gz"))
    assert_segment_agrees(workplace.quick, folder, images.iterdir(), predicted, tmp_path / "segment")
    workplace.env["PYTHONPATH"] = before
    said = workplace.run("livseg", "segment", next(images.iterdir()), "-m", folder, "-o", tmp_path / "new", status=1)
    assert "the network own_networks.MonaiLike is not installed here" in said


def say_the_sign(weights):
    """Weights of ``MonaiLike`` that answer 0 where the normalized image is above 0, and 1 where it is below."""
    for tensor in weights.values():
        tensor.zero_()
    fine, head = weights["network.fine.weight"], weights["network.head.weight"]
    for label, sign in enumerate((1, -1)):
        fine[label, 0, 1, 1] = sign
        head[label, label] = 1
