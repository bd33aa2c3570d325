"""Multi-scale inference on a network whose answer is known at every voxel, and its command's arguments."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.inference.devices import best_device
from nnunet_livseg.multiscale import MultiScalePredictor, as_logits, multiscale_predictor
from nnunet_livseg.reference_networks import stock_configuration

CLASSES = {"background": 0, "liver": 1, "tumor": 2}
REGIONS = {"background": 0, "liver": [1, 2], "tumor": 2}


class Pointwise(nn.Module):
    """Logits of a voxel from its intensity alone, so that patches and padding do not matter."""

    def __init__(self, heads):
        super().__init__()
        self.seen = []
        self.slopes = torch.linspace(-2, 3, heads)

    def forward(self, x):
        self.seen.append(x.clone())
        return x[:, :1] * self.slopes.view(-1, *[1] * (x.ndim - 2))


def predictor(cls, dim=2, *, labels=CLASSES):
    configuration = stock_configuration(dim, patch=(16, 16, 16)[:dim], features=(4, 4))
    plans = PlansManager({"configurations": {"c": configuration}, "plans_name": "p"})
    dataset = {"labels": labels, "regions_class_order": [1, 2], "channel_names": {"0": "CT"}}
    made = cls(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    heads = 2 if labels is REGIONS else 3
    network = Pointwise(heads)
    made.manual_initialization(network, plans, plans.get_configuration("c"), None, dataset, "T", None)
    return made


def image(shape=(1, 3, 24, 40)):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dim", [2, 3])
def test_mean_of_probabilities_over_scales(dim):
    """0.5 by hand: bilinear halving is the mean of 2 x 2 voxels; z is left alone."""
    x = image()
    logits = predictor(multiscale_predictor([0.5, 1.0]), dim).predict_sliding_window_return_logits(x)
    slopes = torch.linspace(-2, 3, 3).view(3, 1, 1, 1)
    small = x.unflatten(3, (20, 2)).unflatten(2, (12, 2)).mean((3, 5))
    back = nn.functional.interpolate((small * slopes).softmax(0), size=(24, 40), mode="bilinear", align_corners=False)
    expected = ((x * slopes).softmax(0) + back) / 2
    torch.testing.assert_close(logits.float().softmax(0), expected, rtol=0, atol=1e-2)  # nnU-Net stores float16


def test_regions_are_averaged_as_sigmoids():
    x = image()
    logits = predictor(multiscale_predictor([0.5, 1.0]), labels=REGIONS).predict_sliding_window_return_logits(x)
    slopes = torch.linspace(-2, 3, 2).view(2, 1, 1, 1)
    small = x.unflatten(3, (20, 2)).unflatten(2, (12, 2)).mean((3, 5))
    back = nn.functional.interpolate((small * slopes).sigmoid(), size=(24, 40), mode="bilinear", align_corners=False)
    expected = ((x * slopes).sigmoid() + back) / 2
    torch.testing.assert_close(logits.float().sigmoid(), expected, rtol=0, atol=1e-2)


def test_odd_sizes_and_images_smaller_than_the_patch():
    logits = predictor(multiscale_predictor([0.5, 1.0, 1.5]), 3).predict_sliding_window_return_logits(
        image((1, 5, 7, 13))
    )
    assert logits.shape == (3, 5, 7, 13) and logits.isfinite().all()


@pytest.mark.parametrize("dim", [2, 3])
def test_the_scale_one_is_nnunets_own_prediction(dim):
    ours = predictor(multiscale_predictor([1.0]), dim).predict_sliding_window_return_logits(image())
    theirs = predictor(nnUNetPredictor, dim).predict_sliding_window_return_logits(image())
    assert torch.equal(ours, theirs)


def test_a_previous_stages_labels_stay_one_hot():
    labels = (torch.randn(1, 3, 24, 40) > 0).float()
    made = predictor(multiscale_predictor([0.5, 1.5]))
    made.predict_sliding_window_return_logits(torch.cat([image(), labels]))
    seen = torch.cat([patch[:, 1].flatten() for patch in made.network.seen])
    assert set(seen.tolist()) == {0.0, 1.0}


def test_certain_probabilities_become_finite_logits():
    p = torch.tensor([[0.0, 1.0, 0.25], [1.0, 0.0, 0.75]])
    assert (
        as_logits(p, exclusive=True).half().isfinite().all() and as_logits(p, exclusive=False).half().isfinite().all()
    )
    torch.testing.assert_close(as_logits(p, exclusive=True).softmax(0), p, rtol=0, atol=1e-6)
    torch.testing.assert_close(as_logits(p, exclusive=False).sigmoid(), p, rtol=0, atol=1e-6)


def test_the_default_scales_are_the_papers():
    assert MultiScalePredictor.scales == (0.5, 1.0, 1.5)


@pytest.mark.parametrize("scales", [[0.0], [-1.0], [float("nan")], [5.0], []])
def test_impossible_scales_are_refused(scales):
    with pytest.raises(UserError, match="must be above 0 and at most 4"):
        multiscale_predictor(scales)


def test_the_command_hands_everything_else_to_nnunet(monkeypatch, tmp_path):
    seen = {}

    def nnunets_command():
        import sys

        seen["argv"], seen["predictor"] = sys.argv, predict_from_raw_data.nnUNetPredictor

    monkeypatch.setattr(predict_from_raw_data, "predict_entry_point", nnunets_command)
    theirs = f"-i {tmp_path} -o OUT -d 3 -c 2d -f 0 1 -step_size 0.7 --save_probabilities".split()
    assert main(["predict", "--scales", "0.5", "1", *theirs]) == 0
    assert seen["argv"][1:] == [*theirs, "-device", best_device()]
    assert main(["predict", *theirs, "-device", "cpu"]) == 0
    assert seen["argv"][1:] == [*theirs, "-device", "cpu"]
    assert main(["predict", "--scales", "0.5", "1", *theirs]) == 0
    assert seen["predictor"].scales == (0.5, 1.0)
    assert predict_from_raw_data.nnUNetPredictor is nnUNetPredictor
    assert main(["predict", *theirs]) == 0
    assert seen["predictor"].scales == (1.0,)


def test_a_model_folder_goes_to_nnunets_command_for_it(monkeypatch, tmp_path, capsys):
    called = []
    monkeypatch.setattr(predict_from_raw_data, "predict_entry_point_modelfolder", lambda: called.append(True))
    model = tmp_path / "SFANTrainer__SFANPlans__2d"
    (model / "fold_0").mkdir(parents=True)
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0}, "numTraining": 1, "file_ending": ".nii.gz"}
    dataset["configurations"] = {}
    for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
        (model / name).write_text(json.dumps(dataset))
    ct = sitk.GetImageFromArray(np.linspace(-1000, 400, 4096, dtype=np.int16).reshape(16, 16, 16))
    sitk.WriteImage(ct, str(tmp_path / "a_0000.nii.gz"))
    assert main(["predict", "--scales", "1", "-i", str(tmp_path), "-m", str(model)]) == 0
    assert called == [True]
    for options, message in (
        (["-i", "nowhere", "-m", str(model)], "there is no folder nowhere"),
        (["-i", str(tmp_path), "-m", str(tmp_path)], "is not a model folder: it has no plans.json"),
        (["-i", str(tmp_path), "-m", str(model), "-f", "9"], "of fold 9; trained: fold_0"),
        (["-i", str(tmp_path), "-m", str(model), "-device", "tpu"], "there is no device tpu here"),
    ):
        assert main(["predict", *options]) == 1
        assert message in capsys.readouterr().err
    assert called == [True]


def test_other_commands_still_refuse_unknown_arguments(capsys):
    with pytest.raises(SystemExit):
        main(["list", "-i", "IN"])
    assert "livseg list: there is no option -i" in capsys.readouterr().err


def test_wrong_scales_on_the_command_line(capsys):
    assert main(["predict", "--scales", "0"]) == 1
    assert "livseg predict: a scale resizes the image in plane" in capsys.readouterr().err


@pytest.mark.parametrize("scales", [(1.0,), [0.5, 1.0]])
def test_the_final_validation_predicts_at_the_recipes_scales(monkeypatch, scales):
    import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as nnunets

    from nnunet_livseg.recipes import Recipe
    from nnunet_livseg.trainers import TRAINERS

    seen = []
    monkeypatch.setattr(
        nnunets.nnUNetTrainer,
        "perform_actual_validation",
        lambda trainer, save: seen.append((nnunets.nnUNetPredictor.scales, save)),
    )
    trainer = object.__new__(TRAINERS["SFANTrainer"])
    trainer.recipe = Recipe().replace(validation_scales=scales)
    trainer.perform_actual_validation(True)
    assert seen == [(tuple(scales), True)]
    assert nnunets.nnUNetPredictor is nnUNetPredictor


def test_wrong_scales_of_a_recipe_are_refused_before_training():
    from nnunet_livseg.trainers import TRAINERS

    plans = {"dataset_name": "Dataset900_X", "plans_name": "p", "configurations": {"2d": stock_configuration(2)}}
    plans["configurations"]["2d"]["livseg"] = {"recipe": {"validation_scales": [0.0]}}
    with pytest.raises(UserError, match="must be above 0 and at most 4: 0 is not"):
        TRAINERS["SFANTrainer"](plans, "2d", 0, {"labels": CLASSES, "channel_names": {"0": "CT"}}, torch.device("cpu"))
