"""The weighted cross-entropy against its definition, voxel by voxel, and its refusals."""

import json
import math

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch.nn import functional as F

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.losses import LOSSES
from nnunet_livseg.reference_networks import stock_configuration


def loss_of(labels, order=None):
    return LOSSES["weighted_ce"](LabelManager(labels, order), False, False)


LITS = {"background": 0, "liver": 1, "tumor": 2}
SHAPE = {2: (3, 5), 3: (2, 3, 5)}


@pytest.mark.parametrize("dim", [2, 3])
def test_mean_over_voxels_of_weight_times_log_probability(dim):
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, *SHAPE[dim]).double(), torch.randint(0, 3, (2, 1, *SHAPE[dim]))
    p = torch.softmax(logits, 1).movedim(1, -1).reshape(-1, 3).numpy()
    terms = [-(0.78, 0.65, 8.57)[k] * math.log(row[k]) for row, k in zip(p, target.flatten().tolist(), strict=True)]
    assert loss_of(LITS)(logits, target.float()).item() == pytest.approx(sum(terms) / len(terms), rel=1e-6)


def test_it_is_not_divided_by_the_sum_of_weights():
    logits, target = torch.randn(1, 3, 4, 4), torch.full((1, 1, 4, 4), 2.0)
    plain = F.cross_entropy(logits, target[:, 0].long())
    torch.testing.assert_close(loss_of(LITS)(logits, target), 8.57 * plain)


@pytest.mark.parametrize(
    ("labels", "weights"),
    [
        ({"background": 0, "liver": 1, "cancer": 2}, (0.78, 0.65, 8.57)),  # MSD Task03
        ({"background": 0, "tumour": 1}, (0.78, 8.57)),  # inside the liver's box
        ({"background": 0, "HCC": 1, "liver": 2, "metastases": 3}, (0.78, 8.57, 0.65, 8.57)),
        ({"background": 0, "liver": [1], "liver_tumor": [2]}, (0.78, 0.65, 8.57)),  # labels may stand in lists
    ],
)
def test_tumor_labels_are_known_by_name(labels, weights):
    order = list(range(1, len(labels)))
    np.testing.assert_allclose(loss_of(labels, order).weights, weights, rtol=1e-6)


def test_voxels_with_the_ignore_label_do_not_count():
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 4, 6), torch.randint(0, 3, (1, 1, 4, 6)).float()
    with_ignored = target.clone()
    with_ignored[..., 3:] = 3
    loss = loss_of(LITS | {"ignore": 3})
    torch.testing.assert_close(loss(logits, with_ignored), loss(logits[..., :3], target[..., :3]))
    assert loss(logits, torch.full_like(target, 3)).item() == 0


REGIONS = {"background": 0, "liver_and_tumor": [1, 2], "tumor": [2]}


@pytest.mark.parametrize("dim", [2, 3])
def test_regions_are_weighed_by_the_tissue_of_the_voxel(dim):
    torch.manual_seed(0)
    label = torch.randint(0, 3, (2, *SHAPE[dim]))
    target = torch.stack([label > 0, label == 2], 1)
    logits = torch.randn(2, 2, *SHAPE[dim]).double()
    terms = []
    for k, x, y in zip(
        label.flatten().tolist(),
        logits.movedim(1, -1).reshape(-1, 2).tolist(),
        target.movedim(1, -1).reshape(-1, 2).tolist(),
        strict=True,
    ):
        entropy = [-math.log(1 / (1 + math.exp(-a if inside else a))) for a, inside in zip(x, y, strict=True)]
        terms.append((0.78, 0.65, 8.57)[k] * sum(entropy) / 2)
    loss = loss_of(REGIONS, [1, 2])
    assert loss(logits, target).item() == pytest.approx(sum(terms) / len(terms), rel=1e-6)


def test_regions_with_the_ignore_label():
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 4, 6)
    target = torch.cat([torch.randint(0, 2, (1, 2, 4, 6)), torch.zeros(1, 1, 4, 6, dtype=int)], 1)
    target[:, 2, :, 3:] = 1
    loss = loss_of(REGIONS | {"ignore": 3}, [1, 2])
    expected = loss_of(REGIONS, [1, 2])(logits[..., :3], target[:, :2, :, :3])
    torch.testing.assert_close(loss(logits, target), expected)


def test_a_dataset_without_tumor_is_refused():
    with pytest.raises(UserError, match="no label of this dataset has the name of a tumor: liver, spleen"):
        loss_of({"background": 0, "liver": 1, "spleen": 2})


def test_the_trainer_refuses_it_before_files_are_made(tmp_path, monkeypatch):
    from nnunet_livseg.trainers import TRAINERS

    plans = {"dataset_name": "Dataset900_X", "plans_name": "nnUNetPlans"}
    plans["configurations"] = {"2d": stock_configuration(2)}
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNet_results", str(tmp_path))
    labels = {"background": 0, "liver": 1}
    with pytest.raises(UserError, match="no label of this dataset has the name of a tumor: liver"):
        TRAINERS["SFANTrainer"](plans, "2d", 0, {"labels": labels, "channel_names": {"0": "CT"}}, torch.device("cpu"))
    assert list(tmp_path.iterdir()) == []


def test_livseg_plan_refuses_it_before_preprocessing(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "Dataset009_Liver"
    folder.mkdir()
    plans = {"dataset_name": folder.name, "plans_name": "nnUNetPlans", "configurations": {"2d": stock_configuration(2)}}
    plans |= {"foreground_intensity_properties_per_channel": {"0": {}}}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    dataset = {"labels": {"background": 0, "liver": 1}, "modality": {"0": "CT"}}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    assert main(["plan", "-d", "9", "-m", "sfan"]) == 1
    assert "no label of this dataset has the name of a tumor: liver" in capsys.readouterr().err
    assert not (folder / "SFANPlans.json").exists()
    assert main(["plan", "-d", "9", "-m", "sfan", "--loss", "ce"]) == 0


def test_half_precision_logits_reach_it_as_float32():
    from nnunet_livseg.losses import MultiOutputLoss
    from nnunet_livseg.networks.outputs import TrainingOutput

    outputs = [TrainingOutput("final", (1, 1), 1.0)]
    loss = MultiOutputLoss(loss_of(LITS), outputs)
    logits = torch.tensor([[1e4, -1e4, -1e4]], dtype=torch.float16)[..., None, None]
    assert loss([logits], [torch.full((1, 1, 1, 1), 2.0)]).item() == pytest.approx(8.57 * 2e4, rel=1e-3)
